package nftnat

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/addrrange"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/nftnat/wire"
	"github.com/sessiond/sessiond/internal/throttle"
)

// mapPinned has the inside ports that are pinned to a block: there conntrack finds their
// mapping, and reuses it, or another port where that one is taken towards the same host. The
// flag of timeouts makes nft take the map for one of packets: a start does not read it with the
// rules.
const mapPinned = "pinned"

// mapNarrowed has the remote endpoints of subscribers to which most ports of a block lead: new
// flows to them get a port of the part that has free ones, in which nf_nat tries each. All other
// flows have the whole block.
const mapNarrowed = "narrowed"

// narrowedLen is the length of its keys: a protocol, an inside address, and a remote endpoint.
const narrowedLen = mappedLen + addressLen

// pinnedMost bounds the pins of all subscribers. A start reads them by a dump, whose cost grows
// with the square: 50,000 elements took 2 s of a processor.
const pinnedMost = 1 << 16

// pinSets are none where no pins are wanted.
func pinSets(m Mappings) []set {
	if !m.Pinned {
		return nil
	}
	pinned := set{
		name: mapPinned,
		shape: shape{
			flags:   unix.NFT_SET_MAP | unix.NFT_SET_TIMEOUT,
			keyType: concatenated(nftables.TypeInetProto, nftables.TypeIPAddr, nftables.TypeInetService), keyLen: mappedLen,
			dataType: blockShape.dataType, dataLen: blockShape.dataLen, size: pinnedMost,
		},
		userdata: intervalData(byteOrders(orderNone, orderNone)),
	}
	narrowed := pinned
	narrowed.name = mapNarrowed
	narrowed.shape.keyType = concatenated(nftables.TypeInetProto, nftables.TypeIPAddr, nftables.TypeIPAddr, nftables.TypeInetService)
	narrowed.shape.keyLen = narrowedLen
	return []set{pinned, narrowed}
}

// natByPin are the rules, in the chain that translates, that give a new flow of a pinned inside
// port, or to a pinned remote endpoint, a port of the pin's block.
func natByPin(o Options, protocol uint8) []rule {
	if !o.Mappings.Pinned {
		return nil
	}
	return []rule{
		translateSource(protocol, translateInto(mapPinned)),
		{chainTranslate, "", slices.Concat(protocolIs(protocol), []expr.Any{
			loadProtocol, loadTo(loadSource, unix.NFT_REG32_01), loadTo(loadTarget, unix.NFT_REG32_02), loadPort(2, unix.NFT_REG32_03),
		}, translateInto(mapNarrowed))},
	}
}

// pinKey is an inside port of a subscriber, or a remote endpoint: then the port is its own.
type pinKey struct {
	protocol uint8
	remote   address // zero for an inside port
	port     uint16
}

// pinKeyOf returns the key of a pin.
func pinKeyOf(p nat.Pin) pinKey {
	if p.Remote.IsValid() {
		return pinKey{p.Protocol, p.Remote.Addr().As4(), p.Remote.Port()}
	}
	return pinKey{protocol: p.Protocol, port: uint16(p.Port)}
}

// pin is the reverse of pinKeyOf.
func (p pinKey) pin(b block) nat.Pin {
	pin := nat.Pin{Protocol: p.protocol, Block: nat.Block{Outside: b.outside.addr(), First: nat.Port(b.first), Last: nat.Port(b.last)}}
	if p.ofRemote() {
		pin.Remote = netip.AddrPortFrom(p.remote.addr(), p.port)
	} else {
		pin.Port = nat.Port(p.port)
	}
	return pin
}

func (p pinKey) ofRemote() bool { return p.remote != address{} }

// in returns the map that has the key.
func (p pinKey) in() string {
	if p.ofRemote() {
		return mapNarrowed
	}
	return mapPinned
}

// pinMaps are the maps that have keys.
var pinMaps = [...]string{mapPinned, mapNarrowed}

