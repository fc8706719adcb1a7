package session

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/lsn"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// TestNothingToldBeforeRestored_DEL08: a Manager that has not restored its
// state yet answers with an error, and not with an empty list: an operator's
// delete would seem done.
func TestNothingToldBeforeRestored_DEL08(t *testing.T) {
	w := newWorld(t, testGroup)
	manager, err := New(Options{
		Store: w.db, Kernel: w.nat, Groups: []lsn.GroupConfig{w.group}, Node: "test",
		Settings: someSettings, Observer: w.seen, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	m, ctx := manager.Backend(), context.Background()
	asks := map[string]func() error{
		"Subscriber": func() error {
			_, err := m.Subscriber(ctx, subscriber.Key{Inside: netip.MustParseAddr("100.64.0.1")})
			return err
		},
		"Subscribers": func() error {
			_, _, err := m.Subscribers(ctx, inspect.SubscriberFilter{}, subscriber.Key{}, 1)
			return err
		},
		"Delete": func() error {
			_, err := m.Delete(ctx, inspect.SubscriberFilter{})
			return err
		},
		"Bindings": func() error {
			_, _, err := m.Bindings(ctx, inspect.BindingFilter{}, inspect.BindingKey{}, 1)
			return err
		},
		"LookupOutside": func() error {
			_, err := m.LookupOutside(ctx, netip.MustParseAddr("198.51.100.1"), 1024, time.Time{})
			return err
		},
		"Removals": func() error {
			_, _, err := m.Removals(ctx, inspect.RemovalFilter{}, inspect.RemovalKey{}, 1)
			return err
		},
		"NASes": func() error {
			_, err := m.NASes(ctx, inspect.NASFilter{}, inspect.NASKey{}, 1)
			return err
		},
		"ConfirmRemovals": func() error {
			_, err := m.ConfirmRemovals(ctx, inspect.RemovalFilter{}, "")
			return err
		},
		"RefuseRemovals": func() error {
			_, err := m.RefuseRemovals(ctx, inspect.RemovalFilter{}, "")
			return err
		},
	}
	for name, ask := range asks {
		if err := ask(); !errors.Is(err, inspect.ErrNotReady) {
			t.Errorf("%s before Run: %v, want ErrNotReady", name, err)
		}
	}
}
