package subscriberdb

// A Bound is something of which a client gets no more than its share.
type Bound string

// The bounds of what accounting may take of Redis and of memory.
const (
	BoundNASes      Bound = "nases"      // the table of NASes has no room for one more
	BoundTombstones Bound = "tombstones" // an ended session, or one without an address, is remembered for minutes only
	BoundLinks      Bound = "links"      // a session has no room for one more link or service
)

// Bounds returns all bounds.
func Bounds() []Bound { return []Bound{BoundNASes, BoundTombstones, BoundLinks} }
