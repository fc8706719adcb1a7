package session

import (
	"context"
	"errors"
	"net/netip"
	"testing"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/lsn"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// TestAddressInUseStaysInItsGroup: a reload may remove a group with online
// subscribers, but not move their addresses to another group.
func TestAddressInUseStaysInItsGroup(t *testing.T) {
	w := newWorld(t, testGroup)
	w.send(subscriber.EventStart, alice, "a", "1")
	w.awaitState(alice, nat.Active)

	other := testGroup
	other.Name, other.Outside = "other", []netip.Prefix{netip.MustParsePrefix("203.0.113.0/28")}
	if err := w.SetGroups(context.Background(), []lsn.GroupConfig{other}); !errors.Is(err, lsn.ErrInUse) {
		t.Fatalf("the address was moved: %v", err)
	}

	other.Inside = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	if err := w.SetGroups(context.Background(), []lsn.GroupConfig{other}); err != nil {
		t.Fatal(err)
	}
	key := subscriber.Key{Inside: alice}
	if s, err := w.Subscriber(context.Background(), key); err != nil || s.Binding == nil {
		t.Errorf("alice's group was taken out: %+v, %v", s, err)
	}
	if got := w.Inside()[testGroup.Name]; len(got) != 1 || got[0] != testGroup.Inside[0] {
		t.Errorf("the group taken out serves %v", got)
	}
	w.send(subscriber.EventStop, alice, "a", "1")
	w.nothingLeft(alice)
	if _, err := w.Subscriber(context.Background(), key); !errors.Is(err, inspect.ErrNotFound) {
		t.Errorf("after the Stop: %v", err)
	}
}
