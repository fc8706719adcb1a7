package subscriberdb

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/nases"
	"github.com/sessiond/sessiond/internal/subscriberdb/txn"
	"github.com/sessiond/sessiond/internal/throttle"
)

// Record durably applies accounting events in the order given, many in one round trip. It
// returns one error for each event: nil means that Redis has stored it, in every group that
// it concerns. Applying an event again is harmless, so an event that failed may be sent
// again.
func (db *DB) Record(ctx context.Context, events []subscriber.Event) []error {
	return Recorder{db, true}.Record(ctx, events)
}

// Recorder is a DB whose Record also reports the events that changed nothing.
type Recorder struct {
	DB *DB

	changesOnly bool // Record does not report them
}

// Record is DB.Record, but with [subscriber.ErrNoRecord] for each event that was accepted
// and wrote nothing.
func (r Recorder) Record(ctx context.Context, events []subscriber.Event) []error {
	db := r.DB
	groups := db.inForce()
	work := workspaces.Get().(*scratch)
	defer work.clear()
	work.jobs = slices.Grow(work.jobs, len(events))[:len(events)]
	for i := range work.jobs {
		work.jobs[i].begin(db, groups, &events[i])
	}
	for _, w := range work.waves() {
		db.performJobs(ctx, groups, w)
	}
	errs := make([]error, len(events))
	for i := range work.jobs {
		wrote, err := work.jobs[i].finish(&work.packer)
		if err == nil && !wrote && !r.changesOnly {
			err = subscriber.ErrNoRecord
		}
		errs[i] = err
	}
	return errs
}

// scratch holds the jobs of one call of Record. It is pooled, because the jobs are most of
// the memory that an event takes.
type scratch struct {
	jobs      []job
	sessions  map[uint64]int // by hash of the session, the earliest wave for its next event
	addresses map[netip.Addr]int
	packer    subscriber.Packer // of the records for the cache
}

var workspaces = sync.Pool{New: func() any {
	return &scratch{sessions: make(map[uint64]int), addresses: make(map[netip.Addr]int)}
}}

// workspaceLimit is the largest number of jobs with which a workspace is pooled, so that a
// flood of events does not occupy its memory for ever.
const workspaceLimit = 4096

// clear returns the workspace to the pool. Its jobs must not be used afterwards.
func (w *scratch) clear() {
	if len(w.jobs) > workspaceLimit {
		return
	}
	clear(w.jobs)
	w.jobs = w.jobs[:0]
	clear(w.sessions)
	clear(w.addresses)
	workspaces.Put(w)
}

// job is one event with its transactions in the groups that it concerns.
type job struct {
	db      *DB
	event   subscriber.Event
	hash    uint64             // of the event's session
	ignored subscriber.Verdict // why the event concerns no group; NotHere for most
	home    *Group             // the event's own group; nil for an event without one
	main    txn.Txn            // in home
	scratch subscriber.Scratch // of main's decision
	alone   bool               // main started from a cached session, which also says that no other group knows the session
	rest    []*txn.Txn         // in the other groups
}

func (j *job) begin(db *DB, groups *groupTable, event *subscriber.Event) {
	j.db, j.event = db, *event
	ev := &j.event
	ev.Inside = ev.Inside.Unmap()
	client := ev.Client
	if !db.nases.Place(ev) {
		db.reports.limit(cmp.Or(ev.Via, ev.Client), BoundNASes)
	}
	ev.At, ev.Latest = ev.At.UTC(), ev.Latest.UTC()
	ev.Stamp, ev.Claimed = ev.Stamp.UTC(), ev.Claimed.UTC()
	if len(ev.Addresses) > 1 {
		ev.Leg = ev.Inside
	}
	j.hash = txn.HashOf(ev.SessionID)
	if j.ignored = db.ignores(ev); j.ignored != subscriber.NotHere {
		return
	}
	ev.Full = db.full(ev, client)
	own := groups.of(ev.Inside)
	ev.ForeignInside = ev.ForeignInside && own != nil // the addresses of no group belong to no client
	if ev.ForeignInside && ev.Client != client {
		j.ignored = subscriber.ForeignAddress // nor may it end another client's sessions there
		return
	}
	if j.home = own; own != nil {
		j.enter(&j.main, own, subscriber.Here)
		j.alone = j.main.Load(db.txns, ev.Kind == subscriber.EventStart)
	}
}

