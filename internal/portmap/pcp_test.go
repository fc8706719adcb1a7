package portmap

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/nat"
)

var client = netip.MustParseAddr("100.64.0.1")

// asks is what the client of a binding asks for.
func asks(inside netip.Addr, port nat.Port, protocol uint8, bound time.Time) nat.Mapping {
	return nat.Mapping{
		Group: "g", Kind: nat.MappingPCP, Owner: nat.Owner{Inside: inside}, InsidePort: port, Outside: nat.Endpoint{Protocol: protocol},
		BoundAt: bound, ExpiresAt: began.Add(time.Hour), Nonce: [12]byte{byte(port), 1},
	}
}

// TestAskedPorts_PCP16: by PCP a client gets ports of its binding's outside address alone, none that
// is well known or of PCP itself, and none beside another owner's.
func TestAskedPorts_PCP16(t *testing.T) {
	c := testConfig()
	c.Range, c.PCP = Range{1022, 1026}, 8
	table := New(c)
	own := netip.MustParseAddr("198.51.100.2")
	static := wish("bob", 80)
	static.Outside = tcp("198.51.100.2:1025")
	table.make(t, static, netip.Addr{})
	for _, want := range []nat.Port{1024, 1026} {
		if m := table.make(t, asks(client, want, nat.ProtocolUDP, began), own); m.Outside.Addr() != own || nat.Port(m.Outside.Port()) != want {
			t.Errorf("the client got %v, want port %d of %v", m.Outside, want, own)
		}
	}
	if m, err := table.Plan(asks(client, 99, nat.ProtocolUDP, began), own, nobody); !errors.Is(err, ErrFull) {
		t.Errorf("with 1022 and 1023 free, and 1025 beside bob's, the client got %v, %v", m.Outside, err)
	}
	if m := table.make(t, asks(client, 1026, nat.ProtocolTCP, began), own); m.Outside != tcp("198.51.100.2:1026") {
		t.Errorf("TCP got %v, UDP has 1026", m.Outside)
	}
	if m, err := table.Plan(asks(client, 9, nat.ProtocolTCP, began), netip.MustParseAddr("203.0.113.1"), nobody); err == nil {
		t.Errorf("beside a binding at an address without ports the client got %v", m.Outside)
	}
	c.Range = Range{5349, 5352}
	servers := New(c)
	for _, port := range []uint16{5350, 5351} {
		m := asks(client, 9, nat.ProtocolUDP, began)
		if m.Outside.AddrPort = netip.AddrPortFrom(own, port); servers.config.mayAsk(m.Outside) {
			t.Errorf("the client may have port %d of PCP", port)
		}
		if m.Outside.Protocol = nat.ProtocolTCP; !servers.config.mayAsk(m.Outside) {
			t.Errorf("the client may not have TCP port %d", port)
		}
	}
}

// TestReclaim_PCP23_PCP26: an endpoint in quarantine goes back to the binding that had it, and to
// the client that shows its nonce; not to the next holder of the inside address.
func TestReclaim_PCP23_PCP26(t *testing.T) {
	later := began.Add(time.Minute)
	for what, tt := range map[string]struct {
		change func(*nat.Mapping)
		want   bool
	}{
		"the same binding, another inside port":  {func(m *nat.Mapping) { m.InsidePort, m.Nonce = 90, [12]byte{} }, true},
		"a later binding with the nonce":         {func(m *nat.Mapping) { m.BoundAt = later }, true},
		"a later binding without a nonce":        {func(m *nat.Mapping) { m.BoundAt, m.Nonce = later, [12]byte{} }, false},
		"a later binding with another nonce":     {func(m *nat.Mapping) { m.BoundAt, m.Nonce = later, [12]byte{9} }, false},
		"a later binding, nonce of another port": {func(m *nat.Mapping) { m.BoundAt, m.InsidePort = later, 90 }, false},
		"another inside address with the nonce":  {func(m *nat.Mapping) { m.Owner.Inside = client.Next() }, false},
		"a static mapping of the inside address": {func(m *nat.Mapping) { m.Kind = nat.MappingStatic }, false},
	} {
		c := testConfig()
		c.PCP = 4
		table := New(c)
		m := table.make(t, asks(client, 80, nat.ProtocolTCP, began), pool.Addr())
		ended := table.EndAsked(client, time.Time{}, began)
		if len(ended) != 1 || ended[0].Outside != m.Outside || table.Len(nat.MappingPCP) != 0 {
			t.Fatalf("ended: %+v, %d in force", ended, table.Len(nat.MappingPCP))
		}
		again := m
		tt.change(&again)
		_, err := table.Plan(again, pool.Addr(), nobody)
		if (err == nil) != tt.want || table.Put(again) != tt.want {
			t.Errorf("%s: %v, want it granted: %t", what, err, tt.want)
		}
	}
}

