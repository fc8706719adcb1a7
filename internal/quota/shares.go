package quota

import "strings"

// shareFactor says how much of what is free one peer may have: so many times what
// nobody has. One that takes all that it can leaves room to every other, and those too
// leave some; a peer alone gets shareFactor/(shareFactor+1) of all.
const shareFactor = 4

// Shares bounds what peers have of something that all of them share, where none has a fixed
// limit. It belongs to whoever guards that: its methods may not be called concurrently.
type Shares struct {
	Alone int // what a peer may have beside nobody; it stays as it is

	total int
	own   map[string]int
}

// Room reports whether the peer may have more.
func (s *Shares) Room(peer string) bool { return s.own[peer] < shareFactor*(s.All()-s.total) }

// All is what there is for all peers together.
func (s *Shares) All() int { return s.Alone + s.Alone/shareFactor }

// Total is what all peers have.
func (s *Shares) Total() int { return s.total }

// Of is what the peer has.
func (s *Shares) Of(peer string) int { return s.own[peer] }

// Add notes that the peer has n more, or less where n is negative.
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
