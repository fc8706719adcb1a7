package lifecycle

import (
	"iter"
	"maps"
	"net/netip"
)

// A Drain is one drain of an address. If the subscriber comes back and drains
// again, that is another Drain.
type Drain struct {
	Inside netip.Addr
	asked  bool // a question to the kernel is queued or under way
	empty  bool // the kernel has no session left
}

// Answered records that the question to the kernel about the drain has an
// answer.
func (d *Drain) Answered() { d.asked = false }

// A DrainIndex has the drains under way.
type DrainIndex struct{ at map[netip.Addr]*Drain }

func newDrainIndex() DrainIndex { return DrainIndex{map[netip.Addr]*Drain{}} }

func (x *DrainIndex) begin(inside netip.Addr) { x.at[inside] = &Drain{Inside: inside} }

func (x *DrainIndex) end(inside netip.Addr) { delete(x.at, inside) }

// of returns the drain of an address, nil for none.
func (x *DrainIndex) of(inside netip.Addr) *Drain { return x.at[inside] }

// Addresses yields the draining inside addresses, in no order.
func (x *DrainIndex) Addresses() iter.Seq[netip.Addr] { return maps.Keys(x.at) }

// Len returns the number of drains.
func (x *DrainIndex) Len() int { return len(x.at) }
