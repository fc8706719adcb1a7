package system

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"layeh.com/radius/rfc2866"

	"github.com/sessiond/sessiond/internal/radiusacct/acctclient"
	"github.com/sessiond/sessiond/internal/rig"
)

// lost reports that the session's line was lost.
func (w *world) lost(s rig.Session) {
	w.t.Helper()
	w.must(w.Send(w.ctx, acctclient.Request{
		Status: rfc2866.AcctStatusType_Value_Stop, SessionID: s.ID, UserName: s.User, FramedAddress: s.Inside,
		NASIdentifier: rig.NAS, EventTime: time.Now(), TerminateCause: rfc2866.AcctTerminateCause_Value_LostCarrier,
	}))
}

// proof is the part of `binding list -o json` about the removal of a binding.
type proof struct {
	OutsideAddress netip.Addr `json:"outside_address"`

	State      string    `json:"state"`
	GraceUntil time.Time `json:"grace_until"`
	Receipt    *struct {
		CutAt           time.Time `json:"cut_at"`
		ReapedAt        time.Time `json:"reaped_at"`
		ReleasedAt      time.Time `json:"released_at"`
		ElementsRemoved int       `json:"elements_removed"`
		SessionsDeleted int       `json:"sessions_deleted"`
		Proof           string    `json:"proof"`
	} `json:"receipt"`
}

// proofOf reads the only binding of an address.
func (w *world) proofOf(inside netip.Addr) proof {
	w.t.Helper()
	var p proof
	w.must(json.Unmarshal([]byte(w.ctl("-o", "json", "binding", "list", "--inside", inside.String())), &p))
	return p
}

func (w *world) awaitState(inside netip.Addr, state string) rig.Binding {
	w.t.Helper()
	var b rig.Binding
	w.soon(10*time.Second, func(ctx context.Context) (err error) {
		b, err = w.AwaitState(ctx, inside, state)
		return err
	})
	return b
}

// listed checks that sessionctl lists one removal of the kind, of the address.
func (w *world) listed(kind string, inside netip.Addr) {
	w.t.Helper()
	var r struct {
		Inside   string `json:"inside_address"`
		Reason   string `json:"reason"`
		Sessions int    `json:"sessions"`
	}
	out := w.ctl("-o", "json", "removal", "list", "--kind", kind)
	if err := json.Unmarshal([]byte(out), &r); err != nil || r.Inside != inside.String() || r.Reason != "REASON_STOP" || r.Sessions != 1 {
		w.t.Errorf("removals of kind %s: %q, %v", kind, out, err)
	}
}

// TestGrace_SES08_I7: after a lost line that is back in time, the live TCP flow and the
// block stay, under a new session, also when sessiond dies meanwhile. Any other end of the
// session takes effect at once.
func TestGrace_SES08_I7(t *testing.T) {
	w := start(t, rig.Options{Removal: "grace: 60s, grace_causes: [Lost-Carrier]"})
	block := w.online(sessionOf(alice, "a-1"))
	f := w.flow(alice)

	w.lost(sessionOf(alice, "a-1"))
	w.awaitState(alice, "DRAINING")
	if p := w.proofOf(alice); time.Until(p.GraceUntil) < 30*time.Second || p.Receipt != nil {
		t.Errorf("binding tells %+v", p)
	}
	w.listed("grace", alice)
	w.passes(f, "alice, lost")
	w.cannotOpen(alice)
	w.must(w.Daemon.Kill())
	w.passes(f, "alice, lost, sessiond dead")
	w.must(w.Daemon.Start(w.ctx))
	w.passes(f, "alice, lost, sessiond back")

	if now := w.online(sessionOf(alice, "a-2")); now != block {
		t.Errorf("came back to %+v, had %+v", now, block)
	}
	w.passes(f, "alice, back")
	if g := w.flow(alice); !block.Covers(g.Source()) {
		t.Errorf("a new flow is seen as %v, want within %+v", g.Source(), block)
	}

	w.must(w.Offline(w.ctx, sessionOf(alice, "a-2")))
	w.gone(alice)
	w.dead(f, "alice, gone")
}

// TestGraceStranger_SES07: another user on the address gets nothing of the first's, at
// once.
func TestGraceStranger_SES07(t *testing.T) {
	w := start(t, rig.Options{Removal: "grace: 60s"})
	first := rig.Session{ID: "a-1", User: "first", Inside: alice}
	block := w.online(first)
	f := w.flow(alice)
	w.lost(first)
	w.awaitState(alice, "DRAINING")
	w.passes(f, "first, lost")

	now := w.online(rig.Session{ID: "a-2", User: "second", Inside: alice})
	if now.UserName != "second" || now.FirstPort == block.FirstPort && now.OutsideAddress == block.OutsideAddress {
		t.Errorf("the stranger has %+v, the first had %+v", now, block)
	}
	w.dead(f, "first")
	w.passes(w.flow(alice), "second")
}

