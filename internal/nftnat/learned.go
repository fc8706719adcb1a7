package nftnat

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/nftnat/wire"
	"github.com/sessiond/sessiond/internal/nlmsg"
	"golang.org/x/sys/unix"
)

// mapping is a learned mapping: an element of the eif map.
type mapping struct {
	protocol    uint8
	outside     address
	outsidePort uint16
	inside      address
	insidePort  uint16
}

// parseMapping reads an element of the eif map.
func parseMapping(attrs []byte) (m mapping, ok bool) {
	k, at, ok := parsePort(attrs)
	return mapping{protocol: k.protocol, outside: k.address, outsidePort: k.port, inside: at.address, insidePort: at.port}, ok
}

// appendMapped appends a key: a protocol and an endpoint, each part in 32 bits.
func appendMapped(dst []byte, protocol uint8, a address, port uint16) []byte {
	dst = append(append(dst, protocol, 0, 0, 0), a[:]...)
	return append(binary.BigEndian.AppendUint16(dst, port), 0, 0)
}

// key returns the key of the mapping's element in one of learnedSets.
func (m mapping) key(set string) []byte {
	switch set {
	case mapEIF, setTaken:
		return appendMapped(nil, m.protocol, m.outside, m.outsidePort)
	case setPairs:
		key := append(appendMapped(nil, m.protocol, m.inside, m.insidePort), m.outside[:]...)
		return append(binary.BigEndian.AppendUint16(key, m.outsidePort), 0, 0)
	}
	return appendMapped(nil, m.protocol, m.inside, m.insidePort)
}

// Blocks with mappings.

// usedBlocks remembers the blocks in which inside addresses may have mappings, until Reap has
// deleted those. It is kept only while there are Mappings.
type usedBlocks struct {
	mu     sync.Mutex
	on     bool
	filter bool      // Mappings.filters
	most   int       // mappings at a time
	before time.Time // mappings of an earlier run, at addresses without blocks here, expire until then
	blocks map[address][]block
}

// start switches the memory on or off. An earlier run may have left mappings that last no
// longer than so.
func (u *usedBlocks) start(m Mappings, last time.Duration) {
	u.mu.Lock()
	defer u.mu.Unlock()
	on := m.on()
	u.filter = m.filters()
	if u.most = m.Most; u.on == on {
		return
	}
	u.on, u.before, u.blocks = on, time.Now().Add(last), map[address][]block{}
}

// add remembers a block.
func (u *usedBlocks) add(inside address, b block) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.addLocked(inside, b)
}

func (u *usedBlocks) addLocked(inside address, b block) {
	if !u.on || b == (block{}) || slices.ContainsFunc(u.blocks[inside], func(has block) bool { return has.contains(b) }) {
		return
	}
	u.blocks[inside] = append(u.blocks[inside], b)
}

// without forgets a part of the blocks of an address that has no mappings.
func (u *usedBlocks) without(inside address, b block) {
	u.mu.Lock()
	defer u.mu.Unlock()
	var rest []block
	for _, has := range u.blocks[inside] {
		if has.outside != b.outside || has.last < b.first || b.last < has.first {
			rest = append(rest, has)
			continue
		}
		if has.first < b.first {
			rest = append(rest, block{has.outside, has.first, b.first - 1})
		}
		if b.last < has.last {
			rest = append(rest, block{has.outside, b.last + 1, has.last})
		}
	}
	if len(rest) == 0 {
		delete(u.blocks, inside)
		return
	}
	u.blocks[inside] = rest
}

func (b block) contains(c block) bool {
	return b.outside == c.outside && b.first <= c.first && c.last <= b.last
}

// of returns the blocks of an address.
func (u *usedBlocks) of(inside address) []block {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.blocks[inside]
}

// has reports whether a mapping is in a block of its address.
func (u *usedBlocks) has(m mapping) bool {
	at := block{m.outside, m.outsidePort, m.outsidePort}
	return slices.ContainsFunc(u.of(m.inside), func(has block) bool { return has.contains(at) })
}

// drop forgets the blocks of an address.
func (u *usedBlocks) drop(inside address) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.blocks, inside)
}

// inherits reports whether mappings of an earlier run may be at unknown ports.
func (u *usedBlocks) inherits() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return time.Now().Before(u.before)
}

