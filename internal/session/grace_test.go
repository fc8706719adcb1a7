package session

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/lsn"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/nftnat"
	"github.com/sessiond/sessiond/internal/nftnat/memnat"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb"
)

// Acct-Terminate-Causes of RFC 2866 section 5.10.
const (
	userRequest = 1
	lostCarrier = 2
)

// graceGroup returns a group that grants a grace time after a lost carrier.
func graceGroup(grace time.Duration) lsn.GroupConfig {
	g := testGroup
	g.Grace, g.GraceCauses = grace, []uint32{lostCarrier}
	return g
}

// hangUp records the Stop of a session with its Acct-Terminate-Cause.
func (w *world) hangUp(inside netip.Addr, user, id string, cause uint32) {
	w.t.Helper()
	ev := subscriber.Event{
		Kind: subscriber.EventStop, Inside: inside, UserName: user, At: time.Now(), SessionTime: -1, TerminateCause: cause,
		SessionID: subscriber.SessionID{Client: "bng1", NAS: "bng-1", AcctSessionID: id},
	}
	for _, err := range w.db.Record(context.Background(), []subscriber.Event{ev}) {
		if err != nil {
			w.t.Fatal(err)
		}
	}
}

// inGrace brings alice online with a live flow, and ends her session with a
// lost carrier.
func (w *world) inGrace() (nftnat.Session, inspect.Binding) {
	w.t.Helper()
	w.send(subscriber.EventStart, alice, "a", "1")
	w.awaitState(alice, nat.Active)
	f := w.flow(alice, 4000)
	w.hangUp(alice, "a", "1", lostCarrier)
	w.until("the gate to be narrowed", func() bool { return w.entry(alice).Gate == nat.GateDraining })
	return f, w.awaitState(alice, nat.Draining)
}

// back requires that alice has her former block and flow, in session id.
func (w *world) back(f nftnat.Session, before inspect.Binding, id string) {
	w.t.Helper()
	now := w.awaitState(alice, nat.Active)
	if now.Block != before.Block || now.AcctSessionID != id || !now.GraceUntil.IsZero() || !now.ReleasedAt.IsZero() {
		w.t.Errorf("came back to %+v, had %+v", now, before)
	}
	if err := w.nat.Receive(f); err != nil {
		w.t.Errorf("the flow did not survive: %v", err)
	}
	w.flow(alice, 4001)
	w.until("the binding to be stored", func() bool { return w.Quiet(context.Background()) == nil })
	row := w.stored(alice)
	if row.AcctSessionID != id || !row.GraceUntil.IsZero() {
		w.t.Errorf("stored is %+v", row)
	}
	w.check()
}

