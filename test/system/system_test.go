// Package system tests the whole of sessiond: the real program, Redis and kernel, real
// packets, and every assertion made from outside the daemon.
package system

import (
	"context"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/rig"
	"github.com/sessiond/sessiond/internal/testenv"
)

var programs *rig.Programs

func TestMain(m *testing.M) {
	os.Exit(rig.Main(m, &programs))
}

var (
	alice = netip.MustParseAddr("100.64.0.10")
	bob   = netip.MustParseAddr("100.64.0.11")
)

func sessionOf(inside netip.Addr, id string) rig.Session {
	return rig.Session{ID: id, User: "user-" + inside.String(), Inside: inside}
}

// world is a rig with its test.
type world struct {
	*rig.Rig
	t   *testing.T
	ctx context.Context
}

func start(t *testing.T, o rig.Options) *world {
	t.Helper()
	needs := testenv.Redis
	if !o.Memory {
		needs |= testenv.Root | testenv.Nft | testenv.Conntrack
	}
	testenv.Require(t, needs)
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	o.Sessiond, o.Sessionctl = programs.Sessiond, programs.Sessionctl
	r, err := rig.Start(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{Rig: r, t: t, ctx: ctx}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("sessiond printed:\n%s", tail(r.Daemon.Log(), 12_000))
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func tail(s string, n int) string { return s[max(0, len(s)-n):] }

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// soon runs a check that must succeed within the time.
func (w *world) soon(within time.Duration, check func(ctx context.Context) error) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, within)
	defer cancel()
	w.must(check(ctx))
}

func (w *world) online(s rig.Session) rig.Binding {
	w.t.Helper()
	b, err := w.Online(w.ctx, s)
	w.must(err)
	return b
}

func (w *world) flow(from netip.Addr) *netlab.Flow {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, 10*time.Second)
	defer cancel()
	f, err := w.Lab.OpenFlow(ctx, netip.AddrPortFrom(from, 0))
	w.must(err)
	return f
}

// passes checks that the flow carries bytes both ways.
func (w *world) passes(f *netlab.Flow, who string) {
	w.t.Helper()
	if out, in := f.Probe(5 * time.Second); !out || !in {
		w.t.Fatalf("%s: flow passes outbound %t, inbound %t; want both", who, out, in)
	}
}

// dead checks that the flow carries nothing either way.
func (w *world) dead(f *netlab.Flow, who string) {
	w.t.Helper()
	if out, in := f.Probe(600 * time.Millisecond); out || in {
		w.t.Fatalf("%s: flow passes outbound %t, inbound %t; want neither", who, out, in)
	}
}

// gone checks that within a second nothing is left of the address.
func (w *world) gone(inside netip.Addr) {
	w.t.Helper()
	w.soon(time.Second, func(ctx context.Context) error { return w.AwaitNothing(ctx, inside) })
}

func (w *world) ctl(args ...string) string {
	w.t.Helper()
	out, err := w.Daemon.Ctl(w.ctx, args...)
	w.must(err)
	return out
}