// survey takes in all mappings of an earlier run.
func (u *usedBlocks) survey(found []mapping) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, m := range found {
		u.addLocked(m.inside, block{m.outside, m.outsidePort, m.outsidePort})
	}
	u.before = time.Time{}
}

// limit returns the bound of mappings.
func (u *usedBlocks) limit() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.most
}

func (u *usedBlocks) hasFilter() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.filter
}

func (u *usedBlocks) isOn() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.on
}

// MappingTable deletes and counts learned mappings. Its methods may be called concurrently.
type MappingTable struct {
	known    *knownElements
	sessions *SessionTable
	commit   func(context.Context, *wire.Batch) error // in the turn to program the table
	fill     mappingWatch
}

// NoteBlocks tells the next Reap of an address all blocks of its binding. The table knows by
// itself those that it programmed, or found in the block map; after a restart of the daemon
// these are only the newest ones of addresses that were not cut before.
func (m *MappingTable) NoteBlocks(inside netip.Addr, blocks nat.Blocks) {
	for b := range blocks.All() {
		if b.Outside.Is4() {
			m.known.used.add(inside.As4(), block{b.Outside.As4(), uint16(b.First), uint16(b.Last)})
		}
	}
}

// Removal.

// Reap deletes every conntrack entry that has one of the addresses in either tuple, and
// returns when it is proved that none is left. Cut first: an open gate lets new ones begin.
// Reap waits for packets that were past the gate at the cut, some 10 ms for the whole call.
// Then it deletes the learned mappings in the blocks that the addresses had: some 4 ms for a
// block of 512 ports, however many mappings there are (BenchmarkForget).
//
// An address whose entries keep coming back gets no proof: Reap it again. Such are the
// entries of its packets to this machine, which pass no gate. Of very many addresses with
// mappings some get their proof only at the next call.
func (m *MappingTable) Reap(ctx context.Context, inside []netip.Addr) ([]nat.Reaped, error) {
	proofs, err := m.sessions.reap(ctx, inside)
	if err != nil || !m.known.used.isOn() {
		return proofs, err
	}
	done, err := m.forget(ctx, proofs)
	if err != nil {
		m.sessions.unreported.add(proofs...)
		return nil, fmt.Errorf("delete learned mappings of %d addresses: %w", len(inside), err)
	}
	m.sessions.unreported.add(proofs[len(done):]...)
	return done, nil
}

const (
	askedTogether  = 2048      // keys asked while other requests of the connection wait: some 6 ms
	askedMost      = 1_000_000 // keys asked by one call of Reap, so that others' removals do not wait for long: some 3 s
	forgetAttempts = 5

	deletedTogether = 4096                                           // mappings that one transaction deletes at most
	mappingBytes    = len(learnedSets)*pinRemovalBytes + endpointLen // size of the removal of one
)

// forget deletes the learned mappings of cut addresses, and counts the elements in their
// receipts. It returns the receipts of those that are done.
func (m *MappingTable) forget(ctx context.Context, proofs []nat.Reaped) (done []nat.Reaped, err error) {
	if m.known.used.inherits() && slices.ContainsFunc(proofs, func(p nat.Reaped) bool { return m.known.used.of(p.Inside.As4()) == nil }) {
		var found []mapping
		err := m.dumpMappings(ctx, func(x mapping) (wanted bool) {
			found = append(found, x)
			return !m.known.used.has(x) // new ones are in known blocks
		})
		if err != nil {
			return nil, err
		}
		m.known.used.survey(found)
	}
	of := make(map[address]*nat.Reaped, len(proofs))
	var blocks []block
	keys := 0
	for i := range proofs {
		inside := proofs[i].Inside.As4()
		for _, b := range m.known.used.of(inside) {
			blocks = append(blocks, b)
			keys += b.keys()
		}
		of[inside] = &proofs[i]
	}
	byDump := false
	if keys > askedTogether {
		count, err := m.countMappings(ctx)
		if err != nil {
			return nil, err
		}
		byDump = count >= 0 && dumpCost(count) < keys
	}
	if !byDump && keys > askedMost {
		proofs, blocks = m.firstOf(proofs)
	}
	find := m.mappingsIn
	if byDump {
		find = func(ctx context.Context, _ []block) ([]mapping, error) { return m.dumpMappingsOf(ctx, of) }
	}
	found, err := find(ctx, blocks)
	if err != nil {
		return nil, err
	}
	found = slices.DeleteFunc(found, func(m mapping) bool { return of[m.inside] == nil })
	if err := m.deleteSent(ctx, found, proofs, of); err != nil { // the mappings lead to the pairs
		return nil, err
	}
	if err := m.deleteMappings(ctx, found, of); err != nil {
		return nil, err
	}
	for _, p := range proofs {
		m.known.used.drop(p.Inside.As4())
	}
	return proofs, nil
}

