package lsn

import (
	"iter"
	"net/netip"
)

// BindingsFrom yields the bindings of the group, held ones included, of one
// inside address after the other, from an address on (its zero value: from the
// first), until it has looked at n addresses. It returns the address to go on
// from, or the zero one when that was all. Between two calls the engine may change.
func (e *Engine) BindingsFrom(group string, from netip.Addr, n int, yield func(Binding)) netip.Addr {
	g := e.group(group)
	if g == nil {
		return netip.Addr{}
	}
	first := uint32(0)
	if from.Is4() {
		first = number(from)
	}
	var b Binding
	for inside, c := range g.clients.from(first) {
		if n--; n < 0 {
			return address(inside)
		}
		if c.live() {
			g.describe(inside, &c.lease, &b)
			yield(b)
		}
		for x := c.held; g.refers(x); x = g.kept[x.place].older {
			g.describeHeld(x.place, &b)
			yield(b)
		}
	}
	return netip.Addr{}
}

// Held returns how many bindings of the group are Held.
func (e *Engine) Held(group string) int {
	if g := e.group(group); g != nil {
		return g.held
	}
	return 0
}

// from yields the clients of every page, by address, from one address on.
func (x *clientIndex) from(first uint32) iter.Seq2[uint32, *client] {
	return func(yield func(uint32, *client) bool) {
		for next := uint64(first); next < 1<<32; {
			inside := uint32(next)
			page, covers := x.pageOf(inside)
			if page == nil {
				next = (next | covers) + 1
				continue
			}
			if !yield(inside, &page[inside&0xff]) {
				return
			}
			next++
		}
	}
}

// pageOf returns the page of an address, or nil with the host bits of the
// largest prefix around the address that has no page.
func (x *clientIndex) pageOf(inside uint32) (page *clientPage, hostBits uint64) {
	y := x[inside>>24]
	if y == nil {
		return nil, 1<<24 - 1
	}
	z := y[inside>>16&0xff]
	if z == nil {
		return nil, 1<<16 - 1
	}
	return z[inside>>8&0xff], 1<<8 - 1
}
