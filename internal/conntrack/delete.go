package conntrack

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"

	"github.com/sessiond/sessiond/internal/cpubarrier"
)

// Delete deletes every entry that has one of the addresses in either tuple, and proves that
// none is left. The caller must have cut the addresses off before, or new entries come as
// old ones go.
//
// It deletes the known entries, waits until the packets in flight at the cut are through,
// and looks again: into the index if that is complete, else by passes through the whole
// table. An address is proved by the first look that finds none. Addresses whose entries
// keep coming back after a few looks are named by a *RemainingError and do not delay the
// others. The outcomes are right with any error.
//
// Entries found after the first look began after it, because that look deleted all from
// before. If they are all portless, they are between the address and the machine itself
// (Options.Own). Examples are the address's own packets to it, and packets that a rule
// redirects to it. Such packets pass no gate and take no port, so these entries do not
// prevent the proof.
//
// A delete by tuple takes 4.3 us for any size of the table. A pass takes 2.5 us
// for each entry in the table, and then deletes by tuple as well. So a pass
// never pays for itself while the index is complete, not even if half of the
// table has to be deleted.
func (t *Table) Delete(ctx context.Context, inside []netip.Addr) (map[netip.Addr]Outcome, error) {
	e, err := newDeletion(inside)
	if err != nil {
		return nil, err
	}
	if len(e.pending) == 0 {
		return e.result(), nil
	}
	if err := t.flush(ctx, e); err != nil {
		return e.result(), err
	}
	if err := cpubarrier.Wait(ctx); err != nil {
		return e.result(), err
	}
	if err = t.proveByIndex(ctx, e); !errors.Is(err, errUnproved) {
		return e.result(), err
	}
	err = t.proveByTable(ctx, e)
	return e.result(), err
}

// Flush deletes the entries of the addresses that the index knows, at the cost of those
// entries alone: the table's size does not matter. It proves nothing. It returns the number
// of deleted entries of each address.
func (t *Table) Flush(ctx context.Context, inside []netip.Addr) (map[netip.Addr]int, error) {
	e, err := newDeletion(inside)
	if err != nil {
		return nil, err
	}
	err = t.flush(ctx, e)
	return e.tally.result(), err
}

// flush deletes the known entries of the pending addresses once. It does not repeat,
// because new entries may come faster than it deletes.
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

// DeleteEntry deletes one entry that a dump has shown. It is no error if the entry is gone
// or replaced by another on the same tuple.
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

// deleteTargets deletes entries, counts them and removes them from the index. A refusal by
// the kernel (EBUSY: offloaded) is no error here: the proof finds the entries that are
// left.
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
