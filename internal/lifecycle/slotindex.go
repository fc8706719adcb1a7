package lifecycle

import (
	"iter"
	"maps"
	"net/netip"
	"slices"

	"github.com/sessiond/sessiond/internal/addrtable"
)

// A SlotIndex finds slots by inside address, and lists them in the order of
// addresses.
type SlotIndex struct {
	table addrtable.Table[slotPlace]
	other map[netip.Addr]*Slot // addresses that are not IPv4, which a record's key may contain
	len   int
}

type slotPlace struct {
	slot *Slot

	// A time no later than the address's timer; nanoseconds since 1970, 0 for
	// unknown.
	lookedAt int64
}

func newSlotIndex() SlotIndex { return SlotIndex{other: map[netip.Addr]*Slot{}} }

// at returns the slot of an address, or nil.
func (x *SlotIndex) at(inside netip.Addr) *Slot {
	if p := x.table.Place(inside); p != nil {
		return p.slot
	}
	if inside.Is4() {
		return nil
	}
	return x.other[inside]
}

// lookedAt returns a pointer to the address's lookedAt, nil for no slot. It is
// valid until a slot is added or removed.
func (x *SlotIndex) lookedAt(inside netip.Addr) *int64 {
	if p := x.table.Place(inside); p != nil {
		return &p.lookedAt
	}
	return nil
}

// put sets the slot of an address.
func (x *SlotIndex) put(inside netip.Addr, s *Slot) {
	if p := x.table.Place(inside); p != nil {
		p.slot = s
		return
	}
	if inside.Is4() {
		x.table.Put(inside, slotPlace{slot: s})
	} else {
		x.other[inside] = s
	}
	x.len = x.table.Len() + len(x.other)
}

// remove removes the slot of an address.
func (x *SlotIndex) remove(inside netip.Addr) {
	if inside.Is4() {
		x.table.Remove(inside)
	} else {
		delete(x.other, inside)
	}
	x.len = x.table.Len() + len(x.other)
}

// All yields every slot, as From does.
func (x *SlotIndex) All() iter.Seq2[netip.Addr, *Slot] { return x.From(netip.Addr{}) }

// Len returns the number of slots.
func (x *SlotIndex) Len() int { return x.len }

// From yields the slots in the order of addresses, from first (inclusive) on.
// Slots may be added and removed meanwhile: one that exists throughout is
// yielded once.
func (x *SlotIndex) From(first netip.Addr) iter.Seq2[netip.Addr, *Slot] {
	return func(yield func(netip.Addr, *Slot) bool) {
		for inside, p := range x.table.From(first) {
			if !yield(inside, p.slot) {
				return
			}
		}
		for _, inside := range slices.SortedFunc(maps.Keys(x.other), netip.Addr.Compare) {
			if s := x.other[inside]; s != nil && first.Compare(inside) <= 0 && !yield(inside, s) {
				return
			}
		}
	}
}