// ignores returns the reason to ignore the event in every group, or NotHere. A service
// begins and ends within its subscriber's session (SES-21). The restart of a NAS whose
// sessions another client reports ends none of them, because each client has NASes of its
// own: it is a mistake or an attack (SES-16). If several NASes use one name, it is unknown
// which of them restarted.
func (db *DB) ignores(ev *subscriber.Event) subscriber.Verdict {
	conflict, sign := db.reports.addresses.Note(ev, db.reports.now)
	if sign {
		db.reports.nasConflict(ev)
	}
	if ev.Service && !ev.CountServices {
		return subscriber.ServiceIgnored
	}
	if !isRestart(ev) {
		return subscriber.NotHere
	}
	if conflict {
		return subscriber.NASConflict
	}
	if _, foreign := db.reports.reporters.Foreign(ev.SessionID); foreign {
		return subscriber.ForeignNAS
	}
	return subscriber.NotHere
}

func isRestart(ev *subscriber.Event) bool {
	return ev.Kind == subscriber.EventAccountingOn || ev.Kind == subscriber.EventAccountingOff
}

// enter sets up the event's transaction in one group. Outside the event's own group its
// address is not used.
func (j *job) enter(tx *txn.Txn, g *Group, scope subscriber.Scope) {
	ev := &j.event
	tx.Group, tx.Scope, tx.Session, tx.Hash, tx.Via, tx.Decider = g.txns, scope, ev.SessionID, j.hash, ev.Via, j
	if scope == subscriber.Here && !isRestart(ev) {
		tx.Inside = ev.Inside
	}
	if ev.Kind != subscriber.EventStop && g.Name != codec.Reserved {
		tx.UseRestart(j.db.txns)
	}
}

// others returns the event's transactions outside its own group. The reserved group has no
// records, so a Start that has an address ends nothing there.
func (j *job) others(groups *groupTable) []*txn.Txn {
	scope, recorded := subscriber.Elsewhere, subscriber.Elsewhere
	if j.home == nil {
		recorded = subscriber.Recorded
		if !j.event.Inside.IsValid() {
			scope = subscriber.NoAddress
		}
	}
	var txns []*txn.Txn
	for i := range groups.groups {
		if g := &groups.groups[i]; g != j.home {
			txns = append(txns, new(txn.Txn))
			j.enter(txns[len(txns)-1], g, scope)
		}
	}
	if isRestart(&j.event) || j.home != nil && j.event.Kind == subscriber.EventStart {
		return txns
	}
	tx := new(txn.Txn)
	j.enter(tx, &groups.reserved, recorded)
	return append(txns, tx)
}

// waves splits the jobs so that those of one wave do not depend on each other, and every
// job comes after the earlier ones that it depends on: those of the same session or
// address, and restarts, which depend on all others.
func (w *scratch) waves() [][]*job {
	var list [][]*job
	barrier := 0
	for i := range w.jobs {
		j := &w.jobs[i]
		inside, restart := j.event.Inside, isRestart(&j.event)
		if restart {
			inside, barrier = netip.Addr{}, len(list)
		}
		wave := max(barrier, w.sessions[j.hash], w.addresses[inside])
		if restart {
			barrier = wave + 1
		}
		w.sessions[j.hash] = wave + 1
		if inside.IsValid() {
			w.addresses[inside] = wave + 1
		}
		if wave == len(list) {
			list = append(list, make([]*job, 0, len(w.jobs)-i))
		}
		list[wave] = append(list[wave], j)
	}
	return list
}

// performJobs runs one wave of jobs. Transactions in other groups go in the same round
// trip, and are left out if the session is known to be in its own group only.
func (db *DB) performJobs(ctx context.Context, groups *groupTable, jobs []*job) {
	txns := make([]*txn.Txn, 0, len(jobs))
	for _, j := range jobs {
		if j.home != nil {
			txns = append(txns, &j.main)
		}
		if !j.alone && j.ignored == subscriber.NotHere {
			j.rest = j.others(groups)
			txns = append(txns, j.rest...)
		}
	}
	db.txns.Run(ctx, txns)
	var late []*txn.Txn
	for _, j := range jobs {
		if j.alone && j.main.Conflicted {
			j.rest = j.others(groups)
			late = append(late, j.rest...)
		}
	}
	db.txns.Run(ctx, late)
}

