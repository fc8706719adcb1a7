package codec

// Garbage is a kind of unusable data in Redis, named by its place. Garbage is left out,
// counted and logged, and blocks nothing else.
type Garbage string

// The kinds of garbage.
const (
	GarbageRestart Garbage = "restart" // a member of the set of restarts, or the restart of a NAS
	GarbageRecord  Garbage = "record"  // the key of a record is no hash
	GarbageSession Garbage = "session" // the key of a session's state is no string
	GarbageFeed    Garbage = "feed"    // an entry of the change feed, or its identifier
	GarbageKey     Garbage = "key"     // another of sessiond's own keys: of another type, or with an unreadable text
)

// GarbageKinds returns all kinds of garbage.
func GarbageKinds() []Garbage {
	return []Garbage{GarbageRestart, GarbageRecord, GarbageSession, GarbageFeed, GarbageKey}
}
