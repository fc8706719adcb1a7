package conntrack

import (
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/addrrange"
	"github.com/sessiond/sessiond/internal/prefixtable"
)

// Bounds bound what each address of some prefixes may begin. 0 is no bound.
type Bounds struct {
	Prefixes []netip.Prefix // IPv4
	Entries  int            // entries that the address began
	Scarce   int            // the same, after SetScarce(true)
	TCPPorts int            // ports of the address with entries of TCP that it began
	UDPPorts int
}

// AtBounds are the addresses that have reached a bound, each list in order. An address stays
// listed until it is an eighth below the bound, so that it does not flap with each entry.
type AtBounds struct {
	Near     []netip.Addr // three quarters of the bound of Entries
	Entries  []netip.Addr
	TCPPorts []netip.Addr
	UDPPorts []netip.Addr
}

// class is a Bounds in the index.
type class struct {
	entries, scarce uint32
	ports           [2]uint32 // by protocol, see portKind
}

// Kinds of ports.
const portsTCP, portsUDP = 0, 1

// bounded is the state of the index's bounds. Owners have a class, none of them the zero one.
type bounded struct {
	classes  []class // [0] is of the addresses without bounds
	prefixes prefixtable.Table[uint32]
	isScarce bool

	near, entries crowds
	ports         [2]crowds
	used          map[uint32]*portUse // by owner, of those near a bound of ports
}

// portUse counts the entries by port. Only an owner with as many entries as a bound of ports has
// one: the entries are not fewer than the ports.
type portUse struct {
	entries [2]map[uint16]uint32
}

func newBounded(wake chan struct{}) bounded {
	b := bounded{classes: make([]class, 1), used: make(map[uint32]*portUse), near: newCrowds(0, wake), entries: newCrowds(0, wake)}
	for kind := range b.ports {
		b.ports[kind] = newCrowds(0, wake)
	}
	return b
}

// atLeast takes the new count of an address whose limit may be 0 for none: at the limit it
// belongs to the crowd, and an eighth below it no longer.
func (c *crowds) atLeast(addr, count, limit uint32) {
	_, full := c.full[addr]
	switch {
	case !full && limit > 0 && count >= limit:
		c.full[addr] = struct{}{}
	case full && (limit == 0 || count < limit-limit/8):
		delete(c.full, addr)
	default:
		return
	}
	c.poke()
}

// nearShare divides a bound of entries: an address with more than all but this part of it is
// near the bound.
const nearShare = 4

// weighLocked compares an owner with its bounds.
func (x *index) weighLocked(own uint32, o *owner) {
	b := &x.bounded
	c := &b.classes[o.class]
	limit := c.entries
	if b.isScarce && c.scarce > 0 {
		limit = c.scarce
	}
	b.entries.atLeast(o.addr, o.opened, limit)
	b.near.atLeast(o.addr, o.opened, limit-limit/nearShare)
	use := b.used[own]
	for kind, limit := range c.ports {
		ports := uint32(0)
		if use != nil {
			ports = uint32(len(use.entries[kind]))
		}
		b.ports[kind].atLeast(o.addr, ports, limit)
	}
}

// portKind returns the kind of the port with which an entry's owner began it; ok is false for
// none.
func (r *flowRecord) portKind() (kind int, ok bool) {
	switch {
	case r.kind&recordOpened == 0:
		return 0, false
	case r.key.proto == unix.IPPROTO_TCP:
		return portsTCP, true
	case r.key.proto == unix.IPPROTO_UDP:
		return portsUDP, true
	}
	return 0, false
}

// leastPorts returns the number of entries from which on an owner's ports are counted, 0 for
// never.
func (c *class) leastPorts() uint32 {
	least := uint32(0)
	for _, limit := range c.ports {
		if limit > 0 && (least == 0 || limit < least) {
			least = limit
		}
	}
	return least
}

// countPortLocked counts a record that was put into its owner's list, or taken out of it.
func (x *index) countPortLocked(own uint32, o *owner, r *flowRecord, by int) {
	least := x.bounded.classes[o.class].leastPorts()
	use := x.bounded.used[own]
	switch {
	case use == nil && least > 0 && o.opened >= least:
		x.bounded.used[own] = x.portsOfLocked(o) // r is among them
		return
	case use == nil:
		return
	case least == 0 || o.opened < least-least/8:
		delete(x.bounded.used, own)
		return
	}
	if kind, ok := r.portKind(); ok {
		use.count(kind, r.key.sport, by)
	}
}

