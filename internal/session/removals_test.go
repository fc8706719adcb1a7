package session

import (
	"testing"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// TestObserve_DEL11_SES07: everything happens as with the toggle off, and the
// removals that on would have made are counted and listed. An address that
// changes hands is still cut.
func TestObserve_DEL11_SES07(t *testing.T) {
	w := newWorld(t, testGroup)
	w.mode(inspect.RemovalObserve)
	w.send(subscriber.EventStart, alice, "a", "1")
	w.awaitState(alice, nat.Active)
	f := w.flow(alice, 4000)
	w.send(subscriber.EventStop, alice, "a", "1")
	w.awaitState(alice, nat.Draining)
	w.until("the removal to be observed", func() bool { return w.seen.observedOf(subscriber.ReasonStop) == 1 })
	if err := w.nat.Receive(f); err != nil {
		t.Errorf("the flow does not pass: %v", err)
	}
	rs := w.removalsOf((*Backend).observedRLocked)
	if len(rs) != 1 || rs[0].Kind != inspect.RemovalObserved || rs[0].Record.Inside != alice || rs[0].Record.UserName != "a" ||
		rs[0].Record.NAS != "bng-1" || rs[0].Record.AcctSessionID != "1" || rs[0].Sessions != 1 || rs[0].Since.IsZero() {
		t.Errorf("listed are %+v", rs)
	}
	w.send(subscriber.EventStart, bob, "b", "2")
	w.awaitState(bob, nat.Active)
	g := w.flow(bob, 4000)
	w.send(subscriber.EventStart, bob, "z", "3")
	w.until("the second user's binding", func() bool { return w.bindings(bob)[nat.Active].UserName == "z" })
	if w.nat.Receive(g) == nil || w.seen.observedOf(subscriber.ReasonSuperseded) != 0 {
		t.Error("a takeover was observed, and not carried out")
	}
	w.toggle(true)
	w.nothingLeft(alice)
	if w.entry(bob).Gate != nat.GateOpen {
		t.Error("who is online was cut")
	}
	w.check()
}

// TestObservedAreBounded: the newest are kept.
func TestObservedAreBounded(t *testing.T) {
	var o wouldRemove
	for i := range observedMost + 3 {
		o.add(inspect.Removal{Sessions: i})
	}
	kept := map[int]bool{}
	for _, r := range o.ring {
		kept[r.Sessions] = true
	}
	if len(o.ring) != observedMost || len(kept) != observedMost || kept[2] || !kept[3] || !kept[observedMost+2] {
		t.Errorf("%d kept", len(kept))
	}
}
