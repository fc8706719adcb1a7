package conntrack

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/addrrange"
	"github.com/sessiond/sessiond/internal/nat"
)

// PortUser is an address with its ports in use.
type PortUser struct {
	Inside netip.Addr
	nat.PortUse
}

// PortUse returns the ports that an inside address uses. It costs a look at each of its
// entries.
func (t *Table) PortUse(inside netip.Addr) nat.PortUse {
	addr, ok := fromAddr(inside)
	if !ok {
		return nat.PortUse{}
	}
	x := t.index
	x.mu.Lock()
	defer x.mu.Unlock()
	own, ok := x.byAddr[addr]
	if !ok {
		return nat.PortUse{}
	}
	return x.portsLocked(own, new(portCounter))
}

// portStep is the number of entries looked at under one hold of the lock, but for an address
// with more.
const portStep = 1024

// PortUses yields the addresses that use a port, in no order, some at a time in a slice that
// it uses again. An address that comes or goes meanwhile may be left out. An entry takes 15 to
// 210 ns (BenchmarkPortUses), and its events nothing: see docs/decisions/0048.
func (t *Table) PortUses(yield func([]PortUser)) {
	x, c := t.index, new(portCounter)
	var found []PortUser
	for slot, more := uint32(1), true; more; {
		found, slot, more = x.portUses(slot, c, found[:0])
		if len(found) > 0 {
			yield(found)
		}
	}
}

// portUses appends the ports of the owners from one slot on, until it has looked at portStep
// entries.
func (x *index) portUses(slot uint32, c *portCounter, found []PortUser) (_ []PortUser, next uint32, more bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for looks := uint32(0); int(slot) <= x.owners.Len() && looks < portStep; slot++ {
		o := x.owners.At(slot)
		looks += 1 + o.count
		if o.opened == 0 {
			continue // spare, or it began nothing
		}
		if u := x.portsLocked(slot, c); u != (nat.PortUse{}) {
			found = append(found, PortUser{addrrange.Address(o.addr), u})
		}
	}
	return found, slot, int(slot) <= x.owners.Len()
}

// portsLocked counts the ports of an owner. Entries of other protocols have no ports, and
// portless ones no port of a block.
func (x *index) portsLocked(own uint32, c *portCounter) (u nat.PortUse) {
	for slot := x.owners.At(own).head; slot != 0; {
		r := x.records.At(slot)
		slot = r.next
		if r.kind&(recordOpened|recordPlain) != recordOpened {
			continue
		}
		switch r.key.proto {
		case unix.IPPROTO_TCP:
			u.TCP += c.add(0, r.key.sport)
		case unix.IPPROTO_UDP:
			u.UDP += c.add(1, r.key.sport)
		case unix.IPPROTO_ICMP:
			u.ICMP += c.add(2, r.key.sport)
		}
	}
	c.reset()
	return u
}

// portCounter counts different ports of three protocols, in 24 KiB.
type portCounter struct {
	seen [3][1 << 16 / 64]uint64 // a bit for each port
	list []uint32                // the ports that are seen, with the number of their protocol
}

// add returns 1 for a port that is new, else 0.
func (c *portCounter) add(protocol int, port uint16) int {
	word, bit := &c.seen[protocol][port/64], uint64(1)<<(port%64)
	if *word&bit != 0 {
		return 0
	}
	*word |= bit
	c.list = append(c.list, uint32(protocol)<<16|uint32(port))
	return 1
}

// reset forgets all ports, at the cost of these alone.
func (c *portCounter) reset() {
	for _, p := range c.list {
		c.seen[p>>16][p&0xffff/64] = 0
	}
	c.list = c.list[:0]
}
