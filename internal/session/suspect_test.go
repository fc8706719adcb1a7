package session

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// TestStopBeforeLossIsNoticed_I6: the database is emptied, and a Stop comes
// before the loss is noticed. That session must still end, long before the next
// reconcile is due.
func TestStopBeforeLossIsNoticed_I6(t *testing.T) {
	w := newWorld(t, testGroup)
	w.send(subscriber.EventStart, alice, "a", "1")
	w.send(subscriber.EventStart, bob, "b", "1b")
	w.awaitState(alice, nat.Active)
	w.awaitState(bob, nat.Active)
	w.flow(alice, 4000)
	w.flow(bob, 4000)
	if err := w.client.FlushAll(context.Background()).Err(); err != nil {
		t.Fatal(err)
	}
	w.send(subscriber.EventStop, alice, "a", "1")
	w.nothingLeft(alice)
	if b := w.bindings(bob)[nat.Active]; b.Sessions != 1 {
		t.Errorf("bob has %+v, want his session untouched", b)
	}
}

// TestHoldOutlivesDatabase_NAT30: no subscriber is online, a block is in its
// hold, and sessiond and the database's data go together. No other subscriber
// may get the block before its hold is over.
func TestHoldOutlivesDatabase_NAT30(t *testing.T) {
	g := testGroup
	g.Outside = []netip.Prefix{netip.MustParsePrefix("198.51.100.7/32")}
	g.FirstPort, g.LastPort, g.Hold = 1024, 1535, time.Second // one block
	w := newWorld(t, g)
	w.send(subscriber.EventStart, alice, "a", "1")
	w.awaitState(alice, nat.Active)
	w.send(subscriber.EventStop, alice, "a", "1")
	held := w.awaitState(alice, nat.Held)
	w.halt()
	if err := w.client.FlushAll(context.Background()).Err(); err != nil {
		t.Fatal(err)
	}
	w.boot()
	w.send(subscriber.EventStart, bob, "b", "2")
	if got := w.awaitState(bob, nat.Active); got.AllocatedAt.Before(held.HoldUntil) {
		t.Errorf("given at %v, hold ends %v", got.AllocatedAt, held.HoldUntil)
	}
}
