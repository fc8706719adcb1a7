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
var sessionRules = [...][standings]row{
	Here: { //           Start        Interim      Stop
		StandingUnknown: {StepBegin, StepBegin, StepNote},      // SES-03, SES-04, SES-11
		StandingSame:    {StepRefresh, StepRefresh, StepClose}, // SES-02, SES-05, SES-09
		StandingEarlier: {StepIgnore, StepIgnore, StepIgnore},  // SES-06, SES-12, I4
		StandingLater:   {StepBegin, StepBegin, StepNote},      // SES-12
		StandingEnded:   {StepIgnore, StepIgnore, StepIgnore},  // SES-10, SES-11
		StandingLapsed:  {StepBegin, StepBegin, StepNote},      // SES-18: the BNG says it is online
		StandingBefore:  {StepIgnore, StepIgnore, StepIgnore},  // SES-15
	},
	NoAddress: {
		StandingUnknown: {StepNothing, StepNothing, StepNote},
		StandingSame:    {StepRefresh, StepRefresh, StepClose}, // SES-05
		StandingEarlier: {StepIgnore, StepIgnore, StepIgnore},
		StandingLater:   {StepBegin, StepBegin, StepNote},
		StandingEnded:   {StepIgnore, StepIgnore, StepIgnore},
		StandingLapsed:  {StepNothing, StepNothing, StepNote},
		StandingBefore:  {StepIgnore, StepIgnore, StepIgnore},
	},
	Elsewhere: {
		StandingUnknown: {StepNothing, StepNothing, StepNothing},
		StandingSame:    {StepLeave, StepLeave, StepClose}, // SES-09 across groups
		StandingEarlier: {StepIgnore, StepIgnore, StepIgnore},
		StandingLater:   {StepLeave, StepLeave, StepClose},
		StandingEnded:   {StepNothing, StepNothing, StepNothing},
		StandingLapsed:  {StepNothing, StepNothing, StepNote},
		StandingBefore:  {StepIgnore, StepIgnore, StepIgnore},
	},
	Recorded: { // as Here, without a record (ACCT-24, ACCT-25)
		StandingUnknown: {StepBegin, StepBegin, StepNote},
		StandingSame:    {StepRefresh, StepRefresh, StepClose},
		StandingEarlier: {StepIgnore, StepIgnore, StepIgnore},
		StandingLater:   {StepBegin, StepBegin, StepNote},
		StandingEnded:   {StepIgnore, StepIgnore, StepIgnore},
		StandingLapsed:  {StepBegin, StepBegin, StepNote},
		StandingBefore:  {StepIgnore, StepIgnore, StepIgnore},
	},
}

// ignored holds the verdict of StepIgnore for each relation.
var ignored = [standings]Verdict{
	StandingEarlier: Stale,
	StandingEnded:   Ended,
	StandingBefore:  Outdated,
}

// addressRule is the answer to a session that wants an address.
type addressRule struct {
	grant    bool    // the session gets the address
	evict    bool    // the holder's session ends first, SUPERSEDED (SES-07)
	announce bool    // the record is a new one, not an update of the holder's
	verdict  Verdict // of a session that was at no address before
}

// addressRules is the table for sessions that begin, move, or come back.
var addressRules = [holdings]addressRule{
	HoldingFree:      {grant: true, announce: true, verdict: Opened},
	HoldingOwn:       {grant: true, verdict: Refreshed},
	HoldingAdoptable: {grant: true, verdict: Adopted},
	HoldingLink:      {grant: true, verdict: Linked}, // SES-20
	HoldingOlder:     {grant: true, evict: true, announce: true, verdict: TookOver},
	HoldingNewer:     {verdict: Held},          // SES-14
	HoldingForeign:   {verdict: ForeignHolder}, // SES-16
}