// stored returns the live binding of an address in the database.
func (w *world) stored(inside netip.Addr) nat.Binding {
	w.t.Helper()
	var found nat.Binding
	err := w.db.BindingRows(context.Background(), w.group.Name, func(rows []subscriberdb.BindingRow) error {
		for i := range rows {
			if b, ok := rows[i].Binding(); ok && b.Inside == inside && b.State != nat.Held {
				found = b
			}
		}
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return found
}

// TestGrace_SES08: a subscriber that comes back within its grace time keeps its
// live flows, with any session id and toggle. Meanwhile no new flow begins.
func TestGrace_SES08(t *testing.T) {
	for _, mode := range []inspect.RemovalMode{inspect.RemovalOn, inspect.RemovalOff, inspect.RemovalObserve} {
		t.Run(mode.String(), func(t *testing.T) {
			w := newWorld(t, graceGroup(time.Minute))
			w.mode(mode)
			f, b := w.inGrace()
			if left := time.Until(b.GraceUntil); left < 50*time.Second || left > time.Minute {
				t.Errorf("grace until %v", b.GraceUntil)
			}
			if err := w.nat.Receive(f); err != nil {
				t.Errorf("the flow does not pass: %v", err)
			}
			if _, err := w.nat.Send(unix.IPPROTO_UDP, netip.AddrPortFrom(alice, 4001), remote); !errors.Is(err, memnat.ErrDropped) {
				t.Errorf("a new session: %v, want dropped", err)
			}
			if rs := w.removalsOf((*Backend).graceRLocked); len(rs) != 1 || rs[0].Kind != inspect.RemovalGrace ||
				rs[0].Record.UserName != "a" || rs[0].Record.NAS != "bng-1" || rs[0].Sessions != 1 || !rs[0].DueAt.Equal(b.GraceUntil) {
				t.Errorf("listed are %+v", rs)
			}
			w.send(subscriber.EventStart, alice, "a", "2")
			w.back(f, b, "2")
			if rs := w.removalsOf((*Backend).graceRLocked); len(rs) != 0 {
				t.Errorf("still listed are %+v", rs)
			}
			if n := w.seen.of(subscriber.ReasonStop) + w.seen.observedOf(subscriber.ReasonStop); n != 0 {
				t.Errorf("%d removals were counted", n)
			}
			w.hangUp(alice, "a", "2", userRequest)
			if mode == inspect.RemovalOn {
				w.nothingLeft(alice)
			}
		})
	}
}

func (w *world) removalsOf(list func(*Backend, *removalPage)) []inspect.Removal {
	w.mu.RLock()
	defer w.mu.RUnlock()
	p := removalPage{limit: 100}
	list(w.Backend, &p)
	rs, _ := p.cut()
	return rs
}

// TestGraceStopAndStartAtOnce_SES08: the Start may arrive before the gate was
// narrowed.
func TestGraceStopAndStartAtOnce_SES08(t *testing.T) {
	w := newWorld(t, graceGroup(time.Minute))
	w.send(subscriber.EventStart, alice, "a", "1")
	b := w.awaitState(alice, nat.Active)
	f := w.flow(alice, 4000)
	for i, ids := 0, "123456789"; i+1 < len(ids); i++ {
		w.hangUp(alice, "a", ids[i:i+1], lostCarrier)
		w.send(subscriber.EventStart, alice, "a", ids[i+1:i+2])
	}
	w.until("the last session's binding", func() bool { return w.bindings(alice)[nat.Active].AcctSessionID == "9" })
	w.back(f, b, "9")
}

// TestGraceStranger_SES07: another subscriber at the address inherits nothing.
func TestGraceStranger_SES07(t *testing.T) {
	w := newWorld(t, graceGroup(time.Minute))
	f, b := w.inGrace()
	w.send(subscriber.EventStart, alice, "z", "2")
	w.until("the stranger's binding", func() bool { return w.bindings(alice)[nat.Active].UserName == "z" })
	if now := w.bindings(alice)[nat.Active]; now.Block == b.Block {
		t.Errorf("the stranger got %+v", now)
	}
	if err := w.nat.Receive(f); err == nil {
		t.Error("the flow lives on")
	}
	w.check()
}

// TestGraceNameless_SES07: a subscriber without User-Name cannot be recognized, and
// gets no grace time.
func TestGraceNameless_SES07(t *testing.T) {
	w := newWorld(t, graceGroup(time.Minute))
	w.send(subscriber.EventStart, alice, "", "1")
	w.awaitState(alice, nat.Active)
	w.flow(alice, 4000)
	w.hangUp(alice, "", "1", lostCarrier)
	w.nothingLeft(alice)
}

// TestGraceOver_DEL01_DEL11: after the grace time the removal proceeds as without one.
func TestGraceOver_DEL01_DEL11(t *testing.T) {
	for _, mode := range []inspect.RemovalMode{inspect.RemovalOn, inspect.RemovalOff, inspect.RemovalObserve} {
		t.Run(mode.String(), func(t *testing.T) {
			w := newWorld(t, graceGroup(300*time.Millisecond))
			w.mode(mode)
			f, b := w.inGrace()
			if mode == inspect.RemovalOn {
				w.nothingLeft(alice)
				if time.Now().Before(b.GraceUntil) {
					t.Error("cut before the grace time was over")
				}
				w.until("the removal to be counted", func() bool { return w.seen.of(subscriber.ReasonStop) == 1 })
				return
			}
			w.until("the grace time to be over", func() bool { return w.bindings(alice)[nat.Draining].GraceUntil.IsZero() })
			if err := w.nat.Receive(f); err != nil {
				t.Errorf("the flow does not pass: %v", err)
			}
			if n := w.seen.observedOf(subscriber.ReasonStop); (n == 1) != (mode == inspect.RemovalObserve) {
				t.Errorf("%d observed removals", n)
			}
			w.until("it to be stored", func() bool { return w.stored(alice).GraceUntil.IsZero() })
			w.nat.Expire(f)
			w.nothingLeft(alice)
			w.check()
		})
	}
}

// TestGraceOnlyForItsCauses_DEL01_DEL08: all other ends remove at once.
func TestGraceOnlyForItsCauses_DEL01_DEL08(t *testing.T) {
	w := newWorld(t, graceGroup(time.Minute))
	for id, end := range map[string]func(id string){
		"no cause":     func(id string) { w.hangUp(alice, "a", id, 0) },
		"User-Request": func(id string) { w.hangUp(alice, "a", id, userRequest) },
		"admin": func(string) {
			if _, err := w.Delete(context.Background(), inspect.SubscriberFilter{Inside: netip.PrefixFrom(alice, 32)}); err != nil {
				t.Fatal(err)
			}
		},
		"DEL": func(string) { w.client.Del(context.Background(), "sessiond:{default}:sub:"+alice.String()) },
	} {
		w.send(subscriber.EventStart, alice, "a", id)
		w.awaitState(alice, nat.Active)
		w.flow(alice, 4000)
		end(id)
		w.nothingLeft(alice)
		w.until("the teardown to be over", func() bool { return len(w.bindings(alice)) == 0 })
	}
}

// TestGraceOtherAddress_SES09: a session of the subscriber at another address does
// not end its grace time here.
func TestGraceOtherAddress_SES09(t *testing.T) {
	w := newWorld(t, graceGroup(400*time.Millisecond))
	f, before := w.inGrace()
	w.send(subscriber.EventStart, bob, "a", "2")
	if now := w.awaitState(bob, nat.Active); now.Block == before.Block {
		t.Errorf("two addresses have %+v", now)
	}
	if err := w.nat.Receive(f); err != nil && time.Now().Before(before.GraceUntil) {
		t.Errorf("the flow does not pass: %v", err)
	}
	w.nothingLeft(alice)
	if w.entry(bob).Gate != nat.GateOpen {
		t.Error("the other address was cut with it")
	}
}

// TestToggleOnSparesGrace_DEL11: switched on, the toggle cuts draining slots, except
// those in their grace time.
func TestToggleOnSparesGrace_DEL11(t *testing.T) {
	w := newWorld(t, graceGroup(time.Minute))
	w.mode(inspect.RemovalObserve)
	f, before := w.inGrace()
	w.send(subscriber.EventStart, bob, "b", "7")
	w.awaitState(bob, nat.Active)
	w.flow(bob, 4000)
	w.hangUp(bob, "b", "7", userRequest)
	w.awaitState(bob, nat.Draining)
	w.toggle(true)
	w.nothingLeft(bob)
	w.send(subscriber.EventStart, alice, "a", "2")
	w.back(f, before, "2")
}

// TestGraceAcrossRestarts_I7: a grace time survives a restart, for every point at
// which the daemon may die, and for all events while it is down.
func TestGraceAcrossRestarts_I7(t *testing.T) {
	t.Run("came back before", func(t *testing.T) {
		w := newWorld(t, graceGroup(time.Minute))
		f, before := w.inGrace()
		w.halt()
		w.boot()
		// The feed gives its end to the millisecond, if the daemon died before the
		// binding was stored.
		if now := w.awaitState(alice, nat.Draining); now.GraceUntil.Sub(before.GraceUntil).Abs() > time.Second {
			t.Errorf("grace until %v, was %v", now.GraceUntil, before.GraceUntil)
		}
		w.send(subscriber.EventStart, alice, "a", "2")
		w.back(f, before, "2")
	})
	t.Run("came back meanwhile", func(t *testing.T) {
		w := newWorld(t, graceGroup(time.Minute))
		f, before := w.inGrace()
		w.halt()
		w.send(subscriber.EventStart, alice, "a", "2")
		w.boot()
		w.back(f, before, "2")
	})
	t.Run("a stranger meanwhile", func(t *testing.T) {
		w := newWorld(t, graceGroup(time.Minute))
		f, before := w.inGrace()
		w.halt()
		w.send(subscriber.EventStart, alice, "z", "2")
		w.boot()
		if now := w.awaitState(alice, nat.Active); now.Block == before.Block || w.nat.Receive(f) == nil {
			t.Errorf("the stranger has %+v, before %+v", now, before)
		}
	})
	t.Run("lost while away", func(t *testing.T) {
		w := newWorld(t, graceGroup(time.Minute))
		w.send(subscriber.EventStart, alice, "a", "1")
		before := w.awaitState(alice, nat.Active)
		f := w.flow(alice, 4000)
		w.halt()
		w.hangUp(alice, "a", "1", lostCarrier)
		w.boot()
		if now := w.awaitState(alice, nat.Draining); now.GraceUntil.IsZero() {
			t.Errorf("no grace time: %+v", now)
		}
		w.send(subscriber.EventStart, alice, "a", "2")
		w.back(f, before, "2")
	})
	t.Run("lost and back while away", func(t *testing.T) {
		w := newWorld(t, graceGroup(time.Minute))
		w.send(subscriber.EventStart, alice, "a", "1")
		before := w.awaitState(alice, nat.Active)
		f := w.flow(alice, 4000)
		w.halt()
		w.hangUp(alice, "a", "1", lostCarrier)
		w.send(subscriber.EventStart, alice, "a", "2")
		w.boot()
		w.back(f, before, "2")
	})
	t.Run("ended otherwise while away", func(t *testing.T) {
		w := newWorld(t, graceGroup(time.Minute))
		w.send(subscriber.EventStart, alice, "a", "1")
		w.awaitState(alice, nat.Active)
		w.flow(alice, 4000)
		w.halt()
		w.hangUp(alice, "a", "1", lostCarrier)
		w.send(subscriber.EventStart, alice, "a", "2")
		w.hangUp(alice, "a", "2", userRequest)
		w.boot()
		w.nothingLeft(alice)
	})
	t.Run("over meanwhile", func(t *testing.T) {
		w := newWorld(t, graceGroup(time.Second))
		_, before := w.inGrace()
		w.halt()
		w.until("the grace time to be over", func() bool { return time.Now().After(before.GraceUntil) })
		w.boot()
		w.nothingLeft(alice)
	})
	t.Run("died before the gate was narrowed", func(t *testing.T) {
		w := newWorld(t, graceGroup(time.Minute))
		f, before := w.inGrace()
		w.halt()
		w.gate(alice, nat.GateOpen)
		w.boot()
		w.until("the gate to be narrowed", func() bool { return w.entry(alice).Gate == nat.GateDraining })
		w.send(subscriber.EventStart, alice, "a", "2")
		w.back(f, before, "2")
	})
	t.Run("died before the gate was opened again", func(t *testing.T) {
		w := newWorld(t, graceGroup(time.Minute))
		f, before := w.inGrace()
		w.send(subscriber.EventStart, alice, "a", "2")
		w.back(f, before, "2")
		w.halt()
		w.gate(alice, nat.GateDraining)
		w.boot()
		w.back(f, before, "2")
	})
	t.Run("the kernel was emptied", func(t *testing.T) {
		w := newWorld(t, graceGroup(time.Minute))
		f, _ := w.inGrace()
		w.halt()
		w.gate(alice, nat.GateClosed)
		w.nat.Expire(f)
		w.boot()
		w.nothingLeft(alice)
		w.until("the block to be free", func() bool { return len(w.bindings(alice)) == 0 })
		w.check()
	})
}

// gate sets the kernel's gate of an address without the daemon.
func (w *world) gate(inside netip.Addr, gate nat.Gate) {
	w.t.Helper()
	e := w.entry(inside)
	e.Gate = gate
	if gate == nat.GateClosed {
		e = nat.Entry{Inside: inside}
	}
	if err := w.nat.Apply(context.Background(), []nat.Entry{e}); err != nil {
		w.t.Fatal(err)
	}
}
