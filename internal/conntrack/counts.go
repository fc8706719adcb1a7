package conntrack

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/addrrange"
	"github.com/sessiond/sessiond/internal/nat"
)

// Counts counts the entries of an inside address. It costs a look at each of them.
func (t *Table) Counts(inside netip.Addr) (n nat.SessionCounts) {
	addr, ok := fromAddr(inside)
	if !ok {
		return n
	}
	x := t.index
	x.mu.Lock()
	defer x.mu.Unlock()
	own, ok := x.byAddr[addr]
	if !ok {
		return n
	}
	o := x.owners.At(own)
	for slot := o.head; slot != 0; {
		r := x.records.At(slot)
		slot = r.next
		switch {
		case r.kind&recordPlain != 0:
			n.Other++
		case r.key.proto == unix.IPPROTO_TCP:
			n.TCP++
		case r.key.proto == unix.IPPROTO_UDP:
			n.UDP++
		case r.key.proto == unix.IPPROTO_ICMP:
			n.ICMP++
		default:
			n.Other++
		}
	}
	n.Began = int(o.opened)
	return n
}

// AddressCount is an address with the counts of its entries.
type AddressCount struct {
	Inside  netip.Addr
	Entries int    // present ones
	Begun   uint32 // those that it has begun since it last had none; it wraps around
}

// AddressCounts yields the addresses that have entries, in no order, some at a time in a slice that
// it uses again. An address that comes or goes meanwhile may be left out. An address takes some
// 10 ns (BenchmarkAddressCounts).
func (t *Table) AddressCounts(yield func([]AddressCount)) {
	x := t.index
	var found []AddressCount
	for slot, more := uint32(1), true; more; {
		found, slot, more = x.addressCounts(slot, found[:0])
		if len(found) > 0 {
			yield(found)
		}
	}
}

// countStep is the number of owners looked at under one hold of the lock.
const countStep = 4096

// addressCounts appends the counts of countStep owners from one slot on.
func (x *index) addressCounts(slot uint32, found []AddressCount) (_ []AddressCount, next uint32, more bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	end := min(uint32(x.owners.Len()), slot+countStep-1)
	for ; slot <= end; slot++ {
		if o := x.owners.At(slot); o.count > 0 {
			found = append(found, AddressCount{addrrange.Address(o.addr), int(o.count), o.begun})
		}
	}
	return found, slot, int(slot) <= x.owners.Len()
}