// TestConfigurationGoesFirst: what a person writes is not refused because of a client's mapping.
func TestConfigurationGoesFirst(t *testing.T) {
	c := testConfig()
	c.PCP = 4
	table := New(c)
	at := table.make(t, asks(client, 80, nat.ProtocolTCP, began), pool.Addr())
	inside := table.make(t, asks(client, 81, nat.ProtocolTCP, began), pool.Addr())
	narrow := table.make(t, asks(client, 82, nat.ProtocolTCP, began), pool.Addr())
	kept := table.make(t, asks(client, 83, nat.ProtocolTCP, began), pool.Addr())
	for i, want := range []uint16{60000, 60001, 60002, 60003} {
		if got := []nat.Mapping{at, inside, narrow, kept}[i].Outside.Port(); got != want {
			t.Fatalf("number %d got port %d, want %d", i, got, want)
		}
	}
	c.Range.Last = 60002
	port := func(m nat.Mapping, owner nat.Owner, inside nat.Port, outside string) nat.Mapping {
		return nat.Mapping{Group: "g", Kind: nat.MappingStatic, Configured: true, Owner: owner, InsidePort: inside, Outside: tcp(outside)}
	}
	c.Configured = []nat.Mapping{
		port(at, nat.Owner{UserName: "bob"}, 1, at.Outside.AddrPort.String()),
		port(inside, nat.Owner{Inside: client}, 81, "198.51.100.3:60001"),
	}
	changed, err := table.Configure(c, began)
	if err != nil || !changed.Unstored {
		t.Fatalf("%+v, %v", changed, err)
	}
	left := slices.Collect(table.Of(nat.Owner{Inside: client}))
	if len(left) != 2 || table.Len(nat.MappingPCP) != 1 || table.Len(nat.MappingStatic) != 2 {
		t.Errorf("the client has %+v", left)
	}
	if m, ok := table.At(inside.Outside); !ok || !m.Ended() {
		t.Errorf("the endpoint of inside port 81 is %+v, %t; want it in quarantine", m, ok)
	}
	if _, ok := table.At(kept.Outside); ok {
		t.Error("an endpoint that is not set apart any more is kept")
	}
}

// TestAskAndDelete_PCP24: a client that asks and deletes without end takes few ports from others,
// whatever it suggests.
func TestAskAndDelete_PCP24(t *testing.T) {
	c := testConfig()
	c.Range, c.PCP = Range{60000, 60011}, 3
	table := New(c)
	own := pool.Addr()
	for i := range 1000 {
		m := asks(client, nat.Port(1+i), nat.ProtocolUDP, began)
		if i%2 == 0 {
			m.Outside.AddrPort = netip.AddrPortFrom(own, uint16(int(c.Range.First)+i%c.Range.Len()))
			if _, err := table.Plan(m, own, nobody); err != nil {
				m.Outside.AddrPort = netip.AddrPort{}
			}
		}
		table.End(table.make(t, m, own).Outside, began)
	}
	if table.Stored() != c.PCP {
		t.Errorf("%d ports are in quarantine, want %d", table.Stored(), c.PCP)
	}
	for i := range c.PCP {
		table.make(t, asks(client, nat.Port(i+1), nat.ProtocolUDP, began.Add(time.Second)), own)
	}
	if table.Stored() != 2*c.PCP {
		t.Errorf("the next binding has %d, want ports of its own", table.Stored())
	}
}

