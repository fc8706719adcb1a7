package nftnat

import (
	"bytes"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/nftnat/wire"
)

// setClosing has the subscribers that were cut off and may have flows yet.
const setClosing = "closing"

// closingSet holds the members of the set. The holder of the turn adds and removes them.
type closingSet struct {
	mu      sync.Mutex
	members map[address]closing
}

// closing is the state of one member.
type closing struct {
	since  time.Time // when it was cut off
	reaped time.Time // when lookAtShortWay reaped it last; zero for never
	proved bool      // the kernel has none of its flows
}

func newClosingSet() *closingSet { return &closingSet{members: map[address]closing{}} }

func (c *closingSet) len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.members)
}

func (c *closingSet) has(inside address) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.members[inside]
	return ok
}

func (c *closingSet) add(list []address, since time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, inside := range list {
		c.members[inside] = closing{since: since}
	}
}

func (c *closingSet) remove(list []address) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, inside := range list {
		delete(c.members, inside)
	}
}

// prove takes in proofs that were found after members were cut off, and reports whether there are
// any.
func (c *closingSet) prove(proofs []nat.Reaped) (any bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range proofs {
		inside := p.Inside.As4()
		if m, ok := c.members[inside]; ok && p.At.After(m.since) {
			m.proved = true
			c.members[inside], any = m, true
		}
	}
	return any
}

// proved lists the members without flows.
func (c *closingSet) proved() []address {
	return c.those(func(m closing) bool { return m.proved })
}

// due lists up to n members that were cut off, and reaped last, before a time, and are not proved
// yet. They are not due again until then.
func (c *closingSet) due(before time.Time, n int) []address {
	list := c.those(func(m closing) bool { return !m.proved && m.since.Before(before) && m.reaped.Before(before) })
	list = list[:min(n, len(list))]
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, inside := range list {
		m := c.members[inside]
		m.reaped = time.Now()
		c.members[inside] = m
	}
	return list
}

// those lists members in order.
func (c *closingSet) those(which func(closing) bool) (list []address) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for inside, m := range c.members {
		if which(m) {
			list = append(list, inside)
		}
	}
	slices.SortFunc(list, func(a, b address) int { return bytes.Compare(a[:], b[:]) })
	return list
}

// all lists the members.
func (c *closingSet) all() (list []netip.Addr) {
	for _, inside := range c.those(func(closing) bool { return true }) {
		list = append(list, inside.addr())
	}
	return list
}

func (c *closingSet) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.members)
}

// Operations.

func enterClosing(b *wire.Batch, table string, list []address) {
	b.Elements(wire.NewElements, wire.Op{Verb: "add element", Object: setClosing}, table, setClosing, len(list),
		func(dst []byte, i int) []byte { return appendKey(dst, list[i][:]) })
}

// leaveClosing adds the members first: the kernel refuses to delete an element that is not there,
// and others may have deleted it.
func leaveClosing(b *wire.Batch, table string, list []address) {
	enterClosing(b, table, list)
	b.Elements(wire.DelElements, wire.Op{Verb: "delete element", Object: setClosing}, table, setClosing, len(list),
		func(dst []byte, i int) []byte { return appendKey(dst, list[i][:]) })
}