func (u *portUse) count(kind int, port uint16, by int) {
	ports := u.entries[kind]
	if n := int(ports[port]) + by; n > 0 {
		ports[port] = uint32(n)
	} else {
		delete(ports, port)
	}
}

// portsOfLocked counts an owner's entries by port.
func (x *index) portsOfLocked(o *owner) *portUse {
	use := &portUse{}
	for kind := range use.entries {
		use.entries[kind] = make(map[uint16]uint32)
	}
	for slot := o.head; slot != 0; {
		r := x.records.At(slot)
		if kind, ok := r.portKind(); ok {
			use.count(kind, r.key.sport, 1)
		}
		slot = r.next
	}
	return use
}

// classOf returns the class of an address.
func (b *bounded) classOf(addr uint32) uint32 {
	if len(b.classes) == 1 {
		return 0
	}
	c, _ := b.prefixes.Lookup(addrrange.Address(addr))
	return c
}

// SetBounds replaces the bounds of all addresses. It takes a step for each address that has an
// entry. Prefixes that are not IPv4 are an error and change nothing. It needs Run.
func (t *Table) SetBounds(list []Bounds) error {
	x := t.index
	classes := make([]class, 1, len(list)+1)
	var prefixes prefixtable.Table[uint32]
	for _, b := range list {
		for _, p := range b.Prefixes {
			if !p.Addr().Is4() {
				return fmt.Errorf("bounds of prefix %v, which is not IPv4", p)
			}
			prefixes.Put(p, uint32(len(classes)))
		}
		classes = append(classes, class{
			entries: uint32(b.Entries), scarce: uint32(b.Scarce), ports: [2]uint32{portsTCP: uint32(b.TCPPorts), portsUDP: uint32(b.UDPPorts)},
		})
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.bounded.classes, x.bounded.prefixes = classes, prefixes
	x.classifyLocked()
	return nil
}

// reachedShare divides the bound of the entries that others begin to an address, while room is
// scarce: 128 of 32,768. Outside hosts cost nothing, and could fill the table through the
// mappings of a few addresses.
const reachedShare = 256

// SetScarce says whether the bounds named Scarce hold in place of Entries, and a small part of
// Options.Bound for the entries that others begin.
func (t *Table) SetScarce(scarce bool) {
	x := t.index
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.bounded.isScarce == scarce {
		return
	}
	x.bounded.isScarce = scarce
	x.reached.bound = x.opened.bound
	if scarce && x.opened.bound > 0 {
		x.reached.bound = max(1, x.opened.bound/reachedShare)
	}
	for addr, own := range x.byAddr {
		o := x.owners.At(own)
		x.reached.grew(addr, o.reached)
		x.reached.shrank(addr, o.reached)
	}
	x.classifyLocked()
}

// classifyLocked compares all owners with their bounds.
func (x *index) classifyLocked() {
	clear(x.bounded.used)
	for addr, own := range x.byAddr {
		o := x.owners.At(own)
		o.class = x.bounded.classOf(addr)
		if least := x.bounded.classes[o.class].leastPorts(); least > 0 && o.opened >= least {
			x.bounded.used[own] = x.portsOfLocked(o)
		}
		x.weighLocked(own, o)
	}
}

// AtBounds lists the addresses that have reached one of their bounds. Crowds signals changes.
func (t *Table) AtBounds() AtBounds {
	t.index.mu.Lock()
	defer t.index.mu.Unlock()
	b := &t.index.bounded
	return AtBounds{b.near.list(), b.entries.list(), b.ports[portsTCP].list(), b.ports[portsUDP].list()}
}

// Ports lists, in order, the ports with which an address has begun entries that last, of one
// protocol.
func (t *Table) Ports(inside netip.Addr, protocol uint8) []uint16 {
	addr, ok := fromAddr(inside)
	x := t.index
	x.mu.Lock()
	defer x.mu.Unlock()
	own, known := x.byAddr[addr]
	if !ok || !known {
		return nil
	}
	kind := portsTCP
	if protocol == unix.IPPROTO_UDP {
		kind = portsUDP
	}
	use := x.bounded.used[own]
	if use == nil {
		use = x.portsOfLocked(x.owners.At(own))
	}
	ports := make([]uint16, 0, len(use.entries[kind]))
	for p := range use.entries[kind] {
		ports = append(ports, p)
	}
	slices.Sort(ports)
	return ports
}
