package nftnat

import (
	"context"
	"encoding/binary"
	"errors"
	"maps"
	"net/netip"
	"slices"

	"github.com/sessiond/sessiond/internal/addrtable"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/nftnat/wire"
	"github.com/sessiond/sessiond/internal/nlmsg"
	"golang.org/x/sys/unix"
)

// portKey is the key of an element of a static map: an outside endpoint, or an inside one.
type portKey struct {
	protocol uint8
	port     uint16
	address  address
}

// portAt is the value of such an element.
type portAt struct {
	port    uint16
	address address
}

func (k portKey) append(dst []byte) []byte { return appendMapped(dst, k.protocol, k.address, k.port) }

func (k portKey) endpoint() netip.AddrPort { return netip.AddrPortFrom(k.address.addr(), k.port) }

func (a portAt) endpoint() netip.AddrPort { return netip.AddrPortFrom(a.address.addr(), a.port) }

// inner and outer are the keys of a mapping of an inside address in the two maps.
func inner(inside address, f nat.Forward) portKey {
	return portKey{f.Protocol, uint16(f.InsidePort), inside}
}

func outer(f nat.Forward) portKey {
	return portKey{f.Protocol, f.Outside.Port(), f.Outside.Addr().As4()}
}

// parsePort reads an element of a static map.
func parsePort(attrs []byte) (k portKey, at portAt, ok bool) {
	k, ok = parsePortKey(attrs)
	value := nlmsg.Attr(nlmsg.Attr(attrs, unix.NFTA_SET_ELEM_DATA), unix.NFTA_DATA_VALUE)
	if !ok || len(value) != endpointLen {
		return k, at, false
	}
	return k, portAt{binary.BigEndian.Uint16(value[4:]), address(value[:4])}, true
}

func parsePortKey(attrs []byte) (k portKey, ok bool) {
	key := parseKey(attrs)
	if len(key) != mappedLen {
		return k, false
	}
	return portKey{key[0], binary.BigEndian.Uint16(key[8:]), address(key[4:8])}, true
}

func appendPort(dst []byte, k portKey, at portAt) []byte {
	dst = appendKey(dst, k.append(nil))
	data := len(dst)
	dst = nlmsg.BeginNested(dst, unix.NFTA_SET_ELEM_DATA)
	value := append(binary.BigEndian.AppendUint16(append(make([]byte, 0, endpointLen), at.address[:]...), at.port), 0, 0)
	dst = nlmsg.AppendAttr(dst, unix.NFTA_DATA_VALUE, value)
	return nlmsg.EndNested(dst, data)
}

// What is known of the kernel's elements.

// staticElements are the known elements of the static maps. They are part of the shadow, and
// guarded by its lock.
type staticElements struct {
	on      bool // the table has the maps
	unknown bool // the elements have to be read
	asked   bool // somebody needed them: not before that are they put right when others change them

	expected []portKey // of in, that a start may find
	in, out  map[portKey]portAt

	// By inside address, the keys of its elements in the maps: those of in whose value has the
	// address, and those of out with the address.
	inside addrtable.Table[*insideKeys]
}

type insideKeys struct{ in, out []portKey }

// half marks, in the protocol of a Forward, a mapping of which the kernel has one element of
// two, or one that contradicts it. It is equal to no wanted one.
const half = 0x80

// forwards returns the mappings of an address as the kernel has them.
func (s *staticElements) forwards(inside address) nat.Forwards {
	keys, ok := s.inside.At(inside.addr())
	if !ok {
		return nat.Forwards{}
	}
	list := make([]nat.Forward, 0, len(keys.in))
	add := func(protocol uint8, port uint16, outside netip.AddrPort, whole bool) {
		f := nat.Forward{Protocol: protocol, InsidePort: nat.Port(port), Outside: outside}
		if !whole {
			f.Protocol |= half
		}
		list = append(list, f)
	}
	for _, k := range keys.in {
		port := s.in[k].port
		add(k.protocol, port, k.endpoint(), s.out[portKey{k.protocol, port, inside}] == portAt{k.port, k.address})
	}
	for _, k := range keys.out {
		at := s.out[k]
		if s.in[portKey{k.protocol, at.port, at.address}] != (portAt{k.port, inside}) {
			add(k.protocol, k.port, at.endpoint(), false)
		}
	}
	return nat.NewForwards(list)
}

