package nftnat

import (
	"context"
	"errors"
	"time"

	"github.com/sessiond/sessiond/internal/nftnat/wire"
	"golang.org/x/sys/unix"
)

// watchInterval bounds how long a table that others deleted or changed stays
// that way. `nft flush ruleset` is what a restart of the distribution's
// nftables service does.
const watchInterval = time.Second

// watch looks after the table until ctx ends.
func (k *Kernel) watch(ctx context.Context) error {
	ticker := time.NewTicker(watchInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
			if err := k.check(ctx); err != nil && ctx.Err() == nil {
				k.log.Error("nftables table or routes cannot be put right", "table", k.options.Table, "error", err)
			}
		}
	}
}

// check makes routes anew that are gone, and puts the table right if nftables
// changed in any way since it last did.
func (k *Kernel) check(ctx context.Context) error {
	if err := k.take(ctx); err != nil {
		return err
	}
	defer k.give()
	if k.removed {
		return nil
	}
	if err := k.routes.restore(k.options.OutsidePrefixes); err != nil {
		return err
	}
	generation, err := k.readGeneration(ctx)
	if err != nil || generation == k.checked {
		return err
	}
	changed, err := k.converge(ctx)
	if err != nil {
		return err
	}
	if changed {
		k.log.Warn("nftables table was changed by others and is put right", "table", k.options.Table)
	}
	k.checked = generation
	return nil
}

// readGeneration reads the number that every nftables transaction of the
// namespace counts up.
func (k *Kernel) readGeneration(ctx context.Context) (uint32, error) {
	var generation uint32
	err := k.conn.Get(ctx, wire.GetGeneration, func(dst []byte) []byte { return dst }, func(attrs []byte) {
		generation = wire.Uint32(wire.Attr(attrs, unix.NFTA_GEN_ID))
	})
	return generation, err
}

// adopt takes the elements that stand for true, then makes the rest as wanted.
// A table that is gone altogether is made anew with the elements of the shadow,
// so that nobody is cut off for that.
func (k *Kernel) adopt(ctx context.Context) error {
	standing, err := readStanding(ctx, k.conn, k.options.Table)
	if err != nil {
		return err
	}
	if standing.exists {
		if err := k.learn(ctx); err != nil {
			return err
		}
	}
	_, err = k.convergeFrom(ctx, standing)
	return err
}

// learn reads the elements that stand. The time it takes grows with the square
// of their number, for the kernel walks a set from its beginning for every 32
// KiB of a dump: so what is known to be unchanged is not read.
func (k *Kernel) learn(ctx context.Context) error {
	before, err := k.readGeneration(ctx)
	if err != nil || before == k.exact {
		return err
	}
	standing, err := readShadow(ctx, k.conn, k.options.Table)
	if err != nil {
		return err
	}
	after, err := k.readGeneration(ctx)
	if err != nil {
		return err
	}
	k.shadow, k.exact = standing, 0
	if before == after {
		k.exact = after
	}
	return nil
}

// commit commits a batch that makes the changes of elements and nothing else,
// and records them. The shadow stays exact if that was the only transaction.
func (k *Kernel) commit(ctx context.Context, b *wire.Batch, made []change) error {
	before := k.exact
	k.exact = 0
	if err := k.conn.Commit(ctx, b); err != nil {
		return err
	}
	k.shadow.apply(made)
	after, err := k.readGeneration(ctx)
	if err == nil && before != 0 && after == before+1 {
		k.exact = after
	}
	return err
}

// converge makes the table as wanted, elements of gate and block aside, and says
// whether that changed anything.
func (k *Kernel) converge(ctx context.Context) (changed bool, err error) {
	standing, err := readStanding(ctx, k.conn, k.options.Table)
	if err != nil {
		return false, err
	}
	return k.convergeFrom(ctx, standing)
}

// convergeFrom is converge from what stands, in one transaction. A table that
// has to be made gets the elements of the shadow in the same transaction, as
// far as they fit, and the others directly after.
func (k *Kernel) convergeFrom(ctx context.Context, standing *standing) (changed bool, err error) {
	r := newRuleset(k.options)
	var b wire.Batch
	fresh, err := r.plan(standing, &b)
	if standing.exists {
		k.unused = standing.unused()
	}
	if err != nil || b.Empty() {
		return false, err
	}
	if fresh {
		if k.unused = k.unused && len(k.shadow) == 0; k.unused {
			r.addSet(unusedMark, &b)
		}
	}
	k.log.Info("programming the nftables table", "table", r.table,
		"found", standing.exists, "fresh", fresh, "addresses", len(k.shadow))
	k.exact = 0
	if fresh {
		return true, k.fill(ctx, &b)
	}
	return true, k.conn.Commit(ctx, &b)
}

// fill commits b, which makes the table, and programs the whole shadow.
func (k *Kernel) fill(ctx context.Context, b *wire.Batch) error {
	all := shadow{}.diff(k.shadow)
	parts := split(all, k.conn.Limit()-b.Size())
	if len(parts) == 0 {
		return k.conn.Commit(ctx, b)
	}
	made := make(shadow, len(all))
	for _, part := range parts {
		program(b, k.options.Table, part)
		if err := k.conn.Commit(ctx, b); err != nil {
			return err
		}
		made.apply(part)
		k.shadow = made
		b.Reset()
	}
	return nil
}

// gone says that an operation failed because what it is about is not there.
func gone(err error) bool { return errors.Is(err, unix.ENOENT) }

// drifted says that an operation failed because the table is not what the
// shadow says.
func drifted(err error) bool { return gone(err) || errors.Is(err, unix.EEXIST) }
