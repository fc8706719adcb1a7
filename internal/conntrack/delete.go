package conntrack

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"time"

	"github.com/sessiond/sessiond/internal/addrrange"
	"github.com/sessiond/sessiond/internal/cpubarrier"
	"github.com/sessiond/sessiond/internal/nat"
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

// Outcome is the result of a delete for one address.
type Outcome struct {
	Deleted int       // entries deleted; one with two of the addresses counts for both
	Proof   nat.Proof // NotProved when entries were left
	At      time.Time // when the proof found none left; zero without a proof
}

// deletion is the state of one Delete.
type deletion struct {
	asked   askedAddrs
	pending askedAddrs     // of the asked addresses, those without a proof
	deleted map[uint32]int // entries, by asked address
	proved  map[uint32]Outcome
	refused error // the kernel's last refusal, or nil
}

func newDeletion(addrs []netip.Addr) (*deletion, error) {
	asked, err := newAsked(addrs)
	return &deletion{
		asked: asked, pending: maps.Clone(asked), deleted: make(map[uint32]int, len(asked)), proved: make(map[uint32]Outcome),
	}, err
}

// flush deletes the known entries of the pending addresses once. It does not repeat,
// because new entries may come faster than it deletes.
func (t *Table) flush(ctx context.Context, e *deletion) error {
	return t.pool.with(ctx, func(c *conn) error {
		var targets []entryRef
		for addr := range e.pending {
			targets = t.index.collect(targets, addr)
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
		e.count(deleted, e.deleted)
		if refused != 0 {
			e.refused = refused
		}
	}
	return nil
}

// The proof by the index.

// indexLooks is the number of looks into the index, with deletes in between. The first look
// already comes after every event from before the cut.
const indexLooks = 3

// errUnproved reports that the index is incomplete and proves nothing.
var errUnproved = errors.New("the conntrack index is not complete")

// proveByIndex checks the index until the pending addresses have no entry there. It
// returns errUnproved when the index is or becomes incomplete.
func (t *Table) proveByIndex(ctx context.Context, e *deletion) error {
	for look := 1; ; look++ {
		if err := t.syncIndex(ctx, e.pending); err != nil {
			return err
		}
		none, ok := t.index.empty(e.pending)
		e.prove(none, nat.ProofIndex)
		if ok && look > 1 && e.refused == nil {
			e.prove(t.index.plain(e.pending), nat.ProofIndex)
		}
		switch {
		case len(e.pending) == 0:
			return nil
		case !ok:
			return errUnproved
		case look == indexLooks:
			return &RemainingError{Left: t.index.left(e.pending), Err: e.refused}
		}
		t.learnOwn()
		if err := t.flush(ctx, e); err != nil {
			return err
		}
	}
}

// syncIndex brings the index up to now: it has every entry of the addresses that has begun
// so far. It returns errUnproved when that cannot be known.
func (t *Table) syncIndex(ctx context.Context, addrs askedAddrs) error {
	if !t.index.covers(addrs) || !t.heedEvents() {
		return errUnproved
	}
	switch err := t.listener.catchUp(ctx); {
	case errors.Is(err, errBehind):
		return errUnproved
	case err != nil:
		return fmt.Errorf("catch up with conntrack events: %w", err)
	}
	if !t.index.covers(addrs) { // events were lost meanwhile
		return errUnproved
	}
	return nil
}

// The result.

// prove records a proof for pending addresses.
func (e *deletion) prove(addrs []uint32, by nat.Proof) {
	now := time.Now()
	for _, addr := range addrs {
		e.proved[addr] = Outcome{Proof: by, At: now}
		delete(e.pending, addr)
	}
}

func (e *deletion) result() map[netip.Addr]Outcome {
	result := make(map[netip.Addr]Outcome, len(e.asked))
	for addr := range e.asked {
		o := e.proved[addr]
		o.Deleted = e.deleted[addr]
		result[addrrange.Address(addr)] = o
	}
	return result
}

// count adds entries to the counts of the asked addresses that they have.
func (e *deletion) count(entries []entryRef, to map[uint32]int) {
	for i := range entries {
		for _, addr := range entries[i].owners.list() {
			if e.asked.Contains(addr) {
				to[addr]++
			}
		}
	}
}

// RemainingError reports entries that were still there after the last try to delete them,
// because new ones kept coming.
type RemainingError struct {
	Left map[netip.Addr]int // entries by inside address
	Err  error              // the kernel's last refusal, or nil
}

func (e *RemainingError) Error() string {
	entries := 0
	example := netip.Addr{}
	for addr, n := range e.Left {
		entries += n
		if !example.IsValid() || addr.Less(example) {
			example = addr
		}
	}
	text := fmt.Sprintf("%d conntrack entries of %d addresses are left, %d of them of %v",
		entries, len(e.Left), e.Left[example], example)
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

// Unwrap returns the kernel's error.
func (e *RemainingError) Unwrap() error { return e.Err }

// Deletes without a proof.

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
