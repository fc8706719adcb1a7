package session

import (
	"context"
	"net/netip"
	"testing"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/nat"
)

// TestNobodysElementIsRemoved: an open gate of an address in no group is
// reported once, and deleted.
func TestNobodysElementIsRemoved(t *testing.T) {
	w := newWorld(t, testGroup)
	stranger := netip.MustParseAddr("10.9.9.9")
	err := w.nat.Apply(context.Background(), []nat.Entry{{Inside: stranger, Gate: nat.GateOpen, Block: nat.Block{Outside: netip.MustParseAddr("198.51.100.0"), First: 1024, Last: 1535}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, dryRun := range []bool{true, false} {
		drifts, err := w.Reconcile(context.Background(), dryRun)
		if err != nil || len(drifts) != 1 || drifts[0].Kind != inspect.DriftElementOrphaned ||
			drifts[0].Inside != stranger || drifts[0].Mended == dryRun {
			t.Fatalf("dry run %t: %+v, %v", dryRun, drifts, err)
		}
	}
	if e := w.entry(stranger); e.Gate != nat.GateClosed {
		t.Errorf("%+v stands", e)
	}
}

// TestReadyMeansReady: after Ready was closed, NotReady does not return
// errNotAsked.
func TestReadyMeansReady(t *testing.T) {
	w := newWorld(t, testGroup)
	for range 20 {
		if err := w.NotReady(); err != nil {
			t.Fatal(err)
		}
		w.halt()
		w.boot()
	}
}
