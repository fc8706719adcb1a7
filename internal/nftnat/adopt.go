package nftnat

import (
	"context"
	"errors"
	"net/netip"
	"slices"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/nftnat/wire"
	"golang.org/x/sys/unix"
)

// converge makes the table as wanted, except the elements of gate and block, and reports
// whether it changed anything. A table that is missing, or has to be made anew, gets the
// elements of the shadow, so that no subscriber is cut off.
func (k *Kernel) converge(ctx context.Context) (changed bool, err error) {
	actual, err := readActual(ctx, k.conn, k.options.Table)
	if err != nil {
		return false, err
	}
	return k.convergeFrom(ctx, actual)
}

// convergeFrom is converge from the given state of the kernel.
func (k *Kernel) convergeFrom(ctx context.Context, actual *actualRuleset) (changed bool, err error) {
	k.setDefaults()
	if err := k.listDevices(); err != nil {
		return false, err
	}
	k.dropCounts.note(actual.counters)
	k.known.used.start(k.options.Mappings, longestMapping(k.options))
	defer func() { k.pinKeeper.start(k.options.Mappings, changed) }()
	r := newRuleset(k.options)
	r.counters = k.dropCounts.counters()
	var b wire.Batch
	fresh, err := r.plan(actual, &b)
	_, kept := actual.sets[mapStaticIn]
	if _, both := actual.sets[mapStaticOut]; !both {
		kept = false
	}
	on := hasStatic(&k.options)
	if actual.exists {
		k.unused = actual.unused()
	}
	if err != nil {
		return false, err
	}
	if !fresh {
		if b.Empty() {
			k.known.converged(on, kept, false)
			return false, k.known.identify(ctx)
		}
		k.logProgramming(actual, fresh)
		err := k.conn.Commit(ctx, &b)
		if err == nil {
			k.known.converged(on, kept, false)
			return true, k.known.identify(ctx)
		}
		if !errors.Is(err, unix.EBUSY) {
			return false, err
		}
		// A map of others, or an element that they put into ours, leads to a chain of theirs,
		// which therefore cannot be deleted.
		if err := r.anew(&b); err != nil {
			return false, err
		}
	}
	if actual.exists && !k.known.exact() {
		if err := k.known.salvage(ctx); err != nil {
			return false, err
		}
	}
	if k.unused = k.unused && k.known.len() == 0; k.unused {
		r.addSet(unusedMark, &b)
	}
	k.known.converged(on, kept, true)
	k.logProgramming(actual, true)
	if err := k.unheard(ctx, func() (int, error) { return k.fillAll(ctx, &b) }); err != nil {
		return true, err
	}
	k.known.identity, _, err = k.known.readIdentity(ctx)
	return true, err
}

// salvage reads all elements of a table that has to be made anew, such as one of another
// version of sessiond. A missing map, or one with other contents, yields none.
func (k *knownElements) salvage(ctx context.Context) error {
	gates, blocks := make(map[address]nat.Gate), make(map[address]block)
	err := errors.Join(
		elements(ctx, k.conn, k.table, mapGate, func() { clear(gates) }, func(attrs []byte) {
			if inside, g, ok := parseGate(attrs); ok && g != foreign {
				gates[inside] = g
			}
		}),
		elements(ctx, k.conn, k.table, mapBlock, func() { clear(blocks) }, func(attrs []byte) {
			if inside, b, ok := parseBlock(attrs); ok {
				blocks[inside] = b
			}
		}),
	)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	k.shadow.reset(true)
	for inside, g := range gates {
		k.shadow.set(inside, cell{gate: g})
	}
	for inside, b := range blocks {
		k.shadow.set(inside, cell{k.shadow.at(inside).gate, b})
	}
	return nil
}

func (k *Kernel) logProgramming(actual *actualRuleset, fresh bool) {
	k.log.Info("programming the nftables table", "table", k.options.Table,
		"found", actual.exists, "fresh", fresh, "addresses", k.known.len())
}

// identify records the identity of the present table. The elements of a table that another
// program made are unknown.
func (k *knownElements) identify(ctx context.Context) error {
	id, _, err := k.readIdentity(ctx)
	if err != nil || id == k.identity {
		return err
	}
	if k.identity != (identity{}) {
		k.doubt("the table was made anew by others")
	}
	k.identity = id
	return nil
}

// liveBatch is the size of the first transactions of a table that is made anew, in octets of
// elements: some 2,000 addresses, or 20 ms.
const liveBatch = 300 << 10

// fillAll commits b, which makes the table, and programs the whole shadow. It returns the
// number of transactions.
func (k *Kernel) fillAll(ctx context.Context, b *wire.Batch) (transactions int, err error) {
	if transactions, err = k.putBack(ctx, b, lostMaps{gate: true, block: true}); err != nil {
		return transactions, k.notFilled(transactions, err)
	}
	more, err := k.fillStatic(ctx)
	if transactions += more; err != nil {
		return transactions, k.notFilled(transactions, err)
	}
	k.known.settled()
	k.known.search.reset()
	return transactions, nil
}

