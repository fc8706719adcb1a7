package nftnat

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/nftnat/wire"
	"golang.org/x/sys/unix"
)

// Apply sets each inside address to the given state; of several entries for one address the
// last counts. Elements that are as wanted are not touched, so it may be repeated. Each
// address changes at one instant, gate and block together. Cuts come before everything else
// and in one transaction, unless there are more than some 200,000 of them.
//
// If the kernel's elements turn out to differ from the known ones, because others changed or
// deleted the table, Apply puts the table right and tries once more. An error means that each
// address has either its old or its new state.
func (k *Kernel) Apply(ctx context.Context, entries []nat.Entry) error {
	list, err := wanted(entries)
	if err != nil {
		return err
	}
	if err := k.lock(ctx); err != nil {
		return err
	}
	defer k.unlock()
	if k.removed {
		return errors.New("nftnat: the table was removed")
	}
	static := wantedStatic(entries)
	err = k.programAll(ctx, list, static)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EEXIST) { // the table differs from the shadow
		k.log.Warn("nftables table was changed by others, reading it again", "table", k.options.Table, "error", err)
		for _, c := range list {
			k.known.suspect(c.inside)
		}
		k.known.unsettled, k.known.static.unknown = true, true
		k.pinKeeper.suspect()
		err = k.programAll(ctx, list, static)
	}
	if err != nil {
		return fmt.Errorf("program nftables table %s: %w", k.options.Table, err)
	}
	return nil
}

// A change takes one inside address from one cell to another.
type change struct {
	inside   address
	from, to cell
	static   uint32 // size of the change of its mappings in a batch, 0 for none
	pins     int    // pins that go with it
	closing  bool   // it enters the closing set, or leaves it
}

// wanted checks entries and turns them into changes, one for each address, in order.
func wanted(entries []nat.Entry) ([]change, error) {
	changes := make([]change, len(entries))
	inOrder := true // each address behind the one before: the usual case
	for i := range entries {
		e := &entries[i]
		if err := e.Check(); err != nil {
			return nil, err
		}
		changes[i].inside = e.Inside.As4()
		if e.Gate != nat.GateClosed {
			changes[i].to = cell{e.Gate, block{e.Outside.As4(), uint16(e.First), uint16(e.Last)}}
		}
		inOrder = inOrder && (i == 0 || changes[i-1].inside.number() < changes[i].inside.number())
	}
	if inOrder {
		return changes, nil
	}
	// Numbers of address and place are sorted instead of changes: that is stable, and takes 9
	// us instead of 58 for 300 changes.
	places := make([]uint64, len(changes))
	for i := range changes {
		places[i] = uint64(changes[i].inside.number())<<32 | uint64(i)
	}
	slices.Sort(places)
	sorted := make([]change, 0, len(changes))
	for i, p := range places {
		if i+1 == len(places) || places[i+1]>>32 != p>>32 {
			sorted = append(sorted, changes[uint32(p)])
		}
	}
	return sorted, nil
}

// programAll takes the maps from their present elements, which it looks up where they are not
// known, to the wanted ones.
func (k *Kernel) programAll(ctx context.Context, wanted []change, static map[address]nat.Forwards) error {
	if err := k.hear(ctx); err != nil {
		return err
	}
	if err := k.known.ensureStatic(ctx); err != nil {
		return err
	}
	if !k.known.exact() {
		inside := make([]netip.Addr, len(wanted))
		for i, c := range wanted {
			inside[i] = c.inside.addr()
		}
		for part := range slices.Chunk(k.known.unsureOf(nil, inside), lookChunk) {
			if _, err := k.known.lookAgain(ctx, part); err != nil {
				return err
			}
		}
	}
	if err := k.markClosing(ctx, wanted); err != nil {
		return err
	}
	changes, err := k.known.withStatic(k.known.missing(wanted), wanted, static)
	if err != nil || len(changes) == 0 {
		return err
	}
	if len(changes) <= heardChanges {
		_, err := k.programChanges(ctx, changes, static)
		return err
	}
	return k.unheard(ctx, func() (int, error) { return k.programChanges(ctx, changes, static) })
}

// missing lists those of the wanted changes that are not in force, from their present cells:
// cuts first, each part in the given order.
func (s *shadow) missing(wanted []change) []change {
	s.mu.RLock()
	defer s.mu.RUnlock()
	kept, cuts := make([]change, 0, len(wanted)), 0
	for _, c := range wanted {
		h, _ := s.cells.At(c.inside.addr())
		if c.from = h.cell; c.from != c.to || c.closing {
			kept = append(kept, c)
			if c.to == (cell{}) {
				cuts++
			}
		}
	}
	if cuts == 0 || cuts == len(kept) {
		return kept
	}
	cut := func(c change) bool { return c.to == (cell{}) }
	return slices.Concat(filter(kept, cut), slices.DeleteFunc(kept, cut))
}

