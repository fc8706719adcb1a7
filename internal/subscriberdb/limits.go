package subscriberdb

import (
	"cmp"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// boundTexts are what the log says where a client has its share.
var boundTexts = map[Bound]string{
	BoundNASes:      "a RADIUS client tells of more NASes than there is room for; no clock and no restart is remembered of those",
	BoundTombstones: "a RADIUS client ends more sessions than can be remembered; the end of the rest is remembered for 5 minutes",
	BoundLinks:      "a session has more links than are kept",
}

// limit counts and logs that a client has no room for more.
func (db *DB) limit(client string, b Bound) {
	db.limited(client, b)
	if suppressed, ok := db.limitLogs[b].Allow(db.now()); ok {
		db.logger.Warn(boundTexts[b], "client", client, "more_before", suppressed, "alarm", "sessiond_accounting_bounds_reached_total")
	}
}

// reportedBy is the RADIUS client that an event of a session came through, for who counts;
// the realm, where there is no event.
func reportedBy(ev *subscriber.Event, id subscriber.SessionID) string {
	if ev == nil {
		return id.Client
	}
	return cmp.Or(ev.Via, id.Client)
}