// lostMaps names the maps that have no elements.
type lostMaps struct{ gate, block bool }

// putBack commits b and programs the shadow's elements of the lost maps. A small shadow comes
// in the same transaction. Otherwise addresses with flows come first, in small transactions,
// for their packets are being dropped.
func (k *Kernel) putBack(ctx context.Context, b *wire.Batch, lost lostMaps) (transactions int, err error) {
	var live []netip.Addr
	if k.known.len()*wholeBytes >= liveBatch {
		live = k.flows.Addresses()
	}
	for part := range slices.Chunk(live, liveBatch/wholeBytes) {
		n, err := k.fillWith(ctx, b, lost.of(k.known.fillAt(part)))
		if transactions += n; err != nil {
			return transactions, err
		}
	}
	var made []change
	others := butFor(live)
	for from, more := (netip.Addr{}), true; more; more = from.IsValid() {
		made, from = k.known.fillFrom(made[:0], from, others, k.conn.Limit()-b.Size())
		n, err := k.fillWith(ctx, b, lost.of(made))
		if transactions += n; err != nil {
			return transactions, err
		}
	}
	return transactions, nil
}

// fillAt lists the changes that make the cells of some addresses in empty maps.
func (s *shadow) fillAt(list []netip.Addr) []change {
	s.mu.RLock()
	defer s.mu.RUnlock()
	made := make([]change, 0, len(list))
	for _, inside := range list {
		if h, ok := s.cells.At(inside); ok && h.ours() != (cell{}) {
			made = append(made, change{inside: inside.As4(), to: h.ours()})
		}
	}
	return made
}

// fillFrom appends to dst the changes that make cells in empty maps, for the addresses that
// who accepts: in order from an address on, and as many as fit a limit of bytes. It returns
// the address to go on with, the zero address at the end.
func (s *shadow) fillFrom(dst []change, from netip.Addr, who func(netip.Addr) bool, limit int) ([]change, netip.Addr) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	size := batchFrame
	for inside, h := range s.cells.From(from) {
		if h.ours() == (cell{}) || !who(inside) {
			continue
		}
		c := change{inside: inside.As4(), to: h.ours()}
		if size += c.wireBytes(); size > limit && len(dst) > 0 {
			return dst, inside
		}
		dst = append(dst, c)
	}
	return dst, netip.Addr{}
}

// of reduces changes that make whole cells to the elements of the lost maps.
func (l lostMaps) of(made []change) []change {
	for i := range made {
		if !l.gate {
			made[i].from.gate = made[i].to.gate
		}
		if !l.block {
			made[i].from.block = made[i].to.block
		}
	}
	return made
}

// refill puts back the elements of maps that others flushed, in the manner of a deleted table:
// meanwhile all subscribers are offline. Unknown addresses stay in doubt.
func (k *Kernel) refill(ctx context.Context) error {
	gates, blocks := k.known.sizes()
	var lost lostMaps
	for _, m := range []struct {
		name  string
		known int
		lost  *bool
	}{{mapGate, gates, &lost.gate}, {mapBlock, blocks, &lost.block}} {
		if m.known == 0 {
			continue
		}
		var err error
		if *m.lost, err = k.known.isEmpty(ctx, m.name); err != nil {
			return err
		}
	}
	if lost == (lostMaps{}) {
		return nil
	}
	k.log.Warn("nftables maps were flushed by others and are filled anew", "table", k.options.Table, "gate", lost.gate, "block", lost.block)
	return k.unheard(ctx, func() (int, error) { return k.putBack(ctx, new(wire.Batch), lost) })
}

// fillWith commits b with some more elements, and empties it.
func (k *Kernel) fillWith(ctx context.Context, b *wire.Batch, made []change) (transactions int, err error) {
	program(b, k.options.Table, made)
	if b.Empty() {
		return 0, nil
	}
	if err := k.conn.Commit(ctx, b); err != nil {
		return 0, err
	}
	b.Reset()
	return 1, nil
}

// butFor returns a function that reports whether an address is missing from list. Both the
// list and the calls must be in order of address.
func butFor(list []netip.Addr) func(netip.Addr) bool {
	return func(inside netip.Addr) bool {
		for len(list) > 0 && list[0].Less(inside) {
			list = list[1:]
		}
		return len(list) == 0 || list[0] != inside
	}
}

// notFilled puts the elements in doubt, unless nothing was done: the table has some of them,
// and the verification finds out which.
func (k *Kernel) notFilled(transactions int, err error) error {
	if transactions > 0 {
		k.known.doubt("the elements could not be put back: " + err.Error())
	}
	return err
}