// set records an element of one of the maps, or that it is absent.
func (s *staticElements) set(m string, k portKey, at portAt, present bool) {
	elements, insideOf := s.in, func(at portAt) address { return at.address }
	if m == mapStaticOut {
		elements, insideOf = s.out, func(portAt) address { return k.address }
	}
	if before, ok := elements[k]; ok {
		s.unlist(m, insideOf(before), k)
		delete(elements, k)
	}
	if !present {
		return
	}
	elements[k] = at
	inside := insideOf(at)
	keys, ok := s.inside.At(inside.addr())
	if !ok {
		keys = &insideKeys{}
		s.inside.Put(inside.addr(), keys)
	}
	if m == mapStaticIn {
		keys.in = append(keys.in, k)
	} else {
		keys.out = append(keys.out, k)
	}
}

func (s *staticElements) unlist(m string, inside address, k portKey) {
	keys, _ := s.inside.At(inside.addr())
	list := &keys.in
	if m == mapStaticOut {
		list = &keys.out
	}
	*list = slices.DeleteFunc(*list, func(x portKey) bool { return x == k })
	if len(keys.in)+len(keys.out) == 0 {
		s.inside.Remove(inside.addr())
	}
}

// clear records that the maps have no elements.
func (s *staticElements) clear() {
	s.in, s.out, s.inside, s.unknown = map[portKey]portAt{}, map[portKey]portAt{}, addrtable.Table[*insideKeys]{}, false
}

// addForwards adds the mappings to entries of the shadow, in order of address from one on, and
// entries of addresses that have nothing else. end is the address behind them, zero for none.
func (s *shadow) addForwards(entries []nat.Entry, from, end netip.Addr) []nat.Entry {
	if s.static.inside.Len() == 0 {
		return entries
	}
	known := len(entries)
	i := 0
	for inside := range s.static.inside.From(from) {
		if end.IsValid() && !inside.Less(end) {
			break
		}
		for i < known && entries[i].Inside.Less(inside) {
			i++
		}
		forwards := s.static.forwards(inside.As4())
		if i < known && entries[i].Inside == inside {
			entries[i].Forwards = forwards
			continue
		}
		entries = append(entries, nat.Entry{Inside: inside, Forwards: forwards})
	}
	if len(entries) > known {
		slices.SortFunc(entries, func(a, b nat.Entry) int { return a.Inside.Compare(b.Inside) })
	}
	return entries
}

// lone returns the number of addresses that have elements of the static maps alone.
func (s *shadow) lone() (n int) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for inside := range s.static.inside.From(netip.Addr{}) {
		if h, ok := s.cells.At(inside); !ok || h.cell == (cell{}) {
			n++
		}
	}
	return n
}

// Reading.

// ExpectStatic names outside endpoints of mappings that the table may have. Elements by known
// keys are read in time that grows with their number, a whole map in its square.
func (x *staticKeeper) ExpectStatic(endpoints []nat.Endpoint) { x.kernel.known.expect(endpoints) }

func (s *shadow) expect(endpoints []nat.Endpoint) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range endpoints {
		s.static.expected = append(s.static.expected, portKey{e.Protocol, e.Port(), e.Addr().As4()})
	}
}

// dumpedWhole is the number of elements up to which a dump of a map is faster than look-ups of
// its keys (BenchmarkStatic).
const dumpedWhole = 20_000

