package subscriberdb

import (
	"cmp"
	"sync"
	"time"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// mutedPause is the time between two lines of the log about what events tell again and
// again: each is counted, and a client that goes on must not fill the log.
const mutedPause = time.Minute

// mutedLog bounds those lines.
type mutedLog struct {
	mu     sync.Mutex
	next   time.Time
	silent int // not told since the last line
}

// tell reports whether a line is due, and how many were left out before it.
func (l *mutedLog) tell(now time.Time) (silent int, due bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Before(l.next) {
		l.silent++
		return 0, false
	}
	silent, l.silent, l.next = l.silent, 0, now.Add(mutedPause)
	return silent, true
}

// warnForeign tells of the restart of a NAS that another client reports (SES-16).
func (db *DB) warnForeign(ev *subscriber.Event, owner string) {
	if silent, due := db.foreign.tell(db.now()); due {
		db.logger.Warn("restart of a NAS that another client reports ignored", "client", cmp.Or(ev.Via, ev.Client), "nas", ev.NAS,
			"reported_by", owner, "more_before", silent, "alarm", "sessiond_accounting_verdicts_total")
	}
}