func (p pinKey) key(inside address) []byte {
	if !p.ofRemote() {
		return appendMapped(nil, p.protocol, inside, p.port)
	}
	key := append([]byte{p.protocol, 0, 0, 0}, inside[:]...)
	key = append(key, p.remote[:]...)
	return append(binary.BigEndian.AppendUint16(key, p.port), 0, 0)
}

// pinKeeper programs pins. Only the holder of the turn to program changes its elements.
type pinKeeper struct {
	kernel *Kernel
	log    *slog.Logger

	mu    sync.Mutex
	pins  map[address]map[pinKey]block // of the kernel, but for changes of others
	count int
	cut   map[address]int // elements that went with the gate, until Reap tells their number
	doubt bool            // others may have changed elements

	changes int       // counts up with each change of pins
	due     time.Time // of the next count, for the holder of the turn
	full    throttle.Throttle
}

func newPinKeeper(k *Kernel) pinKeeper {
	return pinKeeper{kernel: k, log: k.log, pins: map[address]map[pinKey]block{}, cut: map[address]int{}}
}

// SetPins makes the given pins those of a subscriber, and takes others away. It makes none for
// a closed gate, nor in blocks of another outside address than that of its new sessions. They go
// with the gate. Beyond pinnedMost of all subscribers it makes fewer than given.
func (x *pinKeeper) SetPins(ctx context.Context, inside netip.Addr, pins []nat.Pin) error {
	k := x.kernel
	if !inside.Is4() {
		return fmt.Errorf("nftnat: pins of %v, which is not IPv4", inside)
	}
	if err := k.lock(ctx); err != nil {
		return err
	}
	defer k.unlock()
	if k.removed {
		return nil
	}
	err := k.hear(ctx)
	if err == nil {
		err = x.set(ctx, inside.As4(), pins)
	}
	if err != nil {
		return fmt.Errorf("pin %d inside ports of %v: %w", len(pins), inside, err)
	}
	return nil
}

func (x *pinKeeper) set(ctx context.Context, inside address, pins []nat.Pin) error {
	k := x.kernel
	if !k.known.sure(inside) {
		if _, err := k.known.lookAgain(ctx, []address{inside}); err != nil {
			return err
		}
	}
	c := k.known.at(inside).ours()
	want := map[pinKey]block{}
	for _, p := range pins {
		if c.gate == nat.GateClosed || !p.Block.Outside.Is4() || p.Block.Outside.As4() != c.outside || !k.options.Mappings.pins(p) {
			continue
		}
		want[pinKeyOf(p)] = block{c.outside, uint16(p.Block.First), uint16(p.Block.Last)}
	}
	if room := pinnedMost - x.others(inside); len(want) > room {
		x.drop(want, len(want)-room)
	}
	if x.doubtful() {
		if err := x.lookAgain(ctx, []address{inside}); err != nil {
			return err
		}
	}
	err := x.program(ctx, inside, want)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EEXIST) { // others changed them a moment ago
		if err := x.lookAgain(ctx, []address{inside}, slices.Collect(maps.Keys(want))...); err != nil {
			return err
		}
		err = x.program(ctx, inside, want)
	}
	return err
}

// pins reports whether there can be a pin: inside ports with learned mappings keep their outside
// ports without.
func (m Mappings) pins(p nat.Pin) bool {
	return m.Pinned && (p.Remote.IsValid() || !addrrange.InOne(m.EndpointIndependent, p.Block.Outside))
}

// others returns the number of pins of all other subscribers.
func (x *pinKeeper) others(inside address) int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.count - len(x.pins[inside])
}

func (x *pinKeeper) doubtful() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.doubt
}

// drop takes n pins for which there is no room out of a list.
func (x *pinKeeper) drop(want map[pinKey]block, n int) {
	if suppressed, ok := x.full.Allow(time.Now()); ok {
		x.log.Warn("too many inside ports are pinned to a block: others get another outside port towards new destinations", "limit", pinnedMost, "suppressed", suppressed)
	}
	for _, p := range sortedPins(want)[len(want)-n:] {
		delete(want, p)
	}
}

