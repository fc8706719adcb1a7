package conntrack

import (
	"context"
	"errors"
	"fmt"

	"github.com/sessiond/sessiond/internal/nat"
)

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
	if !t.index.isComplete() || !t.index.covers(addrs) || !t.heedEvents() {
		return errUnproved
	}
	switch err := t.listener.catchUp(ctx); {
	case errors.Is(err, errBehind):
		return errUnproved
	case err != nil:
		return fmt.Errorf("catch up with conntrack events: %w", err)
	}
	if !t.index.isComplete() {
		return errUnproved
	}
	return nil
}