// ensureStatic reads the elements of the static maps if they are not known. Many it reads by the
// keys that it knows or expects, and only if the kernel has others, all.
func (k *knownElements) ensureStatic(ctx context.Context) error {
	k.static.asked = true
	if !k.static.on || !k.static.unknown {
		return nil
	}
	in, out := map[portKey]portAt{}, map[portKey]portAt{}
	inCount, outCount, err := k.countStatic(ctx)
	if err == nil && max(inCount, outCount) > dumpedWhole {
		err = k.readExpected(ctx, in, out)
	}
	if err == nil && (inCount != len(in) || outCount != len(out)) {
		err = errors.Join(k.readStatic(ctx, mapStaticIn, in), k.readStatic(ctx, mapStaticOut, out))
	}
	if errors.Is(err, unix.ENOENT) { // others deleted the table, which is put right first
		return nil
	}
	if err != nil {
		return err
	}
	k.shadow.mu.Lock()
	same := maps.Equal(in, k.static.in) && maps.Equal(out, k.static.out)
	k.static.clear()
	k.static.expected = nil
	for key, at := range in {
		k.static.set(mapStaticIn, key, at, true)
	}
	for key, at := range out {
		k.static.set(mapStaticOut, key, at, true)
	}
	k.shadow.mu.Unlock()
	if !same {
		k.tell()
	}
	return nil
}

// readExpected reads the elements of in by the keys that were known or are expected, and those of
// out that belong to them.
func (k *knownElements) readExpected(ctx context.Context, in, out map[portKey]portAt) error {
	var outer, inner []portKey
	k.shadow.mu.RLock()
	outer = append(slices.Collect(maps.Keys(k.static.in)), k.static.expected...)
	inner = slices.Collect(maps.Keys(k.static.out))
	k.shadow.mu.RUnlock()
	if err := k.lookUpStatic(ctx, mapStaticIn, outer, in); err != nil {
		return err
	}
	for key, at := range in {
		inner = append(inner, portKey{key.protocol, at.port, at.address})
	}
	return k.lookUpStatic(ctx, mapStaticOut, inner, out)
}

func (k *knownElements) lookUpStatic(ctx context.Context, m string, keys []portKey, into map[portKey]portAt) error {
	return k.conn.Lookup(ctx, k.table, m, len(keys),
		func(dst []byte, i int) []byte { return appendKey(dst, keys[i].append(nil)) },
		func(_ int, attrs []byte) {
			if key, at, ok := parsePort(attrs); ok {
				into[key] = at
			}
		})
}

func (k *knownElements) readStatic(ctx context.Context, m string, into map[portKey]portAt) error {
	return elements(ctx, k.conn, k.table, m, func() { clear(into) }, func(attrs []byte) {
		if key, at, ok := parsePort(attrs); ok {
			into[key] = at
		}
	})
}

// countStatic returns the kernel's counts of elements, -1 where it does not count.
func (k *knownElements) countStatic(ctx context.Context) (in, out int, err error) {
	in, errIn := countOf(ctx, k.conn, k.table, mapStaticIn)
	out, errOut := countOf(ctx, k.conn, k.table, mapStaticOut)
	if k.countless {
		in, out = -1, -1
	}
	return in, out, errors.Join(errIn, errOut)
}

// checkStaticCount has the elements read again if the kernel has another number of them than
// is known: others changed them unnoticed.
func (k *knownElements) checkStaticCount(ctx context.Context) error {
	if !k.static.on || k.static.unknown {
		return nil
	}
	in, out, err := k.countStatic(ctx)
	if err != nil {
		return err
	}
	if in >= 0 && in != len(k.static.in) || out >= 0 && out != len(k.static.out) {
		k.static.unknown = true
	}
	return k.ensureStatic(ctx)
}

