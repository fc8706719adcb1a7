package radiusacct

// A fifo is a queue in a ring that doubles when it is full.
type fifo[T any] struct {
	ring  []T
	head  int
	count int
}

func (f *fifo[T]) push(v T) {
	if f.count == len(f.ring) {
		f.grow()
	}
	f.ring[(f.head+f.count)%len(f.ring)] = v
	f.count++
}

// pop takes the first value. The fifo must not be empty.
func (f *fifo[T]) pop() T {
	var zero T
	v := f.ring[f.head]
	f.ring[f.head] = zero
	f.head = (f.head + 1) % len(f.ring)
	f.count--
	return v
}

func (f *fifo[T]) grow() {
	ring := make([]T, max(8, 2*len(f.ring)))
	n := copy(ring, f.ring[f.head:])
	copy(ring[n:], f.ring[:f.head])
	f.ring, f.head = ring, 0
}
