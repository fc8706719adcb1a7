package conntrack

import (
	"hash/maphash"
	"maps"
	"slices"
	"sync"

	"github.com/sessiond/sessiond/internal/arena"
)

// flowRecord is one entry under one of its owners, 40 bytes. The lookup holds the first
// record of an entry; those of further owners are chained from it by twin.
type flowRecord struct {
	key        key
	id         uint32
	owner      uint32 // slot in index.owners
	next, prev uint32 // the owner's other records; next also chains free ones
	twin       uint32 // the same entry's record under its next owner
	serial     uint16 // differs between successive entries with one key
	gen        uint8  // number of the rebuild that last saw it
	kind       uint8  // kind of record, and bits about the entry and this owner
}

// Kinds of record.
const (
	recordFree uint8 = iota
	recordFirst
	recordTwin

	recordPlain   uint8 = 1 << 7 // the entry is portless
	recordOpened  uint8 = 1 << 6 // the owner began the entry
	recordReached uint8 = 1 << 5 // another host began it, through a destination translation
	recordBits          = recordPlain | recordOpened | recordReached
)

func (r *flowRecord) is(kind uint8) bool { return r.kind&^recordBits == kind }

// bits returns the bits of an entry's record under one owner.
func (x *index) bits(f *flow, owner uint32) uint8 {
	switch plain := x.portless(f); {
	case plain && f.orig.src == owner:
		return recordPlain | recordOpened // from inside to inside, or to the machine itself
	case plain:
		return recordPlain
	case f.orig.src == owner:
		return recordOpened
	case f.reply.src == owner:
		return recordReached
	}
	return 0
}

// owner is one address that has entries.
type owner struct {
	addr    uint32
	head    uint32 // first record, or the next free owner
	count   uint32
	opened  uint32 // number of its entries with recordOpened
	reached uint32 // number of its entries with recordReached
}

// identity tells one entry from a later one with the same key, as events do.
type identity struct {
	key key
	id  uint32
}

// pageBits makes pages of 4096 records, or owners.
const pageBits = 12

// index maps inside addresses to their entries. Its lock is held for short steps and never
// during a request to the kernel.
type index struct {
	mu      sync.Mutex
	inside  addrSet
	own     askedAddrs // the machine's own addresses, see learnOwn
	records arena.Arena[flowRecord]
	free    uint32 // chain of free records
	owners  arena.Arena[owner]
	spare   uint32            // chain of free owners
	byAddr  map[uint32]uint32 // address -> owner
	lookup  lookup
	flows   int
	serial  uint16
	rebuild rebuild
	idle    idleQueue
	opened  crowds
	reached crowds
	strays  strays

	complete bool   // it has every entry that the kernel has reported, see lost
	losses   uint64 // times lost was called
}

func newIndex(inside addrSet) *index {
	return &index{
		inside:  inside,
		records: arena.New[flowRecord](pageBits),
		owners:  arena.New[owner](pageBits),
		byAddr:  make(map[uint32]uint32),
		lookup:  lookup{seed: maphash.MakeSeed()},
		idle:    newIdleQueue(),
		strays:  strays{wake: make(chan struct{}, 1)},
	}
}

// createdLocked applies a NEW event. Its entry replaces any known one with the same key.
func (x *index) createdLocked(f *flow) {
	o := f.owners(x.inside)
	if o.n == 0 {
		return
	}
	if slot := x.lookup.find(f.orig, &x.records); slot != 0 {
		x.removeLocked(slot)
	}
	x.lookLocked(f)
	delete(x.rebuild.untold, identity{f.orig, f.id})
	x.insertLocked(f, o)
}

// destroyedLocked applies a DESTROY event. An event with another identifier than the known
// entry's is about an earlier entry.
func (x *index) destroyedLocked(f *flow) {
	if x.rebuild.running && f.owners(x.inside).n > 0 {
		x.rebuild.died(identity{f.orig, f.id})
	}
	slot := x.lookup.find(f.orig, &x.records)
	if slot != 0 && x.records.At(slot).id == f.id {
		x.removeLocked(slot)
	}
}

