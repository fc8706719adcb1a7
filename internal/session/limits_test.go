package session

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/clock"
	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/lsn"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/nftnat/memnat"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// reached returns the limits that were counted.
func (c *counts) reached() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.limits)
}

// tries begins sessions of an address from consecutive ports, and returns the
// number of those that began.
func (w *world) tries(inside netip.Addr, first uint16, n int) (began int) {
	w.t.Helper()
	for port := range uint16(n) {
		switch _, err := w.nat.Send(unix.IPPROTO_UDP, netip.AddrPortFrom(inside, first+port), remote); {
		case err == nil:
			began++
		case !errors.Is(err, memnat.ErrDropped):
			w.t.Fatal(err)
		}
	}
	return began
}

// slowRefusals is a limitKernel that answers after some time.
type slowRefusals struct {
	takes time.Duration
	asked []time.Time
}

func (k *slowRefusals) Refusals(ctx context.Context) ([]nat.Refusal, error) {
	k.asked = append(k.asked, time.Now())
	return nil, clock.Sleep(ctx, k.takes)
}

// TestRefusalsCostLittle_NAT33: where many subscribers are refused sessions, the answer who they are takes a
// twentieth of the time, and is asked for while the kernel knows all.
func TestRefusalsCostLittle_NAT33(t *testing.T) {
	for _, takes := range []time.Duration{time.Millisecond, 320 * time.Millisecond, time.Second} {
		synctest.Test(t, func(t *testing.T) {
			k := &slowRefusals{takes: takes}
			w := &limitWatch{sharedState: &sharedState{now: time.Now}, kernel: k}
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			_ = w.run(ctx)
			longest := time.Duration(0)
			for i := range k.asked[1:] {
				longest = max(longest, k.asked[i+1].Sub(k.asked[i]))
			}
			if share := float64(len(k.asked)) * takes.Seconds() / 3600; longest > 8*time.Second || takes < refusalsMost/refusalsShare && share > 0.06 {
				t.Errorf("answers of %v take %.3f of the time, and are asked for after %v at most", takes, share, longest)
			}
		})
	}
}

// TestLimits_NAT28_NAT32_NAT33: a group's limits are in force from the start, and
// changed by a reload; watchers and metrics are told of a subscriber once,
// however much it is refused; and it ends as any other.
func TestLimits_NAT28_NAT32_NAT33(t *testing.T) {
	g := testGroup
	g.Limits = nat.Limits{Sessions: 3}
	w := newWorld(t, g)
	w.send(subscriber.EventStart, alice, "a", "1")
	w.send(subscriber.EventStart, bob, "b", "2")
	w.awaitState(alice, nat.Active)
	w.awaitState(bob, nat.Active)
	events := w.events(inspect.Watch{})
	if got := w.tries(alice, 5000, 10); got != 3 {
		t.Errorf("%d sessions began, the limit is 3", got)
	}
	if got := w.tries(bob, 5000, 3); got != 3 {
		t.Errorf("%d of 3 sessions of another began", got)
	}
	for e, err := range events {
		if err != nil {
			t.Fatal(err)
		}
		if e.Kind == inspect.EventLimitReached {
			if e.Subscriber.Record.Inside != alice || e.Subscriber.Record.UserName != "a" || !slices.Equal(e.Limits, []nat.Limit{nat.LimitSessions}) {
				t.Errorf("told %+v", e.Event)
			}
			break
		}
	}
	if got := w.seen.reached(); !slices.Equal(got, []string{"default sessions"}) {
		t.Errorf("counted %v", got)
	}

	g.Limits = nat.Limits{Sessions: 6, UDPPorts: 5}
	if err := w.SetGroups(t.Context(), []lsn.GroupConfig{g}); err != nil {
		t.Fatal(err)
	}
	if got := w.tries(alice, 6000, 10); got != 2 {
		t.Errorf("%d more sessions began, the limit of ports is 5 and 3 were in use", got)
	}
	g.Limits = nat.Limits{}
	if err := w.SetGroups(t.Context(), []lsn.GroupConfig{g}); err != nil {
		t.Fatal(err)
	}
	if got := w.tries(alice, 7000, 10); got != 10 {
		t.Errorf("%d of 10 sessions began without limits", got)
	}
	w.send(subscriber.EventStop, alice, "a", "1")
	w.nothingLeft(alice)
	w.check()
}

// TestDrainedPrefixKeepsLimits_NAT28: subscribers in a prefix that a reload takes
// out of their group keep its limits.
func TestDrainedPrefixKeepsLimits_NAT28(t *testing.T) {
	g := testGroup
	g.Limits = nat.Limits{Sessions: 3}
	w := newWorld(t, g)
	w.send(subscriber.EventStart, alice, "a", "1")
	w.awaitState(alice, nat.Active)
	g.Inside = []netip.Prefix{netip.MustParsePrefix("100.96.0.0/11")}
	if err := w.SetGroups(t.Context(), []lsn.GroupConfig{g}); err != nil {
		t.Fatal(err)
	}
	if got := w.tries(alice, 5000, 10); got != 3 {
		t.Errorf("%d sessions began, the limit is 3", got)
	}
	other := testGroup
	other.Name, other.Inside = "other", []netip.Prefix{netip.MustParsePrefix("100.96.0.0/11")}
	other.Outside = []netip.Prefix{netip.MustParsePrefix("203.0.113.0/28")}
	if err := w.SetGroups(t.Context(), []lsn.GroupConfig{other}); err != nil { // without its group at all
		t.Fatal(err)
	}
	if got := w.tries(alice, 6000, 10); got != 0 {
		t.Errorf("%d sessions began at the limit of a group that drains", got)
	}
}

// TestLimitsAreToldOnceAMinute_NAT33: a subscriber is told of at once, and then
// once a minute while it is refused sessions, with all limits of that minute; one
// that is no longer refused is forgotten.
func TestLimitsAreToldOnceAMinute_NAT33(t *testing.T) {
	w := newWorld(t, testGroup)
	w.send(subscriber.EventStart, alice, "a", "1")
	w.awaitState(alice, nat.Active)
	seen := &counts{}
	at := time.Now()
	watch := &limitWatch{
		sharedState: &sharedState{log: w.log, now: func() time.Time { return at }, groups: w.groups, life: w.life},
		observer:    seen, reports: w.Manager.reports, told: map[netip.Addr]limitTold{},
	}
	refuse := func(limits ...nat.Limit) {
		var list []nat.Refusal
		for _, l := range limits {
			list = append(list, nat.Refusal{Inside: alice, Limit: l}, nat.Refusal{Inside: bob, Limit: l}) // bob is not online
		}
		watch.tell(list)
	}
	want := func(n int) {
		t.Helper()
		if got := seen.reached(); len(got) != n {
			t.Errorf("counted %v, want %d", got, n)
		}
	}
	refuse(nat.LimitSessions)
	want(1)
	for range 59 {
		at = at.Add(time.Second)
		refuse(nat.LimitNewSessions, nat.LimitSessions)
		want(1)
	}
	at = at.Add(time.Second)
	refuse()
	want(3)
	if got := fmt.Sprint(seen.reached()); got != "[default sessions default sessions default new_sessions_per_second]" {
		t.Errorf("counted %s", got)
	}
	at = at.Add(time.Minute)
	refuse()
	want(3)
	if len(watch.told) > 0 {
		t.Errorf("%d are remembered", len(watch.told))
	}
}
