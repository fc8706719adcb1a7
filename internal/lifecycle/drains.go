package lifecycle

import (
	"iter"
	"maps"
	"net/netip"
)

// A Drain is one drain of an address: if the subscriber comes back and drains again, that
// is another one.
type Drain struct {
	Inside netip.Addr
	asked  bool // the kernel is, or is about to be, asked
	empty  bool // it said that no session is left
}

// Answered notes that the kernel was asked whether sessions of the drain are left.
func (d *Drain) Answered() { d.asked = false }

// A DrainIndex has the drains that are under way.
type DrainIndex struct{ at map[netip.Addr]*Drain }

func newDrainIndex() DrainIndex { return DrainIndex{map[netip.Addr]*Drain{}} }

func (x *DrainIndex) begin(inside netip.Addr) { x.at[inside] = &Drain{Inside: inside} }

func (x *DrainIndex) end(inside netip.Addr) { delete(x.at, inside) }

// of returns the drain of an address, nil for none.
func (x *DrainIndex) of(inside netip.Addr) *Drain { return x.at[inside] }

// Addresses yields the inside addresses that drain, in no order.
func (x *DrainIndex) Addresses() iter.Seq[netip.Addr] { return maps.Keys(x.at) }

// Len counts them.
func (x *DrainIndex) Len() int { return len(x.at) }