// firstOf returns the first receipts, and their blocks, that one call has time for.
func (m *MappingTable) firstOf(proofs []nat.Reaped) (first []nat.Reaped, blocks []block) {
	keys := 0
	for i, p := range proofs {
		for _, b := range m.known.used.of(p.Inside.As4()) {
			blocks = append(blocks, b)
			keys += b.keys()
		}
		if keys > askedMost {
			return proofs[:i+1], blocks
		}
	}
	return proofs, blocks
}

// keys is the number of keys that the mappings of a block may have.
func (b block) keys() int { return len(mappedProtocols) * (int(b.last) - int(b.first) + 1) }

var mappedProtocols = [...]uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP}

// dumpCost is the cost of a dump of so many elements, in look-ups by key. The kernel walks a
// set from its beginning for every 32 KiB: 50,000 elements took 2 s of a processor.
func dumpCost(elements int) int { return 100 + elements/2 + elements/64*(elements/80) }

// mappingsIn lists the mappings in some blocks.
func (m *MappingTable) mappingsIn(ctx context.Context, blocks []block) (found []mapping, err error) {
	asked := make([][]byte, 0, askedTogether)
	ask := func() error {
		defer func() { asked = asked[:0] }()
		return m.known.conn.Lookup(ctx, m.known.table, mapEIF, len(asked),
			func(dst []byte, i int) []byte { return appendKey(dst, asked[i]) },
			func(_ int, attrs []byte) {
				if x, ok := parseMapping(attrs); ok {
					found = append(found, x)
				}
			})
	}
	for _, b := range blocks {
		for port := int(b.first); port <= int(b.last); port++ {
			for _, protocol := range mappedProtocols {
				asked = append(asked, appendMapped(nil, protocol, b.outside, uint16(port)))
			}
			if len(asked) < askedTogether {
				continue
			}
			if err := ask(); err != nil {
				return nil, err
			}
		}
	}
	return found, ask()
}

// deleteMappings deletes all elements of the mappings, in transactions of many.
func (m *MappingTable) deleteMappings(ctx context.Context, found []mapping, of map[address]*nat.Reaped) error {
	together := min(deletedTogether, max(1, (m.known.conn.Limit()-batchFrame)/mappingBytes))
	return inParts(len(found), together, func(from, to int) error { return m.deleteTogether(ctx, found[from:to], of) })
}

// inParts has parts of n things deleted, each in a transaction. An element that expires between the
// look at it and its deletion undoes one: another of half as many follows, so that those of a crowd
// get through while others expire all the time.
func inParts(n, together int, remove func(from, to int) error) error {
	for from, failed := 0, 0; from < n; {
		to := min(from+together, n)
		err := remove(from, to)
		switch {
		case err == nil:
			from, failed = to, 0
		case !errors.Is(err, unix.ENOENT):
			return err
		case failed >= forgetAttempts && to-from == 1:
			return fmt.Errorf("elements change at each attempt: %w", err)
		default:
			failed++
			together = max(1, (to-from)/2)
		}
	}
	return nil
}

// keyBytes is the largest size of the removal of one element.
const keyBytes = pinRemovalBytes + endpointLen

// deletePresent deletes those of some elements of a set that are there, and calls deleted with the
// number of each once it is gone. The keys differ.
func deletePresent(ctx context.Context, conn *wire.Conn, table, set string, keys [][]byte, commit func(context.Context, *wire.Batch) error, deleted func(i int)) error {
	together := min(deletedTogether, max(1, (conn.Limit()-batchFrame)/keyBytes))
	return inParts(len(keys), together, func(from, to int) error {
		var there []int
		err := conn.Lookup(ctx, table, set, to-from,
			func(dst []byte, i int) []byte { return appendKey(dst, keys[from+i]) },
			func(i int, _ []byte) { there = append(there, from+i) })
		if err != nil || len(there) == 0 {
			return err
		}
		var b wire.Batch
		b.Elements(wire.DelElements, wire.Op{Verb: "delete element", Object: set}, table, set, len(there),
			func(dst []byte, i int) []byte { return appendKey(dst, keys[there[i]]) })
		if err := commit(ctx, &b); err != nil {
			return err
		}
		for _, i := range there {
			deleted(i)
		}
		return nil
	})
}

