package pcp

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/sessiond/sessiond/internal/pcp/wire"
)

// A twin keeps mappings in memory, by the contract of Mappings.
type twin struct {
	now func() time.Time

	mu       sync.Mutex
	settings *GroupSettings
	group    netip.Prefix
	online   map[netip.Addr]Client
	mappings map[netip.Addr][]Mapping
	flows    map[FlowRequest]Flow
	ports    [2]uint16 // that may be given, inclusive
	fails    error     // of every change
	changes  int       // calls of Map and Unmap
}

var (
	alice   = netip.MustParseAddr("100.64.0.10")
	bob     = netip.MustParseAddr("100.64.0.11")
	carol   = netip.MustParseAddr("100.64.0.12") // not online
	portal  = netip.MustParseAddr("192.0.2.80")  // no subscriber
	gateway = netip.MustParseAddr("100.64.0.1")
	public  = netip.MustParseAddr("198.51.100.1")
	remote  = netip.MustParseAddrPort("203.0.113.10:443")
	began   = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
)

func testSettings() *GroupSettings {
	return &GroupSettings{
		Enabled: true, NATPMP: true, Map: true, Peer: true, MinLifetime: 2 * time.Minute, MaxLifetime: 24 * time.Hour,
		Mappings: 4, Filters: 2, Announce: 10,
	}
}

func newTwin(now func() time.Time) *twin {
	t := &twin{
		now: now, settings: testSettings(), group: netip.MustParsePrefix("100.64.0.0/24"),
		online: map[netip.Addr]Client{}, mappings: map[netip.Addr][]Mapping{}, flows: map[FlowRequest]Flow{}, ports: [2]uint16{60000, 60007},
	}
	t.setOnline(alice, began.Add(-time.Hour))
	t.setOnline(bob, began.Add(-time.Minute))
	return t
}

// setOnline begins a binding of an address.
func (t *twin) setOnline(a netip.Addr, since time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.online[a] = Client{Group: "g", Outside: public, Since: since, Settings: t.settings}
}

// setOffline ends a binding, with its mappings.
func (t *twin) setOffline(a netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.online, a)
	delete(t.mappings, a)
}

func (t *twin) Client(a netip.Addr) (Client, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c, ok := t.online[a]; ok {
		return c, true
	}
	if t.group.Contains(a) {
		return Client{Group: "g", Settings: t.settings}, false
	}
	return Client{}, false
}

func (t *twin) List(a netip.Addr) []Mapping {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.liveLocked(a))
}

// liveLocked returns the mappings that have not expired.
func (t *twin) liveLocked(a netip.Addr) []Mapping {
	t.mappings[a] = slices.DeleteFunc(t.mappings[a], func(m Mapping) bool { return !m.Expires.IsZero() && !m.Expires.After(t.now()) })
	return t.mappings[a]
}

func (t *twin) Map(_ context.Context, r MapRequest) (Mapping, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.changes++
	inside := r.Inside.Addr()
	client, ok := t.online[inside]
	switch {
	case t.fails != nil:
		return Mapping{}, t.fails
	case !ok:
		return Mapping{}, ErrNotOnline
	}
	live := t.liveLocked(inside)
	i := slices.IndexFunc(live, func(m Mapping) bool { return m.Inside == r.Inside && m.Protocol == r.Protocol })
	made := Mapping{
		Inside: r.Inside, Protocol: r.Protocol, Nonce: r.Nonce, Expires: t.now().Add(r.Lifetime), Filters: r.Filters, Peer: r.Peer,
	}
	if i >= 0 {
		switch m := live[i]; {
		case r.PreferFailure && !suits(&r, m.Outside):
			return m, ErrNoPort
		case m.Static:
			return m, nil
		case r.CheckNonce && m.Nonce != r.Nonce:
			return m, ErrNotAuthorized
		default:
			made.Outside = m.Outside
			live[i] = made
			return made, nil
		}
	}
	if len(live) >= client.Settings.Mappings {
		return made, ErrQuota
	}
	if made.Outside, ok = t.freeLocked(client.Outside, &r); !ok {
		return made, ErrNoPort
	}
	t.mappings[inside] = append(live, made)
	return made, nil
}

// freeLocked chooses an outside endpoint.
func (t *twin) freeLocked(outside netip.Addr, r *MapRequest) (netip.AddrPort, bool) {
	free := func(e netip.AddrPort) bool {
		if e.Addr() != outside || e.Port() < t.ports[0] || e.Port() > t.ports[1] {
			return false
		}
		for a := range t.mappings {
			if slices.ContainsFunc(t.liveLocked(a), func(m Mapping) bool { return m.Outside == e && m.Protocol == r.Protocol }) {
				return false
			}
		}
		return true
	}
	if e := netip.AddrPortFrom(outside, r.Suggested.Port()); free(e) && (!r.PreferFailure || suits(r, e)) {
		return e, true
	}
	for port := t.ports[0]; port <= t.ports[1] && !r.PreferFailure; port++ {
		if e := netip.AddrPortFrom(outside, port); free(e) {
			return e, true
		}
	}
	return netip.AddrPort{}, false
}

// suits reports whether an outside endpoint is the suggested one, whose address may be left open.
func suits(r *MapRequest, e netip.AddrPort) bool {
	return e.Port() == r.Suggested.Port() && (!r.Suggested.Addr().IsValid() || e.Addr() == r.Suggested.Addr())
}

func (t *twin) Unmap(_ context.Context, r UnmapRequest) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.changes++
	if t.fails != nil {
		return t.fails
	}
	asked, ended := 0, 0
	var left []Mapping
	for _, m := range t.liveLocked(r.Inside.Addr()) {
		protocol := r.Protocol == 0 || m.Protocol == r.Protocol
		switch {
		case !protocol, r.Inside.Port() != 0 && m.Inside != r.Inside, r.Inside.Port() == 0 && m.Static:
			left = append(left, m)
			continue
		case m.Static, r.CheckNonce && m.Nonce != r.Nonce:
			left = append(left, m)
		default:
			ended++
		}
		asked++
	}
	t.mappings[r.Inside.Addr()] = left
	if asked > 0 && ended == 0 {
		return ErrNotAuthorized
	}
	return nil
}

func (t *twin) Flow(_ context.Context, r FlowRequest) (Flow, bool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f, ok := t.flows[r]
	return f, ok, t.fails
}

// counts is an Observer.
type counts struct {
	mu         sync.Mutex
	requests   map[[2]string]int
	mismatches int
	announced  map[string]int
}

func newCounts() *counts { return &counts{requests: map[[2]string]int{}, announced: map[string]int{}} }

func (c *counts) Request(opcode, outcome string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests[[2]string{opcode, outcome}]++
}

func (c *counts) NonceMismatch(string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mismatches++
}

func (c *counts) Announced(kind string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.announced[kind]++
}

func (c *counts) of(opcode, outcome string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.requests[[2]string{opcode, outcome}]
}

// nonceOf returns a nonce that differs from those of other numbers.
func nonceOf(n byte) wire.Nonce { return wire.Nonce{n, 1} }
