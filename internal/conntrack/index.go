package conntrack

import (
	"hash/maphash"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"github.com/sessiond/sessiond/internal/addrrange"
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

// portless reports whether an entry takes no port of a block: it is untranslated, or a rule
// redirected it to the machine itself, as to a captive portal.
func (x *index) portless(f *flow) bool { return f.plain() || x.own.Contains(f.reply.src) }

// owner is one address that has entries.
type owner struct {
	addr    uint32
	head    uint32 // first record, or the next free owner
	count   uint32
	opened  uint32 // number of its entries with recordOpened
	reached uint32 // number of its entries with recordReached
	begun   uint32 // entries with recordOpened that were added since it last had none
	class   uint32 // of its bounds, see bounded
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
	bounded bounded
	begun   beginnings
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
		bounded: newBounded(nil),
		strays:  strays{wake: make(chan struct{}, 1)},
		begun:   newBeginnings(),
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
		o.begun++
		x.opened.grew(addr, o.opened)
		if o.class != 0 {
			x.countPortLocked(own, o, r, 1)
			x.weighLocked(own, o)
		}
		x.begun.grew(addr, o.opened)
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
		if o.class != 0 {
			x.countPortLocked(r.owner, o, r, -1)
			x.weighLocked(r.owner, o)
		}
		x.begun.shrank(o.addr, o.opened)
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
	*x.owners.At(slot) = owner{addr: addr, class: x.bounded.classOf(addr)}
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

// learnOwn updates the machine's own addresses, for entries that begin from now on. An
// unknown one only delays a proof. While links come and go the kernel cannot always list
// them; then the known ones are kept.
func (t *Table) learnOwn() {
	if t.own == nil {
		return
	}
	list, err := t.own()
	if err != nil {
		t.log.Debug("conntrack: the machine's own addresses cannot be listed", "error", err)
		return
	}
	own := make(askedAddrs, len(list))
	for a := range list {
		if addr, ok := fromAddr(a); ok {
			own[addr] = struct{}{}
		}
	}
	t.index.mu.Lock()
	defer t.index.mu.Unlock()
	t.index.own = own
}

// Questions, and whether the index can answer them.

// lost records that events may be missing. The index is incomplete until a rebuild that
// begins afterwards has finished.
func (x *index) lost() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.lostLocked()
}

func (x *index) lostLocked() {
	x.complete = false
	x.losses++
}

// covers reports whether the index has every entry of the addresses that the kernel has
// reported so far, as far as the listener has read: it is complete, and the addresses lie in
// the indexed prefixes. It may have more: entries from before the listener end without an
// event when the sysctl nf_conntrack_events is 2. That is safe, because only a count of zero
// proves something: a delete asks the kernel for each of them by tuple, and takes ENOENT for
// an answer too.
func (x *index) covers(addrs askedAddrs) bool {
	x.mu.Lock()
	inside, complete := x.inside, x.complete
	x.mu.Unlock()
	if !complete {
		return false
	}
	for addr := range addrs {
		if !inside.Contains(addr) {
			return false
		}
	}
	return true
}

// lookStep is the number of addresses looked up under one hold of the lock.
const lookStep = 512

// empty returns those of the addresses that have no entry. ok is false when the index is
// incomplete.
func (x *index) empty(addrs askedAddrs) (none []uint32, ok bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	seen := 0
	for addr := range addrs {
		if seen++; seen%lookStep == 0 {
			x.mu.Unlock()
			x.mu.Lock()
		}
		if !x.complete {
			return nil, false
		}
		if x.countLocked(addr) == 0 {
			none = append(none, addr)
		}
	}
	return none, true
}

// plain returns those of the addresses whose entries are all portless.
func (x *index) plain(addrs askedAddrs) (only []uint32) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for addr := range addrs {
		if x.plainLocked(addr) {
			only = append(only, addr)
		}
		x.mu.Unlock() // let others have the lock: one address may have many entries
		x.mu.Lock()
	}
	return only
}

func (x *index) plainLocked(addr uint32) bool {
	own, ok := x.byAddr[addr]
	if !ok {
		return true
	}
	for slot := x.owners.At(own).head; slot != 0; slot = x.records.At(slot).next {
		if x.records.At(slot).kind&recordPlain == 0 {
			return false
		}
	}
	return true
}

// left returns the number of entries of each address.
func (x *index) left(addrs askedAddrs) map[netip.Addr]int {
	counts := make(map[netip.Addr]int, len(addrs))
	for addr := range addrs {
		counts[addrrange.Address(addr)] = x.count(addr)
	}
	return counts
}

// Entries that are about to be deleted.

// entryRef names an entry that is about to be deleted or asked for.
type entryRef struct {
	key    key
	id     uint32
	serial uint16 // of the index's record at that time; 0 if it was not known
	known  bool   // the entry was in the index
	owners insideAddrs
	plain  bool // see portless
}

// collect appends the known entries of addr.
func (x *index) collect(to []entryRef, addr uint32) []entryRef {
	x.mu.Lock()
	defer x.mu.Unlock()
	own, ok := x.byAddr[addr]
	if !ok {
		return to
	}
	for slot := x.owners.At(own).head; slot != 0; slot = x.records.At(slot).next {
		to = append(to, x.targetLocked(slot))
	}
	return to
}