// TestFullAddress: that an address has no port for anybody is found once, until one is freed.
func TestFullAddress_PCP24(t *testing.T) {
	c := testConfig()
	c.PCP = 2 * c.Range.Len()
	table, own := New(c), pool.Addr()
	var last nat.Mapping
	for i := range c.Range.Len() {
		last = table.make(t, asks(client, nat.Port(1+i), nat.ProtocolUDP, began), own)
	}
	looked := 0
	counting := func(nat.Endpoint) bool { looked++; return false }
	neighbor := asks(client.Next(), 7, nat.ProtocolTCP, began)
	for range 3 {
		if m, err := table.Plan(neighbor, own, counting); !errors.Is(err, ErrFull) || looked > 0 {
			t.Fatalf("beside the client's ports the neighbor gets %v, %v; %d looks", m.Outside, err, looked)
		}
	}
	if ports, _ := table.outside.At(own); !ports.full[nat.ProtocolTCP] {
		t.Error("the search begins each time")
	}
	table.make(t, asks(client, 7, nat.ProtocolTCP, began), own)
	table.Remove(last.Outside)
	if m := table.make(t, neighbor, own); m.Outside.AddrPort != last.Outside.AddrPort {
		t.Errorf("after %v was freed the neighbor gets %v", last.Outside, m.Outside)
	}
}

// TestRandomAsks_PCP13_PCP16_PCP24_PCP26 compares the table with a simple model: clients ask, renew,
// delete, come back with another binding; time passes.
func TestRandomAsks_PCP13_PCP16_PCP24_PCP26(t *testing.T) {
	for seed := range uint64(20) {
		randomAsks(t, rand.New(rand.NewPCG(seed, 31)))
	}
}

func randomAsks(t *testing.T, r *rand.Rand) {
	c := testConfig()
	c.Range, c.PCP, c.Hold = Range{60000, 60005}, 3, 90*time.Second
	table, now := New(c), began
	bound := map[netip.Addr]time.Time{}
	model := map[nat.Endpoint]nat.Mapping{}
	insides := []netip.Addr{client, client.Next(), client.Next().Next()}
	for _, a := range insides {
		bound[a] = began
	}
	for range 600 {
		inside := insides[r.IntN(len(insides))]
		switch r.IntN(8) {
		case 0:
			now = now.Add(time.Duration(r.IntN(100)) * time.Second)
			for {
				m, ok := table.Due(now)
				if !ok {
					break
				}
				if m.Ended() {
					table.Remove(m.Outside)
				} else {
					table.End(m.Outside, now)
				}
			}
			for e, m := range model {
				if !m.Ended() && !m.ExpiresAt.After(now) {
					m.HoldUntil = now.Add(c.Hold)
				}
				if model[e] = m; m.Ended() && !m.HoldUntil.After(now) {
					delete(model, e)
				}
			}
		case 1: // another binding
			bound[inside] = now.Add(time.Duration(r.IntN(9)) * time.Millisecond)
			table.EndAsked(inside, bound[inside], now)
			for e, m := range model {
				if m.Owner.Inside == inside && !m.Ended() && !m.BoundAt.Equal(bound[inside]) {
					m.HoldUntil = now.Add(c.Hold)
					model[e] = m
				}
			}
		default:
			m := asks(inside, nat.Port(1+r.IntN(5)), []uint8{nat.ProtocolTCP, nat.ProtocolUDP}[r.IntN(2)], bound[inside])
			m.ExpiresAt = now.Add(time.Duration(1+r.IntN(200)) * time.Second)
			if r.IntN(3) == 0 {
				m.Outside.AddrPort = netip.AddrPortFrom(pool.Addr(), uint16(60000+r.IntN(6)))
			}
			askBoth(t, &c, table, model, m, now)
		}
		compareAsked(t, table, model)
	}
}

