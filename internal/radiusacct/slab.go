package radiusacct

import "time"

// A place is where an entry stands in a slab.
type place uint32

// nowhere is no place.
const nowhere = ^place(0)

// An entry is a request in the duplicate cache and, once it is known, the reply
// to it.
type entry struct {
	key           exchangeKey
	authenticator [16]byte
	reply         [headerLength]byte // one without Proxy-State
	length        uint16             // of the reply
	replied       bool
	older, newer  place // among the replied; of a free entry, newer is the next free one
	serial        uint64
	expires       time.Duration // since the cache was born
}

// chunkLength is how many entries a slab gets room for at once.
const chunkLength = 64

// A slab is room for entries, which is used again and again. The zero value is empty.
type slab struct {
	chunks []*[chunkLength]entry
	length int   // entries that were ever taken
	free   place // first of those given back, if there are any
	spare  int   // number of those given back
}

func (s *slab) at(p place) *entry { return &s.chunks[p/chunkLength][p%chunkLength] }

// take returns a place; what stands there is left over.
func (s *slab) take() place {
	if s.spare > 0 {
		p := s.free
		s.free = s.at(p).newer
		s.spare--
		return p
	}
	if s.length == len(s.chunks)*chunkLength {
		s.chunks = append(s.chunks, new([chunkLength]entry))
	}
	s.length++
	return place(s.length - 1)
}

// release gives a place back.
func (s *slab) release(p place) {
	*s.at(p) = entry{newer: s.free}
	s.free = p
	s.spare++
}