// TestGraceOver_DEL01: after the grace time without a return there is an ordinary removal,
// with a receipt.
func TestGraceOver_DEL01(t *testing.T) {
	w := start(t, rig.Options{Removal: "grace: 2s", Hold: time.Minute})
	w.online(sessionOf(alice, "a-1"))
	f := w.flow(alice)
	w.lost(sessionOf(alice, "a-1"))
	lost := time.Now()
	w.awaitState(alice, "DRAINING")
	w.passes(f, "alice, lost")
	w.soon(5*time.Second, func(ctx context.Context) error { return w.AwaitNothing(ctx, alice) })
	if after := time.Since(lost); after < 1900*time.Millisecond {
		t.Errorf("removed after %v", after)
	}
	w.dead(f, "alice")
	w.awaitState(alice, "HELD")
}

// TestReceipt_DEL01_I7: the receipt of a removal is kept with the held binding, also after
// a restart.
func TestReceipt_DEL01_I7(t *testing.T) {
	w := start(t, rig.Options{Hold: time.Minute})
	w.online(sessionOf(alice, "a-1"))
	w.flow(alice)
	w.flow(alice)
	w.must(w.Offline(w.ctx, sessionOf(alice, "a-1")))
	w.awaitState(alice, "HELD")
	before := w.proofOf(alice)
	r := before.Receipt
	if r == nil || r.ElementsRemoved != 2 || r.SessionsDeleted < 2 || r.Proof == "PROOF_UNSPECIFIED" ||
		r.CutAt.IsZero() || r.CutAt.After(r.ReapedAt) || r.ReapedAt.After(r.ReleasedAt) {
		t.Fatalf("receipt %+v", r)
	}
	key := fmt.Sprintf("sessiond:{default}:bindings:%d", before.OutsideAddress.As4()[3]%32)
	w.soon(5*time.Second, func(ctx context.Context) error {
		return w.Until(ctx, "the receipt to be stored", func() (bool, error) {
			row, err := w.Redis.CLI(ctx, "HVALS", key)
			var stored struct{ Receipt *json.RawMessage }
			return err == nil && json.Unmarshal([]byte(row), &stored) == nil && stored.Receipt != nil, nil
		})
	})
	w.must(w.Daemon.Kill())
	w.must(w.Daemon.Start(w.ctx))
	if after := w.proofOf(alice); after.Receipt == nil || *after.Receipt != *r {
		t.Errorf("after a restart %+v, before %+v", after.Receipt, r)
	}
}

// TestObserve_DEL11_SES07: flows go on as with the toggle off, and the removals that "on"
// would have made are counted. Switched on, draining bindings are cut.
func TestObserve_DEL11_SES07(t *testing.T) {
	w := start(t, rig.Options{})
	w.ctl("settings", "set", "subscriber_session_removal=observe")
	w.online(sessionOf(alice, "a-1"))
	f := w.flow(alice)
	w.must(w.Offline(w.ctx, sessionOf(alice, "a-1")))
	w.awaitState(alice, "DRAINING")
	w.passes(f, "alice, observed")
	w.cannotOpen(alice)
	for series, want := range map[string]string{
		`sessiond_removals_observed_total{group="default",reason="stop"}`: "1",
		`sessiond_sessions_observed_total{group="default"}`:               "1",
	} {
		w.soon(5*time.Second, func(ctx context.Context) error {
			return w.Until(ctx, series+" to be "+want, func() (bool, error) {
				got, err := w.Daemon.Metric(ctx, series)
				return err == nil && got == want, nil
			})
		})
	}
	w.listed("observed", alice)

	first := rig.Session{ID: "b-1", User: "first", Inside: bob}
	w.online(first)
	g := w.flow(bob)
	w.must(w.Report(w.ctx, rfc2866.AcctStatusType_Value_Start, rig.Session{ID: "b-2", User: "second", Inside: bob}))
	w.soon(5*time.Second, func(ctx context.Context) error {
		return w.Until(ctx, "the second user's binding", func() (bool, error) {
			bindings, err := w.Bindings(ctx, bob)
			return slices.ContainsFunc(bindings, func(b rig.Binding) bool {
				return b.State == "ACTIVE" && b.UserName == "second"
			}), err
		})
	})
	w.dead(g, "first") // an address that changes hands is cut all the same

	w.ctl("settings", "set", "subscriber_session_removal=on")
	w.gone(alice)
	w.dead(f, "alice")
}
