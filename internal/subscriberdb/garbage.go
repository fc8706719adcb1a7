package subscriberdb

import (
	"log/slog"
	"time"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
)

// Garbage is what somebody wrote into Redis that sessiond would not, by where it stands. It
// is left out, counted and named in the log, and holds up nothing else.
type Garbage = codec.Garbage

// GarbageKinds returns all kinds of garbage.
func GarbageKinds() []Garbage { return codec.GarbageKinds() }

// garbageReports counts and names what cannot be used.
type garbageReports struct {
	counted func(group string, kind Garbage)
	logs    throttles[Garbage]
	logger  *slog.Logger
	now     func() time.Time
}

// found counts and names garbage.
func (r *garbageReports) found(group string, kind Garbage, where string) {
	r.counted(group, kind)
	if suppressed, ok := r.logs[kind].Allow(r.now()); ok {
		r.logger.Error("unusable data in Redis is left out", "group", group, "kind", string(kind), "key", where,
			"suppressed", suppressed, "alarm", "sessiond_database_garbage_total")
	}
}

// foundRecord counts the record at a key that is no hash.
func (r *garbageReports) foundRecord(key subscriber.Key) {
	r.found(key.Group, codec.GarbageRecord, codec.RecordKey(key.Group, key.Inside))
}