// sortedPins lists the keys, those of remote endpoints first.
func sortedPins(pins map[pinKey]block) []pinKey {
	return slices.SortedFunc(maps.Keys(pins), func(a, b pinKey) int { return nat.ComparePins(a.pin(block{}), b.pin(block{})) })
}

// program changes the pins of one address, in one transaction.
func (x *pinKeeper) program(ctx context.Context, inside address, want map[pinKey]block) error {
	x.mu.Lock()
	have := x.pins[inside]
	x.mu.Unlock()
	var b wire.Batch
	x.change(&b, inside, have, want)
	if b.Empty() {
		return nil
	}
	if err := x.kernel.conn.Commit(ctx, &b); err != nil {
		return err
	}
	x.record(inside, want)
	return nil
}

// change adds to b the changes from one state of an address to another.
func (x *pinKeeper) change(b *wire.Batch, inside address, have, want map[pinKey]block) {
	table := x.kernel.options.Table
	for _, m := range pinMaps {
		differing := func(from, to map[pinKey]block) (list []pinKey) {
			for _, p := range sortedPins(from) {
				if to[p] != from[p] && p.in() == m {
					list = append(list, p)
				}
			}
			return list
		}
		gone, added := differing(have, want), differing(want, have)
		b.Elements(wire.DelElements, wire.Op{Verb: "delete element", Object: m}, table, m, len(gone),
			func(dst []byte, i int) []byte { return appendKey(dst, gone[i].key(inside)) })
		b.Elements(wire.NewElements, wire.Op{Verb: "add element", Object: m}, table, m, len(added),
			func(dst []byte, i int) []byte {
				return appendRange(appendKey(dst, added[i].key(inside)), want[added[i]])
			})
	}
}

// record takes note of the pins that an address has.
func (x *pinKeeper) record(inside address, pins map[pinKey]block) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.recordLocked(inside, pins)
}

func (x *pinKeeper) recordLocked(inside address, pins map[pinKey]block) {
	x.count += len(pins) - len(x.pins[inside])
	x.changes++
	if len(pins) == 0 {
		delete(x.pins, inside)
		return
	}
	x.pins[inside] = pins
}

// Pins lists the pins of a subscriber, in the order of nat.ComparePins.
func (x *pinKeeper) Pins(inside netip.Addr) (list []nat.Pin) {
	if !inside.Is4() {
		return nil
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	pins := x.pins[inside.As4()]
	for _, p := range sortedPins(pins) {
		list = append(list, p.pin(pins[p]))
	}
	return list
}

// Pinned lists the subscribers with pins, in order.
func (x *pinKeeper) Pinned() []netip.Addr {
	x.mu.Lock()
	defer x.mu.Unlock()
	list := make([]netip.Addr, 0, len(x.pins))
	for inside := range x.pins {
		list = append(list, inside.addr())
	}
	slices.SortFunc(list, netip.Addr.Compare)
	return list
}

// Cuts.

// endsPins reports whether the pins of an address go with a change: they are those of one
// opening of the gate, and of one outside address.
func (c change) endsPins() bool {
	return c.to.gate == nat.GateClosed || c.from.ours().gate == nat.GateClosed || c.to.outside != c.from.outside
}

// pinRemovalBytes is the size of one pin's removal.
const pinRemovalBytes = removalBytes + 12

// mark counts, in each of some changes, the pins that go with it.
func (x *pinKeeper) mark(ctx context.Context, changes []change) error {
	x.mu.Lock()
	none, doubt := len(x.pins) == 0, x.doubt
	x.mu.Unlock()
	if none {
		return nil
	}
	if doubt { // a removal of what is not there would undo the cut
		var ends []address
		for _, c := range changes {
			if c.endsPins() {
				ends = append(ends, c.inside)
			}
		}
		if err := x.lookAgain(ctx, ends); err != nil {
			return err
		}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	for i := range changes {
		if c := &changes[i]; c.endsPins() {
			c.pins = len(x.pins[c.inside])
		}
	}
	return nil
}

// programPins adds to b the removals of pins that go with some changes, see programChanges.
func (x *pinKeeper) programPins(b *wire.Batch, changes []change) (record func()) {
	for _, c := range changes {
		if c.pins > 0 {
			x.mu.Lock()
			have := x.pins[c.inside]
			x.mu.Unlock()
			x.change(b, c.inside, have, nil)
		}
	}
	return func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		for _, c := range changes {
			if c.pins > 0 {
				x.recordLocked(c.inside, nil)
				x.cut[c.inside] += c.pins
			}
		}
	}
}

// tell adds the pins that went with the gates of addresses to their receipts.
func (x *pinKeeper) tell(proofs []nat.Reaped) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for i := range proofs {
		inside := proofs[i].Inside.As4()
		proofs[i].Elements += x.cut[inside]
		delete(x.cut, inside)
	}
}