// lookAtStatic reads the elements of a static map with some keys that others changed.
func (k *knownElements) lookAtStatic(ctx context.Context, m string, keys []portKey) error {
	if len(keys) == 0 || k.static.unknown {
		return nil
	}
	present := map[portKey]portAt{}
	if err := k.lookUpStatic(ctx, m, keys, present); err != nil {
		return err
	}
	k.shadow.mu.Lock()
	defer k.shadow.mu.Unlock()
	for _, key := range keys {
		at, ok := present[key]
		k.static.set(m, key, at, ok)
	}
	return nil
}

// hearStatic takes the changes of others to elements of the static maps.
func (k *knownElements) hearStatic(ctx context.Context, in, out []portKey) error {
	switch {
	case !k.static.on || len(in)+len(out) == 0:
		return nil
	case len(in)+len(out) > lookChunk:
		k.static.unknown = true
		return k.ensureStatic(ctx)
	}
	err := errors.Join(k.lookAtStatic(ctx, mapStaticIn, in), k.lookAtStatic(ctx, mapStaticOut, out))
	if err != nil {
		k.static.unknown = true
		return err
	}
	k.tell()
	return nil
}

// converged takes a table that was made as wanted: on if it has the static maps, kept if it had
// them before, fresh if it was made anew and has no elements yet.
func (k *knownElements) converged(on, kept, fresh bool) {
	k.shadow.mu.Lock()
	defer k.shadow.mu.Unlock()
	s := &k.static
	switch {
	case !on, s.in == nil:
		s.clear()
		s.unknown = on && kept && !fresh
	case fresh && s.unknown, !kept && !fresh:
		s.clear()
	}
	s.on = on
}

// Programming.

// wantedStatic returns the mappings of the entries that have any; of several entries for one
// address the last counts.
func wantedStatic(entries []nat.Entry) map[address]nat.Forwards {
	var wanted map[address]nat.Forwards
	for i := range entries {
		e := &entries[i]
		switch {
		case e.Forwards != (nat.Forwards{}):
			if wanted == nil {
				wanted = map[address]nat.Forwards{}
			}
			wanted[e.Inside.As4()] = e.Forwards
		case wanted != nil:
			delete(wanted, e.Inside.As4())
		}
	}
	return wanted
}

var errNoStatic = errors.New("nftnat: an entry has mappings, but the table has no ports for them")

// withStatic adds to changes those of the wanted ones that differ in their mappings alone, and
// to each the size of the change of its mappings.
func (k *knownElements) withStatic(changes, wanted []change, static map[address]nat.Forwards) ([]change, error) {
	if !k.static.on {
		if len(static) > 0 {
			return nil, errNoStatic
		}
		return changes, nil
	}
	if len(static) == 0 && k.static.inside.Len() == 0 {
		return changes, nil
	}
	place := make(map[address]int, len(changes))
	for i := range changes {
		place[changes[i].inside] = i
	}
	for _, c := range wanted {
		ops := k.static.opsOf(c.inside, static[c.inside])
		if len(ops) == 0 {
			continue
		}
		i, ok := place[c.inside]
		if !ok {
			i = len(changes)
			changes = append(changes, change{inside: c.inside, from: c.to, to: c.to})
		}
		changes[i].static = uint32(len(ops) * portBytes)
	}
	return changes, nil
}

// portBytes is the largest size of an element of a static map in a batch.
const portBytes = 52

// A staticOp deletes an element of a static map, or adds one.
type staticOp struct {
	m   string
	key portKey
	at  portAt
	add bool
}

