package conntrack

import (
	"hash/maphash"

	"github.com/sessiond/sessiond/internal/arena"
)

// lookup finds the slot of a key: open addressing with linear probing in many small
// segments, so that growing one never delays the event loop for long.
type lookup struct {
	seed     maphash.Seed
	segments [256]segment
}

// segment holds record slots at the positions of their hashes; 0 is an empty position.
type segment struct {
	places []uint32 // length is a power of two
	used   int
}

const firstPlaces = 8

func (l *lookup) hash(k key) uint64 { return maphash.Comparable(l.seed, k) }

func (l *lookup) segment(hash uint64) *segment { return &l.segments[hash>>56] }

// find returns the slot of k, 0 if there is none.
func (l *lookup) find(k key, records *arena.Arena[flowRecord]) uint32 {
	hash := l.hash(k)
	s := l.segment(hash)
	if len(s.places) == 0 {
		return 0
	}
	mask := uint64(len(s.places) - 1)
	for i := hash & mask; ; i = (i + 1) & mask {
		slot := s.places[i]
		if slot == 0 || records.At(slot).key == k {
			return slot
		}
	}
}

// insert adds a slot whose key is not present.
func (l *lookup) insert(slot uint32, records *arena.Arena[flowRecord]) {
	hash := l.hash(records.At(slot).key)
	s := l.segment(hash)
	if 4*(s.used+1) > 3*len(s.places) {
		l.grow(s, records)
	}
	s.put(hash, slot)
	s.used++
}

func (s *segment) put(hash uint64, slot uint32) {
	mask := uint64(len(s.places) - 1)
	i := hash & mask
	for s.places[i] != 0 {
		i = (i + 1) & mask
	}
	s.places[i] = slot
}

func (l *lookup) grow(s *segment, records *arena.Arena[flowRecord]) {
	old := s.places
	s.places = make([]uint32, max(firstPlaces, 2*len(old)))
	for _, slot := range old {
		if slot != 0 {
			s.put(l.hash(records.At(slot).key), slot)
		}
	}
}

// remove takes a slot out and closes the gap, so no tombstones are needed.
func (l *lookup) remove(slot uint32, records *arena.Arena[flowRecord]) {
	hash := l.hash(records.At(slot).key)
	s := l.segment(hash)
	mask := uint64(len(s.places) - 1)
	i := hash & mask
	for s.places[i] != slot {
		i = (i + 1) & mask
	}
	s.used--
	for next := (i + 1) & mask; s.places[next] != 0; next = (next + 1) & mask {
		home := l.hash(records.At(s.places[next]).key) & mask
		if (next-home)&mask >= (next-i)&mask {
			s.places[i] = s.places[next]
			i = next
		}
	}
	s.places[i] = 0
}