// Vacant reports whether the kernel certainly has no session of an inside address with a port
// of a block, and no learned mapping; then none begins there. It takes away the pins that lead
// to the block. Program another block for new sessions before: Vacant waits for packets that
// were past the block map by then.
func (x *pinKeeper) Vacant(ctx context.Context, inside netip.Addr, b nat.Block) (bool, error) {
	pins := x.Pins(inside)
	if rest := slices.DeleteFunc(slices.Clone(pins), func(p nat.Pin) bool { return p.Block.Overlaps(b) }); len(rest) < len(pins) {
		if err := x.SetPins(ctx, inside, rest); err != nil {
			return false, err
		}
	}
	return x.kernel.MappingTable.vacant(ctx, inside, b)
}

// Changes of others, and of earlier starts.

// start takes note of whether there is a map of pins. Its elements are unknown after a change
// of the table.
func (x *pinKeeper) start(m Mappings, changed bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !m.Pinned {
		clear(x.pins)
		x.count, x.doubt = 0, false
		return
	}
	x.doubt = x.doubt || changed
}

// suspect makes the next look compare all elements.
func (x *pinKeeper) suspect() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.doubt = true
}

// lookAgain reads the known pins of some addresses, and more of the first one, by key.
func (x *pinKeeper) lookAgain(ctx context.Context, list []address, more ...pinKey) error {
	type pin struct {
		inside address
		pinKey
	}
	var asked []pin
	x.mu.Lock()
	for _, inside := range list {
		for p := range x.pins[inside] {
			asked = append(asked, pin{inside, p})
		}
	}
	x.mu.Unlock()
	for _, p := range more { // one that is asked for twice is found twice
		asked = append(asked, pin{list[0], p})
	}
	found := map[address]map[pinKey]block{}
	k := x.kernel
	for _, m := range pinMaps {
		in := slices.DeleteFunc(slices.Clone(asked), func(p pin) bool { return p.in() != m })
		err := k.conn.Lookup(ctx, k.options.Table, m, len(in),
			func(dst []byte, i int) []byte { return appendKey(dst, in[i].key(in[i].inside)) },
			func(i int, attrs []byte) {
				if inside, p, b, ok := parsePin(attrs); ok {
					put(found, inside, p, b)
				}
			})
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	for _, inside := range list {
		x.record(inside, found[inside])
	}
	return nil
}

func put(to map[address]map[pinKey]block, inside address, p pinKey, b block) {
	if to[inside] == nil {
		to[inside] = map[pinKey]block{}
	}
	to[inside][p] = b
}

// parsePin reads an element of one of the maps.
func parsePin(attrs []byte) (inside address, p pinKey, b block, ok bool) {
	b, ok = parseRange(attrs)
	if key := parseKey(attrs); len(key) == narrowedLen {
		return address(key[4:8]), pinKey{key[0], address(key[8:12]), binary.BigEndian.Uint16(key[12:])}, b, ok
	}
	k, isKey := parsePortKey(attrs)
	return k.address, pinKey{protocol: k.protocol, port: k.port}, b, ok && isKey
}

// dump reads all pins, on a connection of its own.
func (x *pinKeeper) dump(ctx context.Context) (found map[address]map[pinKey]block, err error) {
	conn, err := wire.Dial(x.kernel.ns.FD())
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	found = map[address]map[pinKey]block{}
	for _, m := range pinMaps {
		none := func() {
			for _, pins := range found {
				maps.DeleteFunc(pins, func(p pinKey, _ block) bool { return p.in() == m })
			}
		}
		err := elements(ctx, conn, x.kernel.options.Table, m, none, func(attrs []byte) {
			if inside, p, b, ok := parsePin(attrs); ok {
				put(found, inside, p, b)
			}
		})
		if err != nil && !errors.Is(err, unix.ENOENT) { // ENOENT: others deleted the table, or the map
			return nil, err
		}
	}
	return found, nil
}

// adopt takes in the pins that an earlier start left.
func (x *pinKeeper) adopt(ctx context.Context) error {
	if !x.kernel.options.Mappings.Pinned {
		return nil
	}
	found, err := x.dump(ctx)
	if err != nil {
		return fmt.Errorf("read the pinned ports: %w", err)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	for inside, pins := range found {
		x.recordLocked(inside, pins)
	}
	x.doubt = false
	return nil
}

// pinInterval is the time between two comparisons of the number of pins with the kernel's.
const pinInterval = 30 * time.Second

// lookAtPins puts the pins right where others may have changed them. It reads them without the
// turn to program, which a cut may want.
func (x *pinKeeper) lookAtPins(ctx context.Context) error {
	if !x.isDue(ctx) {
		return nil
	}
	before := x.version()
	found, err := x.dump(ctx)
	if err == nil {
		err = x.repair(ctx, found, before)
	}
	if err != nil {
		x.suspect()
		return fmt.Errorf("put the pinned ports right: %w", err)
	}
	return nil
}

// isDue reports whether others may have changed pins, and takes that for settled: their number
// is compared now and then.
func (x *pinKeeper) isDue(ctx context.Context) bool {
	k := x.kernel
	if err := k.lock(ctx); err != nil {
		return false
	}
	defer k.unlock()
	if k.removed || !k.options.Mappings.Pinned {
		return false
	}
	if now := time.Now(); now.After(x.due) {
		x.due = now.Add(pinInterval)
		if n, err := x.countElements(ctx); err != nil || n >= 0 && n != x.others(address{}) {
			x.suspect()
		}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	due := x.doubt
	x.doubt = false
	return due
}

// countElements returns the number of elements of the maps, negative where the kernel does not
// tell it.
func (x *pinKeeper) countElements(ctx context.Context) (sum int, err error) {
	for _, m := range pinMaps {
		n, err := countElements(ctx, x.kernel.conn, x.kernel.options.Table, m)
		if err != nil || n < 0 {
			return n, err
		}
		sum += n
	}
	return sum, nil
}

// version changes with the pins.
func (x *pinKeeper) version() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.changes
}

// repair takes the pins from those found to the wanted ones, unless these have changed since
// the given version: then it is tried again.
func (x *pinKeeper) repair(ctx context.Context, found map[address]map[pinKey]block, version int) error {
	k := x.kernel
	if err := k.lock(ctx); err != nil {
		return err
	}
	defer k.unlock()
	if k.removed || !k.options.Mappings.Pinned {
		return nil
	}
	if x.version() != version {
		x.suspect()
		return nil
	}
	x.mu.Lock()
	wanted := maps.Clone(x.pins)
	x.mu.Unlock()
	var b wire.Batch
	for inside, pins := range found {
		x.change(&b, inside, pins, wanted[inside])
	}
	for inside, pins := range wanted {
		if found[inside] == nil {
			x.change(&b, inside, nil, pins)
		}
	}
	if b.Empty() {
		return nil
	}
	x.log.Warn("pinned ports were changed by others and are put right", "table", k.options.Table)
	return k.conn.Commit(ctx, &b)
}
