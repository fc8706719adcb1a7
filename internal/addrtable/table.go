// Package addrtable stores a value for each of many IPv4 addresses, in order.
package addrtable

import (
	"iter"
	"math/bits"
	"net/netip"

	"github.com/sessiond/sessiond/internal/addrrange"
)

// A Table has at most one T for each IPv4 address. Its zero value is empty. A
// look-up takes one step an octet; the steps of dense prefixes stay in the
// processor's caches, and only the T itself comes from memory. It takes 0.4 to
// 0.9 of the time of a map of pages (BenchmarkAt). Beside its T, an address
// takes 1 octet in a dense prefix, or 140 if it is alone in its /24
// (BenchmarkMemory).
//
// A Table is not safe for concurrent use.
type Table[T any] struct {
	root  tier[tier[tier[leaf[T]]]]
	len   int
	shape int // number of leaves added and removed
}

// tier holds the next tier, or the leaf, of each value of an octet.
type tier[N any] struct {
	used int // number of non-nil pointers in next
	next [1 << 8]*N
}

// leaf holds the addresses of a /24, as runs of 64.
type leaf[T any] struct {
	used [4]uint64 // a bit for each address that has a T
	runs [4][]T    // the Ts, in order
}

// Len returns the number of addresses that have a T.
func (t *Table[T]) Len() int { return t.len }

// At returns the T of an address. An address that is not IPv4 has none.
func (t *Table[T]) At(a netip.Addr) (T, bool) {
	if at := t.Place(a); at != nil {
		return *at, true
	}
	var none T
	return none, false
}

// Place returns a pointer to the T of an address, nil for none. It is valid
// until the next Put of another address or the next Remove.
func (t *Table[T]) Place(a netip.Addr) *T {
	if !a.Is4() {
		return nil
	}
	o := a.As4()
	l := t.leaf(o)
	if l == nil {
		return nil
	}
	run, bit := o[3]>>6, uint64(1)<<(o[3]&63)
	if l.used[run]&bit == 0 {
		return nil
	}
	return &l.runs[run][bits.OnesCount64(l.used[run]&(bit-1))]
}

func (t *Table[T]) leaf(o [4]byte) *leaf[T] {
	if y := t.root.next[o[0]]; y != nil {
		if z := y.next[o[1]]; z != nil {
			return z.next[o[2]]
		}
	}
	return nil
}

// Put sets the T of an address. It panics if the address is not IPv4.
func (t *Table[T]) Put(a netip.Addr, v T) {
	if !a.Is4() {
		panic("addrtable: " + a.String() + " is not an IPv4 address")
	}
	o := a.As4()
	l := t.leaf(o)
	if l == nil {
		l = made(made(made(&t.root, o[0]), o[1]), o[2])
		t.shape++
	}
	run, bit := o[3]>>6, uint64(1)<<(o[3]&63)
	i := bits.OnesCount64(l.used[run] & (bit - 1))
	if l.used[run]&bit == 0 {
		l.used[run] |= bit
		t.len++
		r := l.runs[run]
		if len(r) == cap(r) { // append would leave spare capacity in a full run of large values
			r = append(make([]T, 0, max(1, 2*len(r))), r...)
		}
		r = append(r, v)
		copy(r[i+1:], r[i:])
		l.runs[run] = r
	}
	l.runs[run][i] = v
}

func made[N any](t *tier[N], octet byte) *N {
	if t.next[octet] == nil {
		t.next[octet] = new(N)
		t.used++
	}
	return t.next[octet]
}

// Remove deletes the T of an address, if it has one. A run shrinks when three
// quarters of it are empty.
func (t *Table[T]) Remove(a netip.Addr) {
	if !a.Is4() {
		return
	}
	o := a.As4()
	l := t.leaf(o)
	if l == nil {
		return
	}
	run, bit := o[3]>>6, uint64(1)<<(o[3]&63)
	if l.used[run]&bit == 0 {
		return
	}
	i := bits.OnesCount64(l.used[run] & (bit - 1))
	l.used[run] &^= bit
	t.len--
	r := l.runs[run]
	n := copy(r[i:], r[i+1:]) + i
	clear(r[n:])
	switch {
	case n == 0:
		l.runs[run] = nil
	case n > cap(r)/4:
		l.runs[run] = r[:n]
	default:
		l.runs[run] = append(make([]T, 0, 2*n), r[:n]...)
	}
	if l.used == [4]uint64{} {
		t.removeLeaf(o)
	}
}

func (t *Table[T]) removeLeaf(o [4]byte) {
	t.shape++
	y := t.root.next[o[0]]
	z := y.next[o[1]]
	if !z.remove(o[2]) {
		return
	}
	if y.remove(o[1]) {
		t.root.remove(o[0])
	}
}

// remove deletes the pointer of an octet, and reports whether the tier is empty
// now.
func (t *tier[N]) remove(octet byte) bool {
	t.next[octet] = nil
	t.used--
	return t.used == 0
}

// From yields the addresses that have a T, in order, from first on, inclusive;
// the zero address is before all. The table may change during the iteration: an
// address that stays is yielded once, one that is added or removed once or not
// at all.
func (t *Table[T]) From(first netip.Addr) iter.Seq2[netip.Addr, T] {
	return func(yield func(netip.Addr, T) bool) {
		next := uint64(0)
		switch {
		case first.Is4():
			next = uint64(addrrange.Number(first))
		case first.Is6():
			return // behind every IPv4 address
		}
		for {
			l, at := t.seek(next)
			if l == nil {
				return
			}
			if next = t.through(l, at, yield); next == stopped {
				return
			}
		}
	}
}

// stopped is neither an address nor the number after the last address.
const stopped = 1<<32 + 1

// through yields the addresses of a leaf from one on, and returns the address
// to go on from: the one after the leaf, or, if leaves were added or removed,
// the one after the last address yielded.
func (t *Table[T]) through(l *leaf[T], at uint32, yield func(netip.Addr, T) bool) uint64 {
	net, shape := uint64(at)&^0xff, t.shape
	for host := uint(at & 0xff); host < 1<<8; {
		run := host >> 6
		rest := l.used[run] >> (host & 63)
		if rest == 0 {
			host = (run + 1) << 6
			continue
		}
		host += uint(bits.TrailingZeros64(rest))
		i := bits.OnesCount64(l.used[run] & (1<<(host&63) - 1))
		if !yield(addrrange.Address(uint32(net)|uint32(host)), l.runs[run][i]) {
			return stopped
		}
		host++
		if t.shape != shape {
			return net + uint64(host)
		}
	}
	return net + 1<<8
}

// seek returns the first leaf with addresses from next on, and the first such
// address of it; nil if there is none.
func (t *Table[T]) seek(next uint64) (*leaf[T], uint32) {
	for next < 1<<32 {
		y, behind := t.root.seek(next, 24)
		if y == nil {
			break
		}
		z, behind := y.seek(behind, 16)
		if z == nil {
			next = behind
			continue
		}
		l, behind := z.seek(behind, 8)
		if l != nil {
			return l, uint32(behind)
		}
		next = behind
	}
	return nil, 0
}

// seek returns the first pointer at or after next's octet above shift bits, and
// the first address there that is not before next. Without one, it returns nil
// and the address after all of the tier's.
func (t *tier[N]) seek(next uint64, shift uint) (*N, uint64) {
	covered := next >> shift >> 8
	for octet := next >> shift & 0xff; octet < 1<<8; octet++ {
		if n := t.next[octet]; n != nil {
			return n, next
		}
		next = (covered<<8 + octet + 1) << shift
	}
	return nil, next
}