func (x *index) insertLocked(f *flow, o insideAddrs) {
	x.serial++
	x.flows++
	last := uint32(0)
	for i, addr := range o.list() {
		slot := x.allocLocked()
		r := x.records.At(slot)
		kind := recordTwin
		if i == 0 {
			kind = recordFirst
		}
		*r = flowRecord{key: f.orig, id: f.id, serial: x.serial, gen: x.rebuild.gen, kind: kind | x.bits(f, addr)}
		x.linkLocked(slot, addr)
		if i == 0 {
			x.lookup.insert(slot, &x.records)
		} else {
			x.records.At(last).twin = slot
		}
		last = slot
	}
}

// removeLocked removes an entry by its first record.
func (x *index) removeLocked(slot uint32) {
	x.lookup.remove(slot, &x.records)
	x.flows--
	for slot != 0 {
		r := x.records.At(slot)
		twin := r.twin
		x.unlinkLocked(r)
		*r = flowRecord{next: x.free}
		x.free = slot
		slot = twin
	}
}

func (x *index) allocLocked() uint32 {
	slot := x.free
	if slot == 0 {
		return x.records.Add()
	}
	x.free = x.records.At(slot).next
	return slot
}

// linkLocked puts a record at the head of its owner's list.
func (x *index) linkLocked(slot, addr uint32) {
	own := x.ownerLocked(addr)
	r, o := x.records.At(slot), x.owners.At(own)
	r.owner, r.next = own, o.head
	if o.head != 0 {
		x.records.At(o.head).prev = slot
	}
	o.head = slot
	o.count++
	switch {
	case r.kind&recordOpened != 0:
		o.opened++
		x.opened.grew(addr, o.opened)
	case r.kind&recordReached != 0:
		o.reached++
		x.reached.grew(addr, o.reached)
	}
}

func (x *index) unlinkLocked(r *flowRecord) {
	o := x.owners.At(r.owner)
	if r.prev != 0 {
		x.records.At(r.prev).next = r.next
	} else {
		o.head = r.next
	}
	if r.next != 0 {
		x.records.At(r.next).prev = r.prev
	}
	o.count--
	switch {
	case r.kind&recordOpened != 0:
		o.opened--
		x.opened.shrank(o.addr, o.opened)
	case r.kind&recordReached != 0:
		o.reached--
		x.reached.shrank(o.addr, o.reached)
	}
	if o.count == 0 {
		x.dropOwnerLocked(r.owner)
	}
}

func (x *index) ownerLocked(addr uint32) uint32 {
	if slot, ok := x.byAddr[addr]; ok {
		return slot
	}
	slot := x.spare
	if slot == 0 {
		slot = x.owners.Add()
	} else {
		x.spare = x.owners.At(slot).head
	}
	*x.owners.At(slot) = owner{addr: addr}
	x.byAddr[addr] = slot
	return slot
}

func (x *index) dropOwnerLocked(slot uint32) {
	o := x.owners.At(slot)
	delete(x.byAddr, o.addr)
	x.idle.push(o.addr)
	*o = owner{head: x.spare}
	x.spare = slot
}

// count returns the number of entries that have addr in either tuple.
func (x *index) count(addr uint32) int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.countLocked(addr)
}

func (x *index) countLocked(addr uint32) int {
	slot, ok := x.byAddr[addr]
	if !ok {
		return 0
	}
	return int(x.owners.At(slot).count)
}

// addresses returns the addresses that have entries, in no order.
func (x *index) addresses() []uint32 {
	x.mu.Lock()
	defer x.mu.Unlock()
	return slices.AppendSeq(make([]uint32, 0, len(x.byAddr)), maps.Keys(x.byAddr))
}

// totals returns the number of entries and of addresses that have entries.
func (x *index) totals() (flows, addresses int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.flows, len(x.byAddr)
}