// keysOf returns the keys of sets of inside addresses.
func keysOf(list []address) [][]byte {
	keys := make([][]byte, len(list))
	for i := range list {
		keys[i] = list[i][:]
	}
	return keys
}

// deleteTogether deletes all elements of the mappings, in one transaction.
func (m *MappingTable) deleteTogether(ctx context.Context, found []mapping, of map[address]*nat.Reaped) error {
	var b wire.Batch
	deleted := make([]int, len(found))
	for _, set := range learnedSets {
		there, err := m.mappingsWith(ctx, set, found)
		if err != nil {
			return err
		}
		b.Elements(wire.DelElements, wire.Op{Verb: "delete element", Object: set}, m.known.table, set, len(there),
			func(dst []byte, i int) []byte { return appendKey(dst, found[there[i]].key(set)) })
		for _, i := range there {
			deleted[i]++
		}
	}
	if b.Empty() {
		return nil
	}
	if err := m.commit(ctx, &b); err != nil {
		return err
	}
	for i := range found {
		of[found[i].inside].Elements += deleted[i]
	}
	return nil
}

// mappingsWith lists the numbers of the mappings that have an element in a set. Two mappings
// of one endpoint may share an element: it is of the first one.
func (m *MappingTable) mappingsWith(ctx context.Context, set string, found []mapping) (list []int, err error) {
	seen := make(map[string]bool, len(found))
	err = m.known.conn.Lookup(ctx, m.known.table, set, len(found),
		func(dst []byte, i int) []byte { return appendKey(dst, found[i].key(set)) },
		func(i int, _ []byte) {
			if key := string(found[i].key(set)); !seen[key] {
				seen[key] = true
				list = append(list, i)
			}
		})
	return list, err
}

// dumpMappingsOf lists the mappings of some addresses, whose gates are closed.
func (m *MappingTable) dumpMappingsOf(ctx context.Context, of map[address]*nat.Reaped) (found []mapping, err error) {
	err = m.dumpMappings(ctx, func(x mapping) (wanted bool) {
		if wanted = of[x.inside] != nil; wanted {
			found = append(found, x)
		}
		return wanted
	})
	return found, err
}

// dumpMappings yields all mappings; see expiringElements.
func (m *MappingTable) dumpMappings(ctx context.Context, yield func(mapping) (wanted bool)) (err error) {
	conn, err := wire.Dial(m.known.ns.FD()) // requests on one connection take turns
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	err = expiringElements(ctx, conn, m.known.table, mapEIF, func(attrs []byte) (wanted bool) {
		x, ok := parseMapping(attrs)
		return ok && yield(x)
	})
	if errors.Is(err, unix.ENOENT) { // others deleted the table, and the mappings with it
		err = nil
	}
	return err
}

// Fill.

// MappingFill is the number of learned mappings, and their bound; both are 0 without any.
type MappingFill struct{ Mappings, Limit int }

// MappingFill returns the fill that Run reads every fillInterval.
func (m *MappingTable) MappingFill() MappingFill {
	if f := m.fill.last.Load(); f != nil {
		return *f
	}
	return MappingFill{}
}

// fillInterval is the time between two readings of the number of mappings, countInterval on a
// kernel that does not count: there they are dumped.
const fillInterval, countInterval = 5 * time.Second, time.Minute

// mappingWatch reads the number of mappings, and logs it near the limit: behind it new
// endpoints get no mapping, and nothing else tells.
type mappingWatch struct {
	log   *slog.Logger
	last  atomic.Pointer[MappingFill]
	due   time.Time // of the next reading
	alarm boundAlarm
	sent  boundAlarm
}

