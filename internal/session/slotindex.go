package session

import (
	"encoding/binary"
	"iter"
	"maps"
	"net/netip"
)

// slotIndex finds slots by their inside address. Subscribers come from few, dense
// prefixes: the processor's caches have the way to a page, and of that a look takes
// one place in memory, where a map of all addresses takes two and a hash.
type slotIndex struct {
	pages map[uint32]*slotPage // by the first 27 bits
	other map[netip.Addr]*slot // of addresses that are not IPv4, which a record's key may name
	len   int
}

// pageBits is small, for a subscriber who is alone in a page pays for all of it.
const pageBits = 5

// slotPage has the addresses of a /27, as long as any of them has a slot.
type slotPage struct {
	used   int // places with a slot
	places [1 << pageBits]struct {
		slot *slot

		// When the timers look at the address, or sooner; nanoseconds since 1970, 0
		// for unknown. It may outlive the slot, as the entry of the timers does.
		lookedAt int64
	}
}

func newSlotIndex() slotIndex {
	return slotIndex{pages: map[uint32]*slotPage{}, other: map[netip.Addr]*slot{}}
}

// at returns the slot of an address, or nil.
func (x *slotIndex) at(inside netip.Addr) *slot {
	if !inside.Is4() {
		return x.other[inside]
	}
	page, host := split(inside)
	if p := x.pages[page]; p != nil {
		return p.places[host].slot
	}
	return nil
}

// lookedAt returns where it stands when the timers look at an address, nil for
// nowhere.
func (x *slotIndex) lookedAt(inside netip.Addr) *int64 {
	if !inside.Is4() {
		return nil
	}
	page, host := split(inside)
	if p := x.pages[page]; p != nil {
		return &p.places[host].lookedAt
	}
	return nil
}

// put makes s the slot of an address.
func (x *slotIndex) put(inside netip.Addr, s *slot) {
	if x.at(inside) == nil {
		x.len++
	}
	if !inside.Is4() {
		x.other[inside] = s
		return
	}
	page, host := split(inside)
	p := x.pages[page]
	if p == nil {
		p = new(slotPage)
		x.pages[page] = p
	}
	if p.places[host].slot == nil {
		p.used++
	}
	p.places[host].slot = s
}

// remove forgets the slot of an address.
func (x *slotIndex) remove(inside netip.Addr) {
	if x.at(inside) == nil {
		return
	}
	x.len--
	if !inside.Is4() {
		delete(x.other, inside)
		return
	}
	page, host := split(inside)
	p := x.pages[page]
	p.places[host].slot = nil
	if p.used--; p.used == 0 {
		delete(x.pages, page)
	}
}

// all yields every slot, in no particular order. Slots may come and go meanwhile.
func (x *slotIndex) all() iter.Seq2[netip.Addr, *slot] {
	return func(yield func(netip.Addr, *slot) bool) {
		for page, p := range x.pages {
			for host := range p.places {
				if s := p.places[host].slot; s != nil && !yield(joined(page, byte(host)), s) {
					return
				}
			}
		}
		maps.All(x.other)(yield)
	}
}

func split(inside netip.Addr) (page uint32, host byte) {
	b := inside.As4()
	return binary.BigEndian.Uint32(b[:]) >> pageBits, b[3] & (1<<pageBits - 1)
}

func joined(page uint32, host byte) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], page<<pageBits|uint32(host))
	return netip.AddrFrom4(b)
}