// askBoth renews or makes a mapping in both.
func askBoth(t *testing.T, c *Config, table *Table, model map[nat.Endpoint]nat.Mapping, m nat.Mapping, now time.Time) {
	t.Helper()
	own := 0
	for e, has := range model {
		if has.Ended() || has.Owner != m.Owner {
			continue
		}
		own++
		if e.Protocol == m.Outside.Protocol && has.InsidePort == m.InsidePort {
			if _, err := table.Plan(m, pool.Addr(), nobody); !errors.Is(err, ErrExists) {
				t.Fatalf("a second mapping of %d: %v", m.InsidePort, err)
			}
			has.ExpiresAt = m.ExpiresAt
			if !table.Renew(&has) {
				t.Fatalf("%v is not renewed", e)
			}
			model[e] = has
			return
		}
	}
	held := 0 // by the binding
	for e, has := range model {
		if has.Ended() && has.Owner == m.Owner && has.BoundAt.Equal(m.BoundAt) && e.Protocol == m.Outside.Protocol {
			held++
		}
	}
	free := func(e nat.Endpoint) bool {
		has, taken := model[e]
		other := e
		other.Protocol = nat.ProtocolTCP + nat.ProtocolUDP - e.Protocol
		switch beside, is := model[other]; {
		case is && beside.Owner != m.Owner:
			return false
		case !taken:
			return held < c.PCP
		case e == m.Outside:
			return has.Ended() && has.Owner == m.Owner && (has.BoundAt.Equal(m.BoundAt) || has.Nonce == m.Nonce)
		}
		return held >= c.PCP && has.Ended() && has.Owner == m.Owner && has.BoundAt.Equal(m.BoundAt)
	}
	var room bool
	for port := c.Range.First; port <= c.Range.Last; port++ {
		e := nat.Endpoint{Protocol: m.Outside.Protocol, AddrPort: netip.AddrPortFrom(pool.Addr(), uint16(port))}
		room = room || free(e)
	}
	var want error
	switch {
	case own >= c.PCP:
		want = ErrQuota
	case m.Outside.IsValid() && model[m.Outside] == nat.Mapping{} && held >= c.PCP:
		want = ErrFull
	case m.Outside.IsValid() && !free(m.Outside):
		want = ErrExists
	case !m.Outside.IsValid() && !room:
		want = ErrFull
	}
	made, err := table.Plan(m, pool.Addr(), nobody)
	if !errors.Is(err, want) || (err == nil) != (want == nil) {
		t.Fatalf("at %v, %+v: %v, want %v", now, m, err, want)
	}
	if err != nil {
		return
	}
	if has, taken := model[made.Outside]; taken && !free(made.Outside) {
		t.Fatalf("%v was chosen, which %+v has", made.Outside, has)
	}
	if !table.Put(made) {
		t.Fatalf("%v was planned, and cannot be put", made.Outside)
	}
	model[made.Outside] = made
}

func compareAsked(t *testing.T, table *Table, model map[nat.Endpoint]nat.Mapping) {
	t.Helper()
	n, inForce := 0, 0
	for m := range table.From(nat.Endpoint{}) {
		if n++; m != model[m.Outside] {
			t.Fatalf("the table has %+v, want %+v", m, model[m.Outside])
		}
		if !m.Ended() {
			inForce++
		}
	}
	if n != len(model) || table.Stored() != n || table.Len(nat.MappingPCP) != inForce {
		t.Fatalf("%d of %d, %d stored, %d in force of %d", n, len(model), table.Stored(), inForce, table.Len(nat.MappingPCP))
	}
}