// Decide implements txn.Decider for the event in one group.
func (j *job) Decide(tx *txn.Txn, v subscriber.View) (subscriber.Decision, subscriber.SessionID) {
	db := j.db
	if h := v.Holder; h != nil && (h.NAS != tx.Session.NAS || h.Client != tx.Session.Client) {
		v.HolderApart = db.apart(tx.Group.Name, h, tx.Session, &j.event)
		v.HolderToldApart = db.toldApart(h.Client, tx.Session.Client)
	}
	ev := j.event
	ev.SessionID = tx.Session
	if id := subscriber.Identify(v, &ev); id != tx.Session {
		if from, to := codec.NASOf(tx.Session), codec.NASOf(id); from != to && db.nases.Unite(from, to) {
			db.reports.united(from, to)
		}
		return subscriber.Decision{}, id
	}
	ev.Inside = tx.Inside
	var scratch *subscriber.Scratch // the transactions in other groups rarely decide anything
	if tx == &j.main {
		scratch = &j.scratch
	}
	return scratch.Decide(v, ev), tx.Session
}

// finish reports the event's outcome, and whether a transaction wrote something. It saves
// the state of its session in the cache. An event that was refused is counted, by client and
// by NAS, so that the operator can find a NAS with a wrong clock or wrong identifiers.
func (j *job) finish(p *subscriber.Packer) (wrote bool, err error) {
	db, ev, refused := j.db, &j.event, j.ignored
	if j.ignored != subscriber.NotHere {
		db.onVerdict("", j.ignored)
	} else if j.home != nil {
		refused, wrote = j.main.Decision.Verdict, j.main.Decision.Writes()
		err = j.report(&j.main)
	}
	for _, tx := range j.rest {
		err = errors.Join(err, j.report(tx))
		wrote = wrote || tx.Decision.Writes()
		if refused == subscriber.NotHere {
			refused = tx.Decision.Verdict
		}
	}
	if j.home != nil {
		if j.main.Save(db.txns, p, err == nil) || err == nil && !j.alone && j.main.Decision.Put != nil { // also after a start of the daemon, with an empty cache
			db.reports.reporters.Reported(j.main.Session)
		}
	}
	if err == nil && !wrote && refused.Refused() {
		db.reports.warnForeign(ev, refused)
		db.reports.refused(ev.Via, refused)
		db.nases.Refuse(ev.SessionID, refused)
	}
	return wrote, err
}

// report gives the verdict of a transaction to the observer, and wakes SweepRestarts if
// there is work for it.
func (j *job) report(tx *txn.Txn) error {
	db := j.db
	if tx.Err != nil {
		return tx.Err
	}
	if tx.Decision.Verdict != subscriber.NotHere {
		db.onVerdict(tx.Group.Name, tx.Decision.Verdict)
	}
	if tx.FoundNoLink() {
		db.reports.limit(cmp.Or(tx.Via, tx.Session.Client), BoundLinks)
	}
	if tx.Decision.Restart == nil {
		return nil
	}
	db.nases.Restart(tx.Session, tx.Decision.Restart.At)
	db.txns.SetRestart(tx.Group.Name, tx.Session, codec.FormatRestart(tx.Decision.Restart)+" "+tx.Decision.Restart.ID)
	select {
	case db.fresh <- struct{}{}:
	default:
	}
	return nil
}

// Reports: events that are ignored or cannot be stored are counted, and logged now and then.

// repeatInterval is the shortest time between two log lines of one kind about events. Each
// event is counted, but a client that repeats one must not fill the log.
const repeatInterval = time.Minute

func newThrottle() *throttle.Throttle { return &throttle.Throttle{Interval: repeatInterval} }

// throttles holds a throttle for each kind of log line.
type throttles[K comparable] map[K]*throttle.Throttle

func newThrottles[K comparable](kinds iter.Seq[K]) throttles[K] {
	logs := make(throttles[K])
	for kind := range kinds {
		logs[kind] = newThrottle()
	}
	return logs
}

// eventReports counts and logs events that are ignored or cannot be stored.
type eventReports struct {
	refused  func(client string, v subscriber.Verdict)
	conflict func(client string)
	limited  func(client string, b Bound)

	foreignLogs throttles[subscriber.Verdict]
	limitLogs   throttles[Bound]
	conflictLog *throttle.Throttle
	uniteLog    *throttle.Throttle

	reporters nases.Reporters
	addresses nases.Addresses
	logger    *slog.Logger
	now       func() time.Time
}

