package subscriberdb

import "strings"

// shareFactor says how much of what is free one client may have: so many times what
// nobody has. One that takes all that it can leaves room to every other, and those too
// leave some; a client alone gets shareFactor/(shareFactor+1) of all.
const shareFactor = 4

// shares bounds what RADIUS clients have of something that all of them share. It belongs
// to whoever guards that.
type shares struct {
	alone int // what a client may have beside nobody
	total int
	own   map[string]int
}

// room reports whether the client may have more.
func (s *shares) room(client string) bool {
	return s.own[client] < shareFactor*(s.all()-s.total)
}

// all is what there is for all clients together.
func (s *shares) all() int { return s.alone + s.alone/shareFactor }

// add notes that the client has n more, or less where n is negative.
func (s *shares) add(client string, n int) {
	if s.own == nil {
		s.own = make(map[string]int)
	}
	s.total += n
	if _, known := s.own[client]; !known {
		client = strings.Clone(client)
	}
	if s.own[client] += n; s.own[client] == 0 {
		delete(s.own, client)
	}
}

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