// lookAtMappings reads the number of mappings where that is due.
func (m *MappingTable) lookAtMappings(ctx context.Context) error {
	w := &m.fill
	if !m.known.used.isOn() {
		w.last.Store(nil)
		return nil
	}
	if time.Now().Before(w.due) {
		return nil
	}
	w.due = time.Now().Add(fillInterval)
	limit := m.known.used.limit()
	n, err := m.countMappings(ctx)
	if err != nil {
		return err
	}
	if n < 0 {
		w.due = time.Now().Add(countInterval)
		n = 0
		if err := m.dumpMappings(ctx, func(mapping) (wanted bool) { n++; return false }); err != nil {
			return err
		}
	}
	w.last.Store(&MappingFill{Mappings: n, Limit: limit})
	w.tell(n, limit)
	if !m.known.used.hasFilter() {
		return nil
	}
	if n, err = countElements(ctx, m.known.conn, m.known.table, setSent); err == nil {
		w.tellSent(n)
	}
	return err
}

// vacant reports whether the kernel certainly has neither a session nor a learned mapping of
// an inside address in a block. It looks for mappings twice. Without one at first, a session
// can begin there only by a packet that was past the map before, for which the look for
// sessions waits; or it gets a mapping, which the second look finds, since it lasts for
// longer than the looks.
//
// Nothing is deleted: a mapping that an application still uses keeps its port. It lasts no
// longer than its last session does, but for freshMost.
func (m *MappingTable) vacant(ctx context.Context, inside netip.Addr, b nat.Block) (bool, error) {
	at := block{b.Outside.As4(), uint16(b.First), uint16(b.Last)}
	if mapped, err := m.mappedIn(ctx, inside, at); err != nil || mapped {
		return false, err
	}
	if vacant, err := m.sessions.vacant(ctx, inside, b); err != nil || !vacant {
		return false, err
	}
	if mapped, err := m.mappedIn(ctx, inside, at); err != nil || mapped {
		return false, err
	}
	m.known.used.without(inside.As4(), at)
	return true, nil
}

// mappedIn reports whether an address has a learned mapping in a block.
func (m *MappingTable) mappedIn(ctx context.Context, inside netip.Addr, b block) (bool, error) {
	if !m.known.used.isOn() {
		return false, nil
	}
	found, err := m.mappingsIn(ctx, []block{b})
	if err != nil {
		return false, fmt.Errorf("look for learned mappings of %v in ports %d-%d: %w", inside, b.first, b.last, err)
	}
	return slices.ContainsFunc(found, func(x mapping) bool { return x.inside.addr() == inside }), nil
}

// countMappings returns the kernel's count of mappings, which has those that expired a moment
// ago; -1 if the kernel does not count.
func (m *MappingTable) countMappings(ctx context.Context) (n int, err error) {
	if n, err = countElements(ctx, m.known.conn, m.known.table, mapEIF); m.known.countless {
		n = -1
	}
	return n, err
}

// countElements returns the kernel's count of a set's elements: 0 of one that is not there, -1
// if the kernel does not count.
func countElements(ctx context.Context, conn *wire.Conn, table, set string) (n int, err error) {
	if n, err = countOf(ctx, conn, table, set); errors.Is(err, unix.ENOENT) {
		return 0, nil
	}
	return n, err
}

// countOf returns the kernel's count of the elements of a set that is there, -1 if the kernel
// does not count.
func countOf(ctx context.Context, conn *wire.Conn, table, set string) (n int, err error) {
	n = -1
	err = conn.Get(ctx, wire.GetSet, func(dst []byte) []byte { return appendSetName(dst, table, set) }, func(attrs []byte) {
		if count := nlmsg.Attr(attrs, wire.AttrSetCount); count != nil {
			n = int(nlmsg.Uint32(count))
		}
	})
	return n, err
}

// boundAlarm tells of each way in which a count comes to its bound and away from it once.
type boundAlarm struct{ near bool }

// turns reports whether the count has come near its bound, or is well again, since the last call.
func (a *boundAlarm) turns(n, limit int) (near, well bool) {
	share := 100 * n / limit
	near, well = share >= fillWarning && !a.near, share < fillWell && a.near
	a.near = near || a.near && !well
	return near, well
}

// tell logs once that the mappings are near their limit, and once when they are well again.
func (w *mappingWatch) tell(n, limit int) {
	switch near, well := w.alarm.turns(n, limit); {
	case near:
		w.log.Warn("the learned mappings come to their bound: behind it new endpoints of subscribers get no mapping, and others do not reach them; raise nat.max_mappings",
			"entries", n, "limit", limit, "alarm", "sessiond_learned_mappings")
	case well:
		w.log.Info("the learned mappings have room again", "entries", n, "limit", limit)
	}
}