// opsOf lists the changes that give an address its wanted mappings: those that delete first.
// An outside endpoint that another address has is taken from it.
func (s *staticElements) opsOf(inside address, wanted nat.Forwards) (ops []staticOp) {
	in, out := make(map[portKey]portAt, wanted.Len()), make(map[portKey]portAt, wanted.Len())
	for f := range wanted.All() {
		in[outer(f)] = portAt{uint16(f.InsidePort), inside}
		out[inner(inside, f)] = portAt{f.Outside.Port(), f.Outside.Addr().As4()}
	}
	if keys, ok := s.inside.At(inside.addr()); ok {
		for _, k := range keys.in {
			if in[k] != s.in[k] {
				ops = append(ops, staticOp{m: mapStaticIn, key: k})
			}
		}
		for _, k := range keys.out {
			if out[k] != s.out[k] {
				ops = append(ops, staticOp{m: mapStaticOut, key: k})
			}
		}
	}
	for f := range wanted.All() {
		k := outer(f)
		if have, there := s.in[k]; there && have.address != inside {
			ops = append(ops, staticOp{m: mapStaticIn, key: k})
			if other := (portKey{k.protocol, have.port, have.address}); s.out[other] == (portAt{k.port, k.address}) {
				ops = append(ops, staticOp{m: mapStaticOut, key: other})
			}
		}
	}
	for f := range wanted.All() {
		if k := outer(f); s.in[k] != in[k] {
			ops = append(ops, staticOp{mapStaticIn, k, in[k], true})
		}
		if k := inner(inside, f); s.out[k] != out[k] {
			ops = append(ops, staticOp{mapStaticOut, k, out[k], true})
		}
	}
	return ops
}

// programStatic adds the changes of some addresses' mappings to a batch, see programChanges. An
// endpoint that one of the addresses leaves and another takes is deleted once, before it is added.
func (k *knownElements) programStatic(b *wire.Batch, changes []change, static map[address]nat.Forwards) (record func()) {
	type element struct {
		m   string
		key portKey
	}
	var deleted map[element]bool
	var ops, added []staticOp
	for _, c := range changes {
		if c.static == 0 {
			continue
		}
		for _, op := range k.static.opsOf(c.inside, static[c.inside]) {
			e := element{op.m, op.key}
			if op.add {
				added = append(added, op)
			} else if !deleted[e] {
				if deleted == nil {
					deleted = map[element]bool{}
				}
				deleted[e] = true
				ops = append(ops, op)
			}
		}
	}
	ops = append(ops, added...)
	for _, m := range []string{mapStaticIn, mapStaticOut} {
		addStaticOps(b, k.table, m, ops)
	}
	if len(ops) == 0 {
		return func() {}
	}
	return func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		for _, op := range ops {
			k.static.set(op.m, op.key, op.at, op.add)
		}
	}
}

// addStaticOps adds the changes of one map to a batch.
func addStaticOps(b *wire.Batch, table, m string, ops []staticOp) {
	part := func(add bool) []staticOp {
		var list []staticOp
		for _, op := range ops {
			if op.m == m && op.add == add {
				list = append(list, op)
			}
		}
		return list
	}
	gone, made := part(false), part(true)
	b.Elements(wire.DelElements, wire.Op{Verb: "delete element", Object: m}, table, m, len(gone),
		func(dst []byte, i int) []byte { return appendKey(dst, gone[i].key.append(nil)) })
	b.Elements(wire.NewElements, wire.Op{Verb: "add element", Object: m}, table, m, len(made),
		func(dst []byte, i int) []byte { return appendPort(dst, made[i].key, made[i].at) })
}

// fillStatic programs all known elements of the static maps of a table that was made anew, and
// returns the number of transactions.
func (x *staticKeeper) fillStatic(ctx context.Context) (transactions int, err error) {
	k := x.kernel
	var ops []staticOp
	for m, elements := range map[string]map[portKey]portAt{mapStaticIn: k.known.static.in, mapStaticOut: k.known.static.out} {
		for key, at := range elements {
			ops = append(ops, staticOp{m, key, at, true})
		}
	}
	for part := range slices.Chunk(ops, max(1, (k.conn.Limit()-batchFrame)/portBytes)) {
		var b wire.Batch
		addStaticOps(&b, k.options.Table, mapStaticIn, part)
		addStaticOps(&b, k.options.Table, mapStaticOut, part)
		if err := k.conn.Commit(ctx, &b); err != nil {
			return transactions, err
		}
		transactions++
	}
	return transactions, nil
}
