package addrtable

import (
	"cmp"
	"iter"
	"net/netip"
	"slices"
	"strings"

	"github.com/sessiond/sessiond/internal/addrrange"
)

// An Order lists IPv4 addresses in the order of their names, and of addresses where names are
// equal. It keeps no names but those of its boundaries: it asks for them. An address takes 4 to
// 16 octets (BenchmarkOrder).
//
// An Order is not safe for concurrent use.
type Order struct {
	nameOf  func(netip.Addr) string
	bounds  []place    // the first place of each bucket; the first one is the zero place
	buckets [][]uint32 // the addresses from one bound to the next, in no order
	len     int
	changes int
}

// place is a place in the order.
type place struct {
	name string
	addr uint32
}

func (p place) compare(o place) int {
	return cmp.Or(strings.Compare(p.name, o.name), cmp.Compare(p.addr, o.addr))
}

// bucketSize is the largest number of addresses in a bucket. A change looks at half of one, 0.5
// KiB; a list asks for the names of all in it.
const bucketSize = 256

// NewOrder returns an empty Order. nameOf returns the name of a listed address: the one that it
// was added with.
func NewOrder(nameOf func(netip.Addr) string) Order {
	return Order{nameOf: nameOf, bounds: make([]place, 1), buckets: make([][]uint32, 1)}
}

// Len returns the number of listed addresses.
func (x *Order) Len() int { return x.len }

// Add lists an address under a name. It must not be listed. It panics if the address is not IPv4.
func (x *Order) Add(name string, a netip.Addr) {
	if !a.Is4() {
		panic("addrtable: " + a.String() + " is not an IPv4 address")
	}
	at := place{name, addrrange.Number(a)}
	b := x.find(at)
	if len(x.buckets[b]) == bucketSize {
		x.split(b)
		b = x.find(at)
	}
	x.buckets[b] = append(x.buckets[b], at.addr)
	x.len++
	x.changes++
}

// Remove removes an address from the list; the name is that under which it is listed. One that is
// not listed stays so.
func (x *Order) Remove(name string, a netip.Addr) {
	if !a.Is4() {
		return
	}
	at := place{name, addrrange.Number(a)}
	b := x.find(at)
	bucket := x.buckets[b]
	i := slices.Index(bucket, at.addr)
	if i < 0 {
		return
	}
	last := len(bucket) - 1
	bucket[i] = bucket[last]
	x.buckets[b] = bucket[:last]
	x.len--
	x.changes++
	x.merge(b)
}

// find returns the bucket in which a place is.
func (x *Order) find(at place) int {
	i, there := slices.BinarySearchFunc(x.bounds, at, place.compare)
	if there {
		return i
	}
	return i - 1 // the first bound is before every place
}

// split makes two buckets of a full one.
func (x *Order) split(b int) {
	places := x.places(b)
	middle := places[bucketSize/2]
	middle.name = strings.Clone(middle.name) // not a part of a text that would stay with it
	upper := make([]uint32, 0, bucketSize)
	x.buckets[b] = x.buckets[b][:0]
	for i, p := range places {
		if i < bucketSize/2 {
			x.buckets[b] = append(x.buckets[b], p.addr)
		} else {
			upper = append(upper, p.addr)
		}
	}
	x.buckets = slices.Insert(x.buckets, b+1, upper)
	x.bounds = slices.Insert(x.bounds, b+1, middle)
}

// merge joins a bucket that became small with a neighbour, if both have room in one.
func (x *Order) merge(b int) {
	if len(x.buckets[b]) >= bucketSize/4 {
		return
	}
	for _, left := range []int{b - 1, b} {
		if left < 0 || left+1 == len(x.buckets) || len(x.buckets[left])+len(x.buckets[left+1]) > bucketSize/2 {
			continue
		}
		x.buckets[left] = append(x.buckets[left], x.buckets[left+1]...)
		x.buckets = slices.Delete(x.buckets, left+1, left+2)
		x.bounds = slices.Delete(x.bounds, left+1, left+2)
		return
	}
}

// places returns the places of a bucket, in order.
func (x *Order) places(b int) []place {
	places := make([]place, len(x.buckets[b]))
	for i, addr := range x.buckets[b] {
		places[i] = place{x.nameOf(addrrange.Address(addr)), addr}
	}
	slices.SortFunc(places, place.compare)
	return places
}

// From yields names and addresses, in order, from behind an address under a name on; the zero
// address is before all. The order may change during the iteration: an address that stays
// listed is yielded once, one that is added or removed once or not at all.
func (x *Order) From(name string, behind netip.Addr) iter.Seq2[string, netip.Addr] {
	next := place{name: name}
	if behind.Is4() {
		next = place{name, addrrange.Number(behind)}.after()
	}
	return func(yield func(string, netip.Addr) bool) {
		for b := x.find(next); b < len(x.buckets); {
			changes, changed := x.changes, false
			for _, p := range x.places(b) {
				if p.compare(next) < 0 {
					continue
				}
				if !yield(p.name, addrrange.Address(p.addr)) {
					return
				}
				next = p.after()
				if changed = x.changes != changes; changed {
					break
				}
			}
			if changed {
				b = x.find(next)
			} else if b++; b < len(x.bounds) {
				next = x.bounds[b]
			}
		}
	}
}

// after returns the place that follows.
func (p place) after() place {
	if p.addr == 1<<32-1 {
		return place{name: p.name + "\x00"}
	}
	return place{p.name, p.addr + 1}
}
