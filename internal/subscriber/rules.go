package subscriber

// Step is the effect of an event on a session: a cell of the table of rules.
type Step uint8

// The steps.
const (
	StepNothing Step = iota // no effect, no verdict to report
	StepIgnore              // no effect, because of the relation
	StepBegin               // a session begins; an earlier one under its identifier ends
	StepRefresh             // the session goes on: refreshed, moved, or placed again
	StepClose               // the session ends, its record is deleted
	StepNote                // the end is remembered, so that late events do not open the session
	StepLeave               // the session goes on in another group, or at an address of none
)

// A row holds the steps of a Start, an Interim-Update and a Stop.
type row [3]Step

//go:generate go test . -run RulesDocument -update

// sessionRules is the table that runs: for each scope and relation, the step of
// each kind of event. Accounting-On and -Off do not look at sessions: they
// record a Restart, and a sweep ends the older sessions.
var sessionRules = [...][relations]row{
	Here: { //           Start        Interim      Stop
		RelationUnknown: {StepBegin, StepBegin, StepNote},      // SES-03, SES-04, SES-11
		RelationSame:    {StepRefresh, StepRefresh, StepClose}, // SES-02, SES-05, SES-09
		RelationEarlier: {StepIgnore, StepIgnore, StepIgnore},  // SES-06, SES-12, I4
		RelationLater:   {StepBegin, StepBegin, StepNote},      // SES-12
		RelationEnded:   {StepIgnore, StepIgnore, StepIgnore},  // SES-10, SES-11
		RelationLapsed:  {StepBegin, StepBegin, StepNote},      // SES-18: the BNG says it is online
		RelationBefore:  {StepIgnore, StepIgnore, StepIgnore},  // SES-15
	},
	NoAddress: {
		RelationUnknown: {StepNothing, StepNothing, StepNote},
		RelationSame:    {StepRefresh, StepRefresh, StepClose}, // SES-05
		RelationEarlier: {StepIgnore, StepIgnore, StepIgnore},
		RelationLater:   {StepBegin, StepBegin, StepNote},
		RelationEnded:   {StepIgnore, StepIgnore, StepIgnore},
		RelationLapsed:  {StepNothing, StepNothing, StepNote},
		RelationBefore:  {StepIgnore, StepIgnore, StepIgnore},
	},
	Elsewhere: {
		RelationUnknown: {StepNothing, StepNothing, StepNothing},
		RelationSame:    {StepLeave, StepLeave, StepClose}, // SES-09 across groups
		RelationEarlier: {StepIgnore, StepIgnore, StepIgnore},
		RelationLater:   {StepLeave, StepLeave, StepClose},
		RelationEnded:   {StepNothing, StepNothing, StepNothing},
		RelationLapsed:  {StepNothing, StepNothing, StepNote},
		RelationBefore:  {StepIgnore, StepIgnore, StepIgnore},
	},
	Recorded: { // as Here, without a record (ACCT-24, ACCT-25)
		RelationUnknown: {StepBegin, StepBegin, StepNote},
		RelationSame:    {StepRefresh, StepRefresh, StepClose},
		RelationEarlier: {StepIgnore, StepIgnore, StepIgnore},
		RelationLater:   {StepBegin, StepBegin, StepNote},
		RelationEnded:   {StepIgnore, StepIgnore, StepIgnore},
		RelationLapsed:  {StepBegin, StepBegin, StepNote},
		RelationBefore:  {StepIgnore, StepIgnore, StepIgnore},
	},
}

// ignored holds the verdict of StepIgnore for each relation.
var ignored = [relations]Verdict{
	RelationEarlier: Stale,
	RelationEnded:   Ended,
	RelationBefore:  Outdated,
}

// addressRule is the answer to a session that wants an address.
type addressRule struct {
	grant    bool    // the session gets the address
	evict    bool    // the holder's session ends first, SUPERSEDED (SES-07)
	announce bool    // the record is a new one, not an update of the holder's
	verdict  Verdict // of a session that was at no address before
}

// addressRules is the table for sessions that begin, move, or come back.
var addressRules = [owners]addressRule{
	OwnerNone:      {grant: true, announce: true, verdict: Opened},
	OwnerSelf:      {grant: true, verdict: Refreshed},
	OwnerAdoptable: {grant: true, verdict: Adopted},
	OwnerLink:      {grant: true, verdict: Linked}, // SES-20
	OwnerOlder:     {grant: true, evict: true, announce: true, verdict: TookOver},
	OwnerNewer:     {verdict: Held},          // SES-14
	OwnerForeign:   {verdict: ForeignHolder}, // SES-16
}
