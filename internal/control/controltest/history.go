package controltest

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/history"
	"github.com/sessiond/sessiond/internal/nat"
)

const day = 24 * time.Hour

// ago is a time before that of the scene.
func ago(d time.Duration) time.Time { return Now.Add(-d) }

// Past is a history in a folder of the test.
type Past struct {
	*history.Store
	Path, Key string
}

// PublicKey implements control.History.
func (h *Past) PublicKey() string { return h.Key }

// History returns a history of five days: erin had the block 5000-5063 for an hour three days ago, frank
// has it since two days ago, erin has 5064-5127 since then; and a gap of an hour a day ago.
func History(t testing.TB) *Past {
	t.Helper()
	key, err := history.LoadKey(filepath.Join(t.TempDir(), "key"), "test")
	if err != nil {
		t.Fatal(err)
	}
	h := &Past{Path: filepath.Join(t.TempDir(), "history"), Key: key.Public()}
	if h.Store, err = history.Open(history.Options{Path: h.Path, Key: key}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	event := func(kind nat.EventKind, user, inside string, first nat.Port, at, since time.Time) nat.Event {
		return nat.Event{
			Kind: kind, At: at, Since: since, Group: "default", Block: nat.Block{Outside: netip.MustParseAddr("198.51.100.9"), First: first, Last: first + 63},
			Holder: nat.Identity{UserName: user, Inside: netip.MustParseAddr(inside), AcctSessionID: "of " + user},
		}
	}
	n := 0
	add := func(through time.Time, events ...nat.Event) {
		t.Helper()
		n++
		b := history.Batch{Group: "default", Epoch: "e", Through: through, Entries: []history.Entry{{Position: fmt.Sprintf("%d-1/%d", n, n), Events: events}}}
		if err := h.Append(b); err != nil {
			t.Fatal(err)
		}
	}
	steps := []error{h.Resume(history.Restart{Group: "default", Epoch: "e", Position: "0-1/0", To: ago(5 * day)})}
	add(time.Time{}, event(nat.Allocated, "erin", "100.64.1.5", 5000, ago(3*day), time.Time{}))
	add(time.Time{}, event(nat.Released, "erin", "100.64.1.5", 5000, ago(3*day-time.Hour), ago(3*day)))
	frank, erin := event(nat.Allocated, "frank", "100.64.1.6", 5000, ago(2*day), time.Time{}), event(nat.Allocated, "erin", "100.64.1.7", 5064, ago(2*day), time.Time{})
	add(ago(day), frank, erin)
	for _, e := range []*nat.Event{&frank, &erin} {
		e.AsInterim(ago(day - time.Hour))
	}
	steps = append(steps, h.Resume(history.Restart{Group: "default", Epoch: "f", Position: "9-1/9", From: ago(day), To: ago(day - time.Hour), Reason: "a test", Live: []nat.Event{frank, erin}}))
	steps = append(steps, h.Append(history.Batch{Group: "default", Epoch: "f", Through: ago(time.Second)}), h.Maintain(Now))
	if err := errors.Join(steps...); err != nil {
		t.Fatal(err)
	}
	return h
}
