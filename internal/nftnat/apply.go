package nftnat

import (
	"context"
	"errors"
	"fmt"

	"github.com/sessiond/sessiond/internal/nftnat/wire"
)

// Entries lists what the gate and block maps hold, in order of inside address.
// It costs next to nothing while nobody else changes nftables. A table that
// others deleted is put back first.
//
// An entry that others left behind may be incomplete: a block without a gate
// is Closed, and a gate without a block has no Outside. Apply of a Closed entry
// takes away what there is.
func (k *Kernel) Entries(ctx context.Context) ([]Entry, error) {
	if err := k.take(ctx); err != nil {
		return nil, err
	}
	defer k.give()
	if err := k.adopt(ctx); err != nil {
		return nil, fmt.Errorf("read nftables table %s: %w", k.options.Table, err)
	}
	return k.shadow.entries(), nil
}

// Apply sets each inside address to the given state; of several entries for one
// address the last counts. What stands already is not touched, so it may be
// repeated. Each address changes at one instant, gate and block together. Cuts
// come before everything else and in one transaction, unless there are more
// than some 200,000 of them.
//
// If the kernel turns out not to hold what was programmed, because others
// changed or deleted the table, it is put right and Apply tried once more. An
// error means that each address has either its old or its new state.
func (k *Kernel) Apply(ctx context.Context, entries []Entry) error {
	want, err := wanted(entries)
	if err != nil {
		return err
	}
	if err := k.take(ctx); err != nil {
		return err
	}
	defer k.give()
	if k.removed {
		return errors.New("nftnat: the table was removed")
	}
	err = k.programAll(ctx, want)
	if drifted(err) {
		k.log.Warn("nftables table was changed by others, reading it again", "table", k.options.Table, "error", err)
		if err = k.adopt(ctx); err == nil {
			err = k.programAll(ctx, want)
		}
	}
	if err != nil {
		return fmt.Errorf("program nftables table %s: %w", k.options.Table, err)
	}
	return nil
}

// programAll takes the maps from what the shadow says to what is wanted.
func (k *Kernel) programAll(ctx context.Context, want shadow) error {
	changes := k.shadow.diff(want)
	var b wire.Batch
	if k.unused && len(changes) > 0 {
		dropUnused(&b, k.options.Table)
	}
	for _, part := range split(changes, k.conn.Limit()-b.Size()) {
		program(&b, k.options.Table, part)
		if err := k.commit(ctx, &b, part); err != nil {
			return err
		}
		k.unused = false
		b.Reset()
	}
	return nil
}