func newEventReports(o *Options, logger *slog.Logger) *eventReports {
	return &eventReports{
		refused: o.Refused, conflict: o.Conflict, limited: o.Limited,
		foreignLogs: newThrottles(maps.Keys(foreignEvents)), limitLogs: newThrottles(slices.Values(Bounds())),
		conflictLog: newThrottle(), uniteLog: newThrottle(),
		logger: logger, now: o.Now,
	}
}

// foreignEvents holds, by verdict, the log line about an event that is not of the client's
// own NASes and addresses (SES-16) or is beyond its limit, and where to look.
var foreignEvents = map[subscriber.Verdict]struct{ what, see string }{
	subscriber.ForeignNAS:     {"restart of a NAS that another client reports ignored", "sessionctl nas list"},
	subscriber.ForeignAddress: {"accounting of an address that its RADIUS client may not report ignored", "inside and groups of the client"},
	subscriber.ClientFull:     {"accounting of one subscriber more than its RADIUS client may have online ignored", "max_subscribers of the client"},
	subscriber.ForeignHolder:  {"accounting at the address of another RADIUS client's subscriber ignored", "realm of the clients"},
}

// warnForeign logs a refused event if its verdict is in foreignEvents.
func (r *eventReports) warnForeign(ev *subscriber.Event, v subscriber.Verdict) {
	log := r.foreignLogs[v]
	if log == nil {
		return
	}
	suppressed, ok := log.Allow(r.now())
	if !ok {
		return
	}
	line := []any{"client", cmp.Or(ev.Via, ev.Client), "nas", ev.NAS, "inside", ev.Inside}
	if owner, foreign := r.reporters.Foreign(ev.SessionID); foreign {
		line = append(line, "reported_by", owner)
	}
	r.logger.Warn(foreignEvents[v].what,
		append(line, "suppressed", suppressed, "see", foreignEvents[v].see, "alarm", "sessiond_accounting_refused_total")...)
}

// united logs that one NAS is reported under two names, through two clients.
func (r *eventReports) united(from, to NASName) {
	if suppressed, ok := r.uniteLog.Allow(r.now()); ok {
		r.logger.Warn("one NAS is heard of through two clients, which are taken as one for it: give them one realm",
			"client", from.Client, "nas", from.Name, "first_client", to.Client, "suppressed", suppressed)
	}
}

// nasConflict counts and logs a sign that several NASes use the NAS name of the event.
func (r *eventReports) nasConflict(ev *subscriber.Event) {
	r.conflict(ev.Via)
	if suppressed, ok := r.conflictLog.Allow(r.now()); ok {
		r.logger.Warn("several NASes have one name; their restarts are ignored, see nas_identity of the client",
			"client", ev.Via, "nas", ev.NAS, "nas_address", ev.NASAddress, "suppressed", suppressed,
			"alarm", "sessiond_nas_conflicts_total")
	}
}

// A Bound is a resource of which each client gets a share only.
type Bound string

// The bounds on the use of Redis and of memory by accounting.
const (
	BoundNASes      Bound = "nases"      // the table of NASes has no room for one more
	BoundTombstones Bound = "tombstones" // the state of an ended session, or of one without an address, lives for minutes only
	BoundLinks      Bound = "links"      // a session has no room for one more link or service
)

// Bounds returns all bounds.
func Bounds() []Bound { return []Bound{BoundNASes, BoundTombstones, BoundLinks} }

// boundTexts holds the log lines about clients that have used up their shares.
var boundTexts = map[Bound]string{
	BoundNASes:      "a RADIUS client tells of more NASes than there is room for; no clock and no restart is remembered of those",
	BoundTombstones: "a RADIUS client ends more sessions than can be remembered; the end of the rest is remembered for 5 minutes",
	BoundLinks:      "a session has more links than are kept",
}

// limit counts and logs that a client has used up its share.
func (r *eventReports) limit(client string, b Bound) {
	r.limited(client, b)
	if suppressed, ok := r.limitLogs[b].Allow(r.now()); ok {
		r.logger.Warn(boundTexts[b], "client", client, "suppressed", suppressed, "alarm", "sessiond_accounting_bounds_reached_total")
	}
}
