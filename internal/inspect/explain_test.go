package inspect

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// TestExplanation: the drop of a new session, and the first line of the advice, for each thing that
// can be the matter with a customer.
func TestExplanation(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	key := subscriber.Key{Group: "g", Inside: netip.MustParseAddr("100.64.0.1")}
	online := func() *Subscriber { return &Subscriber{Record: subscriber.Record{Key: key, UserName: "alice"}} }
	bound := func(s nat.State) *Binding {
		return &Binding{Binding: nat.Binding{State: s, AllocatedAt: now.Add(-time.Hour)}}
	}
	some := nat.SessionCounts{TCP: 3}
	for name, c := range map[string]struct {
		e      Explanation
		reason nat.DropReason // "" where a new session passes
		says   string         // in the first line
	}{
		"well":              {Explanation{Subscriber: online(), Binding: bound(nat.Active), Sessions: some}, "", "Nothing stands out"},
		"silent":            {Explanation{Subscriber: online(), Binding: bound(nat.Active)}, "", "no NAT session"},
		"new and silent":    {Explanation{Subscriber: online(), Binding: &Binding{Binding: nat.Binding{State: nat.Active, AllocatedAt: now}}}, "", "Nothing stands out"},
		"unknown":           {Explanation{}, nat.DropNoGate, "no end is known"},
		"stopped":           {Explanation{LastEnding: &Ending{End: subscriber.End{Reason: subscriber.ReasonStop}}}, nat.DropNoGate, "sent an Acct-Stop"},
		"restarted":         {Explanation{LastEnding: &Ending{End: subscriber.End{Reason: subscriber.ReasonNASRestart}}}, nat.DropNoGate, "its BNG restarted"},
		"of an old daemon":  {Explanation{LastEnding: &Ending{}}, nat.DropNoGate, "it ended"},
		"draining":          {Explanation{Binding: bound(nat.Draining)}, nat.DropDraining, "until they idle out"},
		"in its grace time": {Explanation{Binding: &Binding{Binding: nat.Binding{State: nat.Draining, GraceUntil: now}}}, nat.DropDraining, "grace time"},
		"waits":             {Explanation{Subscriber: &Subscriber{Record: subscriber.Record{Key: key}, Pending: true}}, nat.DropNoGate, "waits for a port block"},
		"taken over":        {Explanation{Subscriber: online(), Binding: bound(nat.Cut)}, nat.DropNoGate, "changed hands"},
		"being programmed":  {Explanation{Subscriber: online()}, nat.DropNoGate, "being programmed"},
		"at a limit": {Explanation{
			Subscriber: online(), Binding: bound(nat.Active), Sessions: some,
			Limits: []LimitUse{{Limit: "tcp_ports", Most: 3, Used: 3, Measured: true}},
		}, nat.DropOverLimit, "at the limit tcp_ports (3)"},
		"out of ports": {Explanation{
			Subscriber: online(), Binding: bound(nat.Active), Sessions: some,
			Limits: []LimitUse{{Limit: LimitBlockPorts, Most: 512, Used: 512, Measured: true}},
		}, nat.DropBlockFull, "uses all 512 ports"},
		"refused lately": {Explanation{
			Subscriber: online(), Binding: bound(nat.Active), Sessions: some,
			Limits: []LimitUse{{Limit: "new_sessions_per_second", Most: 10, RefusedAt: now}},
		}, "", "were refused at new_sessions_per_second"},
		"near a limit": {Explanation{
			Subscriber: online(), Binding: bound(nat.Active), Sessions: some,
			Limits: []LimitUse{{Limit: "sessions", Most: 10, Used: 8, Measured: true}},
		}, "", "near the limit sessions: 8 of 10"},
		"held": {Explanation{
			Subscriber: &Subscriber{Record: subscriber.Record{Key: key, RemovalHeld: subscriber.ReasonExpired}}, Binding: bound(nat.Active), Sessions: some,
		}, "", "A guard holds back its removal (EXPIRED)"},
		"written back": {Explanation{
			Subscriber: &Subscriber{Record: subscriber.Record{Key: key, Unconfirmed: true}}, Binding: bound(nat.Active), Sessions: some,
		}, "", "no accounting has confirmed it"},
		"with a BNG of 1970": {Explanation{
			Subscriber: online(), Binding: bound(nat.Active), Sessions: some, NAS: &NAS{Clock: NASClock{Unheeded: true}},
		}, "", "clock of its BNG"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.e.Key = key
			d, dropped := c.e.NewSession()
			if dropped != (c.reason != "") || d.Reason != c.reason {
				t.Errorf("a new session is dropped: %t, %q, want %q", dropped, d.Reason, c.reason)
			}
			if dropped && (d.Meaning() == "" || !c.e.Concerns(d)) {
				t.Errorf("the drop %+v has no meaning, or does not concern it", d)
			}
			advice := c.e.Advice(now)
			if len(advice) == 0 || !strings.Contains(advice[0], c.says) {
				t.Errorf("advice %q, want %q in the first line", advice, c.says)
			}
			if slices.Contains(advice, "") {
				t.Errorf("an empty line in %q", advice)
			}
		})
	}
	of := Explanation{Limits: []LimitUse{{Limit: "sessions", Most: 9, RefusedAt: now}}}
	if !of.Concerns(nat.Drop{Reason: nat.DropOverLimit, Direction: nat.DropOut}) || of.Concerns(nat.Drop{Reason: nat.DropBlockFull, Direction: nat.DropOut}) {
		t.Error("refusals at a limit of sessions are over_limit, and not block_full")
	}
}