// targetLocked returns the reference of a record's entry, with all its owners: a hairpin
// entry counts for both.
func (x *index) targetLocked(slot uint32) entryRef {
	r := x.records.At(slot)
	t := entryRef{key: r.key, id: r.id, serial: r.serial, known: true, plain: r.kind&recordPlain != 0}
	if r.is(recordTwin) {
		slot = x.lookup.find(r.key, &x.records)
	}
	for ; slot != 0; slot = x.records.At(slot).twin {
		t.owners.addrs[t.owners.n] = x.owners.At(x.records.At(slot).owner).addr
		t.owners.n++
	}
	return t
}

// target returns the reference of an entry that a dump has shown.
func (x *index) target(f *flow, o insideAddrs) entryRef {
	x.mu.Lock()
	defer x.mu.Unlock()
	t := entryRef{key: f.orig, id: f.id, owners: o, plain: x.portless(f)}
	if slot := x.lookup.find(f.orig, &x.records); slot != 0 {
		r := x.records.At(slot)
		t.known = r.id == f.id
		t.serial = r.serial
	}
	return t
}

// learn adds entries that a pass has shown and no event has reported, so that they can be
// asked for by tuple. If one has ended meanwhile, that request finds it gone.
func (x *index) learn(found []entryRef) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for i := range found {
		t := &found[i]
		if x.lookup.find(t.key, &x.records) == 0 && t.owners.anyIn(x.inside) {
			f := flow{orig: t.key, id: t.id}
			if t.plain {
				f.reply.src, f.reply.dst = t.key.dst, t.key.src
			}
			x.insertLocked(&f, t.owners)
			// A rebuild under way has not seen it, nor its other inside addresses.
			x.records.At(x.lookup.find(t.key, &x.records)).gen--
		}
	}
}

// forget removes entries that the kernel no longer has, without waiting for their events:
// entries that began before the listener have none. A later entry on the same tuple stays.
func (x *index) forget(gone []entryRef) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for i := range gone {
		x.forgetLocked(&gone[i])
	}
}

func (x *index) forgetLocked(t *entryRef) {
	slot := x.lookup.find(t.key, &x.records)
	switch {
	case slot == 0:
		x.rebuild.died(identity{t.key, t.id})
	case t.known && x.records.At(slot).serial == t.serial:
		x.rebuild.died(identity{t.key, t.id})
		x.removeLocked(slot)
	}
}

// Records by key.

// lookup finds the slot of a key: open addressing with linear probing in many small
// segments, so that growing one never delays the event loop for long.
type lookup struct {
	seed     maphash.Seed
	segments [256]segment
}

// segment holds record slots at the positions of their hashes; 0 is an empty position.
type segment struct {
	places []uint32 // length is a power of two
	used   int
}

const firstPlaces = 8

func (l *lookup) hash(k key) uint64 { return maphash.Comparable(l.seed, k) }

func (l *lookup) segment(hash uint64) *segment { return &l.segments[hash>>56] }

// find returns the slot of k, 0 if there is none.
func (l *lookup) find(k key, records *arena.Arena[flowRecord]) uint32 {
	hash := l.hash(k)
	s := l.segment(hash)
	if len(s.places) == 0 {
		return 0
	}
	mask := uint64(len(s.places) - 1)
	for i := hash & mask; ; i = (i + 1) & mask {
		slot := s.places[i]
		if slot == 0 || records.At(slot).key == k {
			return slot
		}
	}
}

// insert adds a slot whose key is not present.
func (l *lookup) insert(slot uint32, records *arena.Arena[flowRecord]) {
	hash := l.hash(records.At(slot).key)
	s := l.segment(hash)
	if 4*(s.used+1) > 3*len(s.places) {
		l.grow(s, records)
	}
	s.put(hash, slot)
	s.used++
}

func (s *segment) put(hash uint64, slot uint32) {
	mask := uint64(len(s.places) - 1)
	i := hash & mask
	for s.places[i] != 0 {
		i = (i + 1) & mask
	}
	s.places[i] = slot
}

func (l *lookup) grow(s *segment, records *arena.Arena[flowRecord]) {
	old := s.places
	s.places = make([]uint32, max(firstPlaces, 2*len(old)))
	for _, slot := range old {
		if slot != 0 {
			s.put(l.hash(records.At(slot).key), slot)
		}
	}
}

// remove takes a slot out and closes the gap, so no tombstones are needed.
func (l *lookup) remove(slot uint32, records *arena.Arena[flowRecord]) {
	hash := l.hash(records.At(slot).key)
	s := l.segment(hash)
	mask := uint64(len(s.places) - 1)
	i := hash & mask
	for s.places[i] != slot {
		i = (i + 1) & mask
	}
	s.used--
	for next := (i + 1) & mask; s.places[next] != 0; next = (next + 1) & mask {
		home := l.hash(records.At(s.places[next]).key) & mask
		if (next-home)&mask >= (next-i)&mask {
			s.places[i] = s.places[next]
			i = next
		}
	}
	s.places[i] = 0
}
