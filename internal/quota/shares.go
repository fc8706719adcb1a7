package quota

import "strings"

// shareFactor bounds the share of one peer: at most shareFactor times the free rest. A peer
// that takes its whole share still leaves room to the others. A peer that is alone gets
// shareFactor/(shareFactor+1) of all.
const shareFactor = 4

// Shares bounds the use of a common resource by peers that have no fixed limits. The owner
// of the resource has to lock: the methods must not be called concurrently.
type Shares struct {
	Alone int // share of a peer that is alone; it does not change

	total int
	own   map[string]int
}

// Room reports whether the peer may have more of the resource.
func (s *Shares) Room(peer string) bool { return s.own[peer] < shareFactor*(s.All()-s.total) }

// All returns the size of the resource.
func (s *Shares) All() int { return s.Alone + s.Alone/shareFactor }

// Total returns the part in use by all peers together.
func (s *Shares) Total() int { return s.total }

// Of returns the part in use by one peer.
func (s *Shares) Of(peer string) int { return s.own[peer] }

// Add counts n more for the peer; fewer if n is negative.
func (s *Shares) Add(peer string, n int) {
	if s.own == nil {
		s.own = make(map[string]int)
	}
	s.total += n
	if _, known := s.own[peer]; !known {
		peer = strings.Clone(peer)
	}
	if s.own[peer] += n; s.own[peer] == 0 {
		delete(s.own, peer)
	}
}
