package session

import (
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// inUTC makes receipts comparable.
func inUTC(r nat.Receipt) nat.Receipt {
	for _, at := range []*time.Time{&r.CutAt, &r.ReapedAt, &r.ReleasedAt} {
		*at = at.Round(0).UTC()
	}
	return r
}

// TestReceipt_DEL01_I7: a held binding has the receipt of its teardown, also after a
// restart.
func TestReceipt_DEL01_I7(t *testing.T) {
	g := testGroup
	g.Hold = time.Minute
	w := newWorld(t, g)
	w.send(subscriber.EventStart, alice, "a", "1")
	if b := w.awaitState(alice, nat.Active); b.Receipt != nil {
		t.Errorf("an active binding has the receipt %+v", b.Receipt)
	}
	w.flow(alice, 4000)
	w.flow(alice, 4001)
	w.send(subscriber.EventStop, alice, "a", "1")
	held := w.awaitState(alice, nat.Held)
	r := held.Receipt
	if r == nil {
		t.Fatal("no receipt")
	}
	if r.Elements != 2 || r.Deleted != 2 || r.Proof != nat.ProofIndex {
		t.Errorf("receipt %+v", r)
	}
	if r.CutAt.IsZero() || r.CutAt.After(r.ReapedAt) || r.ReapedAt.After(r.ReleasedAt) || held.HoldUntil.Before(r.ReleasedAt) {
		t.Errorf("held until %v, steps out of order: %+v", held.HoldUntil, r)
	}
	w.until("the receipt to be stored", func() bool {
		w.mu.RLock()
		defer w.mu.RUnlock()
		return w.life.Writes().Len() == 0
	})
	w.halt()
	w.boot()
	if again := w.awaitState(alice, nat.Held).Receipt; again == nil || inUTC(*again) != inUTC(*r) {
		t.Errorf("after the restart %+v, before %+v", again, r)
	}
	w.send(subscriber.EventStart, alice, "a", "2")
	if b := w.awaitState(alice, nat.Active); b.Block != held.Block || b.Receipt != nil {
		t.Errorf("the next lease is %+v", b)
	}
}
