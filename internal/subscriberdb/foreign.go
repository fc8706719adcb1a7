package subscriberdb

import (
	"sync"
	"time"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// foreignPause is the time between two lines of the log about restarts that a
// foreign client reports: they are counted each, as the verdict ForeignNAS, and a
// client that goes on must not fill the log.
const foreignPause = time.Minute

// foreignLog bounds those lines.
type foreignLog struct {
	mu     sync.Mutex
	next   time.Time
	silent int // not told since the last line
}

// tell reports whether a line is due, and how many were left out before it.
func (l *foreignLog) tell(now time.Time) (silent int, due bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Before(l.next) {
		l.silent++
		return 0, false
	}
	silent, l.silent, l.next = l.silent, 0, now.Add(foreignPause)
	return silent, true
}

// warnForeign tells of the restart of a NAS that another client reports (SES-16).
func (db *DB) warnForeign(ev *subscriber.Event, owner string) {
	if silent, due := db.foreign.tell(db.now()); due {
		db.logger.Warn("restart of a NAS that another client reports ignored", "client", ev.Client, "nas", ev.NAS,
			"reported_by", owner, "more_before", silent, "alarm", "sessiond_accounting_verdicts_total")
	}
}
