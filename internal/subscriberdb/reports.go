package subscriberdb

import (
	"cmp"
	"iter"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/nases"
	"github.com/sessiond/sessiond/internal/throttle"
)

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

// conflicts reports whether several NASes use the NAS name of the event. It counts and logs
// the conflict if the event shows it.
func (r *eventReports) conflicts(ev *subscriber.Event) bool {
	conflict, sign := r.addresses.Note(ev, r.now)
	if sign {
		now := r.now()
		r.conflict(ev.Via)
		if suppressed, ok := r.conflictLog.Allow(now); ok {
			r.logger.Warn("several NASes have one name; their restarts are ignored, see nas_identity of the client",
				"client", ev.Via, "nas", ev.NAS, "nas_address", ev.NASAddress, "suppressed", suppressed,
				"alarm", "sessiond_nas_conflicts_total")
		}
	}
	return conflict
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
