package bindings

import (
	"cmp"
	"hash/maphash"
	"net/netip"
	"slices"

	"github.com/sessiond/sessiond/internal/addrrange"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
)

// Digests are 24 octets of each stored binding of a group. A comparison reads all rows once
// and keeps these, to compare them in the order of the bindings in force, which lie in
// memory in that order. Two texts with one digest are taken for equal: that happens to one
// of 2^64 differences.
type Digests struct {
	seed  maphash.Seed
	list  []digest    // of the stored bindings; in order after the first call of Differing
	odd   []nat.Place // of rows without IPv4 addresses, which are no binding's in force
	now   []digest    // of the bindings in force
	room  []byte
	order bool // list is in order
}

// digest stands for a stored binding.
type digest struct {
	inside, outside uint32
	sum             uint64 // of the whole text
	first           nat.Port
}

// NewDigests returns Digests with room for n rows.
func NewDigests(n int) *Digests {
	return &Digests{seed: maphash.MakeSeed(), list: make([]digest, 0, n)}
}

// Add adds rows as BindingRows yields them: in any order, and some perhaps twice.
func (d *Digests) Add(rows []Row) {
	for i := range rows {
		r := &rows[i]
		inside := codec.InsideOfBinding(r.text)
		if !inside.Is4() || !r.Outside.Is4() {
			d.odd = append(d.odd, r.Place)
			continue
		}
		d.list = append(d.list, digest{addrrange.Number(inside), addrrange.Number(r.Outside), maphash.String(d.seed, r.text), r.First})
	}
}

// Differing appends to dst the places of those bindings that are stored and not in force,
// or in force and not stored, or stored in another form, among those of inside addresses
// before next; all, if next is the zero address. inForce are the ones in force there, in
// order of inside address. Bindings of earlier calls are not compared again. A place may be
// appended twice.
func (d *Digests) Differing(dst []nat.Place, inForce []nat.Binding, next netip.Addr) []nat.Place {
	if !d.order {
		slices.SortFunc(d.list, digest.compare)
		d.order = true
		dst = append(dst, d.odd...)
	}
	d.now = d.now[:0]
	for i := range inForce {
		b := &inForce[i]
		d.room = codec.AppendBinding(d.room[:0], b)
		d.now = append(d.now, digest{addrrange.Number(b.Inside), addrrange.Number(b.Outside), maphash.Bytes(d.seed, d.room), b.First})
	}
	slices.SortFunc(d.now, digest.compare)
	n := len(d.list)
	if next.Is4() {
		n, _ = slices.BinarySearchFunc(d.list, addrrange.Number(next), func(x digest, inside uint32) int { return cmp.Compare(x.inside, inside) })
	}
	dst = appendDiffering(dst, d.list[:n], d.now)
	d.list = d.list[n:]
	return dst
}

// appendDiffering appends the places of digests that are in one of two ordered lists only.
func appendDiffering(dst []nat.Place, stored, inForce []digest) []nat.Place {
	for len(stored) > 0 || len(inForce) > 0 {
		order := 0
		switch {
		case len(inForce) == 0:
			order = -1
		case len(stored) == 0:
			order = 1
		default:
			order = stored[0].compare(inForce[0])
		}
		switch {
		case order < 0:
			dst = append(dst, stored[0].place())
			stored = stored[1:]
		case order > 0:
			dst = append(dst, inForce[0].place())
			inForce = inForce[1:]
		default:
			same := stored[0]
			for len(stored) > 0 && stored[0] == same { // a scan may yield a row twice
				stored = stored[1:]
			}
			inForce = inForce[1:]
		}
	}
	return dst
}

func (x digest) compare(y digest) int {
	switch {
	case x.inside != y.inside:
		return cmp.Compare(x.inside, y.inside)
	case x.outside != y.outside:
		return cmp.Compare(x.outside, y.outside)
	case x.first != y.first:
		return cmp.Compare(x.first, y.first)
	}
	return cmp.Compare(x.sum, y.sum)
}

func (x digest) place() nat.Place {
	return nat.Place{Outside: addrrange.Address(x.outside), First: x.first}
}
