package subscriberdb

import (
	"cmp"
	"iter"
	"time"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/throttle"
)

// repeatInterval is the time between two lines of the log about what events tell again and
// again: each is counted, and a client that goes on must not fill the log.
const repeatInterval = time.Minute

func newThrottle() *throttle.Throttle { return &throttle.Throttle{Interval: repeatInterval} }

// throttles thin out the lines of several kinds, each by itself.
type throttles[K comparable] map[K]*throttle.Throttle

func newThrottles[K comparable](kinds iter.Seq[K]) throttles[K] {
	logs := make(throttles[K])
	for kind := range kinds {
		logs[kind] = newThrottle()
	}
	return logs
}

// foreignEvents are the events of which a client tells that are not of its own NASes and
// addresses (SES-16), or beyond its share, by verdict: what the log says of them, and what to look at.
var foreignEvents = map[subscriber.Verdict]struct{ what, see string }{
	subscriber.ForeignNAS:     {"restart of a NAS that another client reports ignored", "sessionctl nas list"},
	subscriber.ForeignAddress: {"accounting of an address that its RADIUS client may not report ignored", "inside and groups of the client"},
	subscriber.ClientFull:     {"accounting of one subscriber more than its RADIUS client may have online ignored", "max_subscribers of the client"},
	subscriber.ForeignHolder:  {"accounting at the address of another RADIUS client's subscriber ignored", "realm of the clients"},
}

// warnForeign tells of a refused event, if it is one of those.
func (db *DB) warnForeign(ev *subscriber.Event, v subscriber.Verdict) {
	log := db.foreign[v]
	if log == nil {
		return
	}
	suppressed, ok := log.Allow(db.now())
	if !ok {
		return
	}
	line := []any{"client", cmp.Or(ev.Via, ev.Client), "nas", ev.NAS, "inside", ev.Inside}
	if owner, foreign := db.cache.foreign(ev.SessionID); foreign {
		line = append(line, "reported_by", owner)
	}
	db.logger.Warn(foreignEvents[v].what,
		append(line, "more_before", suppressed, "see", foreignEvents[v].see, "alarm", "sessiond_accounting_refused_total")...)
}
