package conntrack

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
)

// Delete ends every entry that has one of the addresses in either tuple, and
// proves it. The caller must have cut the addresses off before, or new entries
// come as old ones go.
//
// It deletes what the index knows, waits until what was under way at the cut has
// come through, and looks again: into the index if that is complete, else by
// passes through the whole table. An address is proved by the first look that
// finds none; those whose entries keep coming back are named by a *LeftError
// after a few looks and hold up nobody else. The outcomes are right with any
// error.
//
// What is left after those looks began after the first one deleted all from before.
// If nothing of it is translated but to Options.Own, it is between the address and the
// machine itself, such as the address's own packets to it, also those that a rule redirects
// there, which pass no gate and take no port: that is no session of who was cut off, and no
// hindrance.
//
// By tuple a delete takes 4.3 us, whatever the table's size; a pass takes 2.5 us
// for each entry in the table, and then deletes what it found by tuple as well.
// So a pass never pays for itself while the index is complete, not even if half
// of the table is to go.
func (t *Table) Delete(ctx context.Context, inside []netip.Addr) (map[netip.Addr]Outcome, error) {
	e, err := newEnding(inside)
	if err != nil {
		return nil, err
	}
	if len(e.pending) == 0 {
		return e.result(), nil
	}
	if err := t.flush(ctx, e); err != nil {
		return e.result(), err
	}
	if err := Settle(ctx); err != nil {
		return e.result(), err
	}
	if err = t.proveByIndex(ctx, e); !errors.Is(err, errUnproved) {
		return e.result(), err
	}
	err = t.proveByTable(ctx, e)
	return e.result(), err
}

// Flush deletes the entries of the addresses that the index knows, at the cost
// of those entries alone: the table's size does not matter. It proves nothing.
// It returns how many were deleted for each address.
func (t *Table) Flush(ctx context.Context, inside []netip.Addr) (map[netip.Addr]int, error) {
	e, err := newEnding(inside)
	if err != nil {
		return nil, err
	}
	err = t.flush(ctx, e)
	return e.tally.result(), err
}

// flush deletes the entries of the pending addresses that are known now: what comes
// meanwhile may come faster than it can be deleted.
func (t *Table) flush(ctx context.Context, e *deletion) error {
	return t.pool.with(ctx, func(c *conn) error {
		var targets []entryRef
		for addr := range e.pending {
			targets = t.index.collect(targets, addr, math.MaxInt)
			if len(targets) < deletesPerBatch {
				continue
			}
			if err := t.deleteTargets(c, targets, e); err != nil {
				return err
			}
			targets = targets[:0]
		}
		return t.deleteTargets(c, targets, e)
	})
}

// DeleteEntry deletes one entry as a dump has shown it. An entry that is gone,
// or replaced by another on the same tuple, is no error.
func (t *Table) DeleteEntry(ctx context.Context, entry Entry) error {
	var f flow
	if !f.fromEntry(entry) {
		return fmt.Errorf("delete conntrack entry %v: not IPv4", entry.Orig)
	}
	targets := []entryRef{t.index.target(&f, insideAddrs{})}
	return t.pool.with(ctx, func(c *conn) error {
		deleted, gone, refused, err := c.delete(targets)
		t.index.forget(deleted)
		t.index.forget(gone)
		if err == nil && refused != 0 {
			err = refused
		}
		return err
	})
}

// deleteTargets deletes, counts and forgets. That
// the kernel refuses some (EBUSY: offloaded) is no error: whether they matter is
// for the proof to say.
func (t *Table) deleteTargets(c *conn, targets []entryRef, e *deletion) error {
	for len(targets) > 0 {
		part := targets[:min(len(targets), deletesPerBatch)]
		targets = targets[len(part):]
		deleted, gone, refused, err := c.delete(part)
		if err != nil {
			return err
		}
		t.index.forget(deleted)
		t.index.forget(gone)
		e.tally.add(deleted)
		if refused != 0 {
			e.refused = refused
		}
	}
	return nil
}
