package nftnat

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/nftnat/wire"
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
	err = k.programAll(ctx, list)
	if drifted(err) {
		k.log.Warn("nftables table was changed by others, reading it again", "table", k.options.Table, "error", err)
		for _, c := range list {
			k.known.suspect(c.inside)
		}
		k.known.unsettled = true
		err = k.programAll(ctx, list)
	}
	if err != nil {
		return fmt.Errorf("program nftables table %s: %w", k.options.Table, err)
	}
	return nil
}

// programAll takes the maps from their present elements to the wanted ones.
func (k *Kernel) programAll(ctx context.Context, wanted []change) error {
	if err := k.hear(ctx); err != nil {
		return err
	}
	if err := k.known.learnCells(ctx, wanted); err != nil {
		return err
	}
	changes := k.known.missing(wanted)
	if len(changes) == 0 {
		return nil
	}
	if len(changes) <= heardChanges {
		_, err := k.programChanges(ctx, changes)
		return err
	}
	return k.unheard(ctx, func() (int, error) { return k.programChanges(ctx, changes) })
}

// learnCells looks up the addresses whose elements are not known.
func (k *knownElements) learnCells(ctx context.Context, wanted []change) error {
	if k.shadow.exact() {
		return nil
	}
	inside := make([]netip.Addr, len(wanted))
	for i, c := range wanted {
		inside[i] = c.inside.addr()
	}
	for part := range slices.Chunk(k.shadow.unsureOf(nil, inside), lookChunk) {
		if _, err := k.lookAgain(ctx, part); err != nil {
			return err
		}
	}
	return nil
}

// programChanges makes the changes and returns the number of transactions.
func (k *Kernel) programChanges(ctx context.Context, changes []change) (transactions int, err error) {
	var b wire.Batch
	if k.unused {
		dropUnused(&b, k.options.Table)
	}
	for _, part := range split(changes, k.conn.Limit()-b.Size()) {
		program(&b, k.options.Table, part)
		if err := k.conn.Commit(ctx, &b); err != nil {
			return transactions, err
		}
		transactions++
		k.known.apply(part)
		k.unused = false
		b.Reset()
	}
	return transactions, nil
}
