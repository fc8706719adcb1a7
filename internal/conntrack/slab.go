package conntrack

// chunkBits makes a chunk 4096 elements.
const chunkBits = 12

// slab is an arena that grows by chunks, so that growing neither copies nor
// leaves room unused. Slot 0 stays empty: it stands for none.
type slab[T any] struct {
	chunks []*[1 << chunkBits]T
	used   uint32 // slots handed out so far, freed ones included
}

func (s *slab[T]) at(slot uint32) *T {
	return &s.chunks[slot>>chunkBits][slot&(1<<chunkBits-1)]
}

// extend hands out a slot never used before.
func (s *slab[T]) extend() uint32 {
	if s.used == 0 {
		s.used = 1
	}
	if int(s.used>>chunkBits) == len(s.chunks) {
		s.chunks = append(s.chunks, new([1 << chunkBits]T))
	}
	s.used++
	return s.used - 1
}