// programChanges makes the changes, with those of the closing set, the static maps and the pins
// that belong to them, and returns the number of transactions. Each of these parts adds its
// operations to the batch, and returns a function that records them once they are made.
func (k *Kernel) programChanges(ctx context.Context, changes []change, static map[address]nat.Forwards) (transactions int, err error) {
	var b wire.Batch
	if k.unused {
		dropUnused(&b, k.options.Table)
	}
	if err := k.pinKeeper.mark(ctx, changes); err != nil {
		return 0, err
	}
	for _, part := range split(changes, k.conn.Limit()-b.Size()) {
		program(&b, k.options.Table, part)
		made := [...]func(){
			func() { k.known.apply(part) },
			k.programClosing(&b, part), k.known.programStatic(&b, part, static), k.programPins(&b, part),
		}
		if err := k.conn.Commit(ctx, &b); err != nil {
			return transactions, err
		}
		transactions++
		for _, record := range made {
			record()
		}
		k.unused = false
		b.Reset()
	}
	return transactions, nil
}

// apply records that the changes were made.
func (s *shadow) apply(changes []change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range changes {
		s.setLocked(c.inside, c.to)
	}
}

// Reap is as that of MappingTable. It adds to the proofs the pins that went with the gates. It
// takes the proved addresses out of the closing set, and out of the sets that limits made: with
// their gates closed, nothing puts them there again.
//
// With an error there is no receipt. What was deleted is in that of a later call.
func (k *Kernel) Reap(ctx context.Context, inside []netip.Addr) ([]nat.Reaped, error) {
	proofs, err := k.MappingTable.Reap(ctx, inside)
	if err != nil || len(proofs) == 0 {
		return nil, err
	}
	k.tell(proofs)
	err = k.reopenShortWay(ctx, proofs)
	if err == nil && k.limited.Load() {
		reaped := make([]address, len(proofs))
		for i := range proofs {
			reaped[i] = proofs[i].Inside.As4()
		}
		err = k.forgetLimits(ctx, reaped)
	}
	if err != nil {
		k.unreported.add(proofs...)
		return nil, err
	}
	k.unreported.report(proofs)
	return proofs, nil
}

// Changes as operations of a batch.

// batchFrame is room for the headers of a batch and of each of its messages.
const batchFrame = 16 << 10

// split cuts a list of changes into batches that fit the limit. All changes of
// one address are one change, so each address changes at one instant.
func split(changes []change, limit int) [][]change {
	var parts [][]change
	start, size := 0, batchFrame
	for i, c := range changes {
		if size += c.wireBytes(); size > limit && i > start {
			parts = append(parts, changes[start:i])
			start, size = i, batchFrame+c.wireBytes()
		}
	}
	if start < len(changes) {
		parts = append(parts, changes[start:])
	}
	return parts
}

// wireBytes is the largest size of a change in a batch.
func (c change) wireBytes() int {
	pins := c.pins * pinRemovalBytes
	if c.to == (cell{}) {
		return 3*removalBytes + int(c.static) + pins
	}
	return wholeBytes + int(c.static) + pins
}

// removalBytes is the size of one element's removal, wholeBytes that of the replacement of
// both elements of an address, with its removal from the closing set.
const (
	removalBytes = 20
	wholeBytes   = 4*removalBytes + 52 + 44
)

// program adds changes of the gate and block maps to b. Removals come first; an element is
// replaced by its removal and its addition, which the kernel makes visible at one instant.
func program(b *wire.Batch, table string, changes []change) {
	gates := filter(changes, func(c change) bool { return c.from.gate != c.to.gate })
	blocks := filter(changes, func(c change) bool { return c.from.block != c.to.block })

	remove := func(set string, list []change) {
		b.Elements(wire.DelElements, wire.Op{Verb: "delete element", Object: set}, table, set, len(list),
			func(dst []byte, i int) []byte { return appendKey(dst, list[i].inside[:]) })
	}
	remove(mapGate, filter(gates, func(c change) bool { return c.from.gate != nat.GateClosed }))
	remove(mapBlock, filter(blocks, func(c change) bool { return c.from.block != block{} }))

	added := filter(blocks, func(c change) bool { return c.to.block != block{} })
	b.Elements(wire.NewElements, wire.Op{Verb: "add element", Object: mapBlock}, table, mapBlock, len(added),
		func(dst []byte, i int) []byte { return appendBlock(dst, added[i].inside, added[i].to.block) })
	opened := filter(gates, func(c change) bool { return c.to.gate != nat.GateClosed })
	b.Elements(wire.NewElements, wire.Op{Verb: "add element", Object: mapGate}, table, mapGate, len(opened),
		func(dst []byte, i int) []byte { return appendGate(dst, opened[i].inside, opened[i].to.gate) })
}

// filter returns the changes to keep: the list itself if it keeps all, the usual case.
func filter(changes []change, keep func(change) bool) []change {
	n := 0
	for _, c := range changes {
		if keep(c) {
			n++
		}
	}
	switch n {
	case 0:
		return nil
	case len(changes):
		return changes
	}
	kept := make([]change, 0, n)
	for _, c := range changes {
		if keep(c) {
			kept = append(kept, c)
		}
	}
	return kept
}
