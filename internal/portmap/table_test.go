package portmap

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/nat"
)

var (
	began = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	pool  = netip.MustParsePrefix("198.51.100.0/30")
)

func testConfig() Config {
	return Config{
		Inside: []netip.Prefix{netip.MustParsePrefix("100.64.0.0/24")}, Outside: []netip.Prefix{pool},
		Range: Range{60000, 60003}, PerOwner: 3, Hold: 2 * time.Minute,
	}
}

func tcp(text string) nat.Endpoint {
	return nat.Endpoint{Protocol: nat.ProtocolTCP, AddrPort: netip.MustParseAddrPort(text)}
}

func wish(user string, port nat.Port) nat.Mapping {
	return nat.Mapping{Group: "g", Kind: nat.MappingStatic, Owner: nat.Owner{UserName: user}, InsidePort: port, Outside: nat.Endpoint{Protocol: nat.ProtocolTCP}}
}

func nobody(nat.Endpoint) bool { return false }

// make plans a mapping and puts it.
func (t *Table) make(test *testing.T, m nat.Mapping, prefer netip.Addr) nat.Mapping {
	test.Helper()
	m, err := t.Plan(m, prefer, nobody)
	if err != nil {
		test.Fatal(err)
	}
	if !t.Put(m) {
		test.Fatalf("%v was planned and cannot be put", m.Outside)
	}
	return m
}

func TestChoice(t *testing.T) {
	table := New(testConfig())
	second := netip.MustParseAddr("198.51.100.1")
	if m := table.make(t, wish("alice", 80), second); m.Outside != tcp("198.51.100.1:60000") {
		t.Errorf("alice got %v, want the first port on the address of her binding (NAT-02)", m.Outside)
	}
	both := wish("alice", 80)
	both.Outside.Protocol = nat.ProtocolUDP
	table.make(t, wish("bob", 1), second)
	if m := table.make(t, both, netip.Addr{}); m.Outside.AddrPort != tcp("198.51.100.1:60000").AddrPort {
		t.Errorf("UDP got %v, want the port that TCP has", m.Outside)
	}
	for i := range 2 {
		table.make(t, wish(fmt.Sprint("user", i), 80), second)
	}
	if m := table.make(t, wish("carol", 80), second); m.Outside.Addr() == second {
		t.Errorf("carol got %v of a full address", m.Outside)
	}
	drains := netip.MustParseAddr("203.0.113.7")
	if m := table.make(t, wish("dave", 80), drains); !pool.Contains(m.Outside.Addr()) {
		t.Errorf("dave got %v, of an address that gives no ports", m.Outside)
	}
}

func TestRefused(t *testing.T) {
	table := New(testConfig())
	first := table.make(t, wish("alice", 80), netip.Addr{})
	at := func(m nat.Mapping, outside string) nat.Mapping {
		m.Outside = tcp(outside)
		return m
	}
	fixed := wish("", 80)
	fixed.Owner = nat.Owner{Inside: netip.MustParseAddr("192.0.2.1")}
	for _, tt := range []struct {
		what string
		m    nat.Mapping
		want error
		says string
	}{
		{"the same inside port again", wish("alice", 80), ErrExists, "delete that mapping"},
		{"the endpoint of another", at(wish("bob", 80), first.Outside.AddrPort.String()), ErrExists, "name another port"},
		{"another port", at(wish("bob", 80), "198.51.100.0:59999"), ErrOutside, "60000-60003"},
		{"another address", at(wish("bob", 80), "203.0.113.1:60000"), ErrOutside, "198.51.100.0/30"},
		{"an address of another group", fixed, ErrOutside, "100.64.0.0/24"},
	} {
		if _, err := table.Plan(tt.m, netip.Addr{}, nobody); !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, want %v, and %q", tt.what, err, tt.want, tt.says)
		}
	}
	for port := nat.Port(81); port < 83; port++ {
		table.make(t, wish("alice", port), netip.Addr{})
	}
	if _, err := table.Plan(wish("alice", 83), netip.Addr{}, nobody); !errors.Is(err, ErrFull) {
		t.Errorf("a fourth mapping of one owner: %v, want ErrFull", err)
	}
	all := func(nat.Endpoint) bool { return true }
	if _, err := table.Plan(wish("bob", 1), netip.Addr{}, all); !errors.Is(err, ErrFull) {
		t.Errorf("without a free port: %v, want ErrFull", err)
	}
	if _, err := New(Config{}).Plan(wish("bob", 1), netip.Addr{}, nobody); !errors.Is(err, ErrNoRange) {
		t.Errorf("without static_ports: %v, want ErrNoRange", err)
	}
}

// TestQuarantine_NAT30: an endpoint goes to nobody else before its hold is over.
// A group all of whose prefixes drain has no address to choose a port of, and keeps its mappings.
func TestAllDrain_NAT27(t *testing.T) {
	table := New(testConfig())
	first := table.make(t, wish("alice", 80), netip.Addr{})
	drained := testConfig()
	drained.Outside, drained.Draining = nil, drained.Outside
	if _, err := table.Configure(drained, began); err != nil {
		t.Fatal(err)
	}
	if m, err := table.Plan(wish("alice", 81), first.Outside.Addr(), nobody); !errors.Is(err, ErrFull) {
		t.Errorf("planned %v, error %v, want ErrFull", m.Outside, err)
	}
	if m, ok := table.At(first.Outside); !ok || m != first {
		t.Errorf("the mapping made before is %v", m)
	}
	if _, err := table.Configure(testConfig(), began); err != nil {
		t.Fatal(err)
	}
	table.make(t, wish("alice", 81), first.Outside.Addr())
}

func TestQuarantine_NAT30(t *testing.T) {
	table := New(testConfig())
	m := table.make(t, wish("alice", 80), netip.Addr{})
	ended, ok := table.End(m.Outside, began)
	if !ok || !ended.HoldUntil.Equal(began.Add(2*time.Minute)) || table.Len(nat.MappingStatic) != 0 || table.Empty() {
		t.Fatalf("ended: %+v, %v; %d in force", ended, ok, table.Len(nat.MappingStatic))
	}
	other := wish("bob", 80)
	other.Outside = m.Outside
	if _, err := table.Plan(other, netip.Addr{}, nobody); !errors.Is(err, ErrExists) || !strings.Contains(err.Error(), "quarantine") {
		t.Errorf("another owner in the hold: %v, want ErrExists", err)
	}
	if _, ok := table.Due(began.Add(time.Minute)); ok {
		t.Error("the hold is over too soon")
	}
	again := wish("alice", 80)
	again.Outside = m.Outside
	table.make(t, again, netip.Addr{})
	if due, ok := table.Due(began.Add(3 * time.Minute)); ok {
		t.Errorf("%v is due although its owner has it back", due.Outside)
	}
	table.End(m.Outside, began)
	if due, ok := table.Due(began.Add(2 * time.Minute)); !ok || due.Outside != m.Outside {
		t.Errorf("due: %v, %v", due.Outside, ok)
	}
	table.Remove(m.Outside)
	if table.make(t, other, netip.Addr{}); table.Len(nat.MappingStatic) != 1 {
		t.Error("the endpoint is not free after its hold")
	}
}

func TestConfigured(t *testing.T) {
	c := testConfig()
	one := nat.Mapping{Group: "g", Kind: nat.MappingStatic, Configured: true, Owner: nat.Owner{UserName: "alice"}, InsidePort: 22, Outside: tcp("198.51.100.1:60002")}
	table := New(c)
	c.Configured = []nat.Mapping{one}
	changed, err := table.Configure(c, began)
	if err != nil || len(changed.Begun) != 1 || len(changed.Ended) != 0 {
		t.Fatalf("added: %+v, %v", changed, err)
	}
	if changed, err = table.Configure(c, began); err != nil || len(changed.Begun)+len(changed.Ended) != 0 {
		t.Errorf("the same again: %+v, %v", changed, err)
	}
	moved := c
	other := one
	other.InsidePort = 2222
	moved.Configured = []nat.Mapping{other}
	if changed, err = table.Configure(moved, began); err != nil || len(changed.Begun) != 1 || len(changed.Ended) != 1 {
		t.Errorf("another inside port: %+v, %v", changed, err)
	}
	made := table.make(t, wish("bob", 22), netip.Addr{})
	clash := moved
	clash.Configured = append(slices.Clone(moved.Configured), nat.Mapping{Group: "g", Configured: true, Owner: nat.Owner{UserName: "carol"}, InsidePort: 1, Outside: made.Outside})
	if _, err := table.Configure(clash, began); err == nil || !strings.Contains(err.Error(), "bob") || table.Len(nat.MappingStatic) != 2 {
		t.Errorf("the endpoint of bob: %v, %d in force; want a refusal that names him", err, table.Len(nat.MappingStatic))
	}
	clash.Configured = []nat.Mapping{{Group: "g", Configured: true, Owner: nat.Owner{UserName: "bob"}, InsidePort: 22, Outside: tcp("198.51.100.3:60003")}}
	if _, err := table.Configure(clash, began); err == nil || !strings.Contains(err.Error(), "inside port 22") {
		t.Errorf("the inside port of bob: %v", err)
	}
	narrow := moved
	narrow.Range, narrow.Configured = Range{60003, 60003}, nil
	if _, err := table.Configure(narrow, began); err == nil || !strings.Contains(err.Error(), "sessionctl mapping delete") {
		t.Errorf("without bob's port: %v", err)
	}
}

// TestTakenOutOfTheConfiguration_NAT30: the endpoint of a configured mapping that is taken out is
// kept from others for the hold, but for another configured mapping.
func TestTakenOutOfTheConfiguration_NAT30(t *testing.T) {
	c := testConfig()
	one := nat.Mapping{Group: "g", Kind: nat.MappingStatic, Configured: true, Owner: nat.Owner{UserName: "alice"}, InsidePort: 22, Outside: tcp("198.51.100.1:60002")}
	with, moved := c, c
	with.Configured = []nat.Mapping{one}
	table := New(with)
	if changed, err := table.Configure(c, began); err != nil || !changed.Unstored || table.Stored() != 1 || table.Len(nat.MappingStatic) != 0 {
		t.Fatalf("taken out: %+v, %v; %d to store, %d in force", changed, err, table.Stored(), table.Len(nat.MappingStatic))
	}
	if has, ok := table.At(one.Outside); !ok || !has.HoldUntil.Equal(began.Add(c.Hold)) || has.Owner != one.Owner {
		t.Errorf("in quarantine is %+v, %v", has, ok)
	}
	other := wish("bob", 80)
	other.Outside = one.Outside
	if _, err := table.Plan(other, netip.Addr{}, nobody); !errors.Is(err, ErrExists) || !strings.Contains(err.Error(), "quarantine") {
		t.Errorf("another owner in the hold: %v, want ErrExists", err)
	}
	configured := other
	configured.Configured = true
	moved.Configured = []nat.Mapping{configured}
	if changed, err := table.Configure(moved, began); err != nil || !slices.Equal(changed.Begun, moved.Configured) || changed.Unstored || table.Stored() != 0 {
		t.Errorf("configured for another owner: %+v, %v; %d to store", changed, err, table.Stored())
	}
	narrow := c
	narrow.Range = Range{60003, 60003}
	if changed, err := table.Configure(narrow, began); err != nil || changed.Unstored || !table.Empty() {
		t.Errorf("taken out with its port: %+v, %v", changed, err)
	}
}

// A start takes over a stored mapping whose ports are no longer set apart. It is not in force, is in
// no way of other changes, and begins where its ports come back.
func TestStoredWithoutPorts(t *testing.T) {
	c := testConfig()
	c.Range = Range{}
	table := New(c)
	stored := wish("alice", 22)
	stored.Outside = tcp("198.51.100.1:60002")
	if !table.Put(stored) {
		t.Fatal("the stored mapping is not put")
	}
	c.Hold *= 2
	if changed, err := table.Configure(c, began); err != nil || len(changed.Begun)+len(changed.Ended) > 0 {
		t.Errorf("another change: %+v, %v", changed, err)
	}
	changed, err := table.Configure(testConfig(), began)
	if err != nil || !slices.Equal(changed.Begun, []nat.Mapping{stored}) {
		t.Errorf("its ports again: %+v, %v", changed, err)
	}
	if in := slices.Collect(table.Of(stored.Owner)); !slices.Equal(in, []nat.Mapping{stored}) {
		t.Errorf("in force are %v", in)
	}
	if _, err := table.Configure(c, began); err == nil {
		t.Error("its ports are taken away while it is in force")
	}
}

// TestRandomWalk_NAT02_NAT30 compares a Table with a list of mappings.
func TestRandomWalk_NAT02_NAT30(t *testing.T) {
	for seed := range uint64(20) {
		walk(t, rand.New(rand.NewPCG(seed, 1)))
	}
}

type model map[nat.Endpoint]nat.Mapping

func walk(t *testing.T, r *rand.Rand) {
	c := testConfig()
	table, list, now := New(c), model{}, began
	for step := range 400 {
		now = now.Add(time.Duration(r.IntN(20)) * time.Second)
		for {
			due, ok := table.Due(now)
			if !ok {
				break
			}
			if due.Ended() {
				table.Remove(due.Outside)
			} else {
				table.End(due.Outside, now)
			}
		}
		for e, m := range list {
			switch {
			case m.Ended() && !m.HoldUntil.After(now):
				delete(list, e)
			case !m.Ended() && !m.ExpiresAt.IsZero() && !m.ExpiresAt.After(now):
				m.HoldUntil = now.Add(c.Hold)
				if list[e] = m; c.Hold == 0 {
					delete(list, e)
				}
			}
		}
		switch r.IntN(3) {
		case 0, 1:
			m := wish(fmt.Sprint("user", r.IntN(8)), nat.Port(r.IntN(4)+1))
			if r.IntN(2) == 0 {
				m.Outside.Protocol = nat.ProtocolUDP
			}
			if r.IntN(2) == 0 {
				m.Outside.AddrPort = netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(r.IntN(5))}), uint16(59999+r.IntN(5)))
			}
			if r.IntN(3) == 0 {
				m.ExpiresAt = now.Add(time.Duration(r.IntN(200)+1) * time.Second)
			}
			list.check(t, &c, m, table)
		case 2:
			for e, m := range list {
				_, ok := table.End(e, now)
				if ok == m.Ended() {
					t.Fatalf("step %d: End of %v: %v, it is %+v", step, e, ok, m)
				}
				if ok {
					m.HoldUntil = now.Add(c.Hold)
					list[e] = m
				}
				break
			}
		}
		list.compare(t, step, table)
	}
}

// check makes a mapping in both, and compares the answers.
func (list model) check(t *testing.T, c *Config, m nat.Mapping, table *Table) {
	t.Helper()
	var want error
	own, free := 0, 0
	for _, has := range list {
		if has.Ended() || has.Owner != m.Owner {
			continue
		}
		if own++; has.InsidePort == m.InsidePort && has.Outside.Protocol == m.Outside.Protocol {
			want = ErrExists
		}
	}
	for a := pool.Addr(); pool.Contains(a); a = a.Next() {
		for port := c.Range.First; port <= c.Range.Last; port++ {
			if _, has := list[nat.Endpoint{Protocol: m.Outside.Protocol, AddrPort: netip.AddrPortFrom(a, uint16(port))}]; !has {
				free++
			}
		}
	}
	asked := m.Outside.IsValid()
	if has, taken := list[m.Outside]; want == nil && own >= c.PerOwner {
		want = ErrFull
	} else if want == nil && asked && taken && (!has.Ended() || has.Owner != m.Owner) {
		want = ErrExists
	} else if want == nil && !asked && free == 0 {
		want = ErrFull
	}
	if asked && !c.Has(m.Outside) {
		want = ErrOutside
	}
	made, err := table.Plan(m, netip.Addr{}, nobody)
	if !errors.Is(err, want) || (err == nil) != (want == nil) {
		t.Fatalf("%+v: %v, want %v", m, err, want)
	}
	if err != nil {
		return
	}
	if has, taken := list[made.Outside]; taken && (!has.Ended() || has.Owner != m.Owner) {
		t.Fatalf("%v was chosen, which %+v has", made.Outside, has)
	}
	if asked && made.Outside != m.Outside || !table.Put(made) {
		t.Fatalf("%v was planned as %v, and cannot be put", m.Outside, made.Outside)
	}
	list[made.Outside] = made
}

// compare checks that the table has what the model has, in order.
func (list model) compare(t *testing.T, step int, table *Table) {
	t.Helper()
	var got []nat.Endpoint
	inForce := 0
	for m := range table.From(nat.Endpoint{}) {
		if m != list[m.Outside] {
			t.Fatalf("step %d: the table has %+v, want %+v", step, m, list[m.Outside])
		}
		got = append(got, m.Outside)
		if !m.Ended() {
			inForce++
		}
	}
	if len(got) != len(list) || table.Stored() != len(list) || !slices.IsSortedFunc(got, nat.Endpoint.Compare) || table.Len(nat.MappingStatic) != inForce || table.In(pool) != inForce {
		t.Fatalf("step %d: %d listed of %d, sorted %v; %d in force by the list, %d by Len, %d by In", step, len(got), len(list), slices.IsSortedFunc(got, nat.Endpoint.Compare), inForce, table.Len(nat.MappingStatic), table.In(pool))
	}
	owned := 0
	for o := range maps.Keys(table.owners) {
		for m := range table.Of(o) {
			if owned++; m.Owner != o || m.Ended() {
				t.Fatalf("step %d: %v has %+v", step, o, m)
			}
		}
	}
	if owned != inForce {
		t.Fatalf("step %d: owners have %d of %d", step, owned, inForce)
	}
	for i := range got {
		n := 0
		for m := range table.From(got[i]) {
			if m.Outside != got[i+n] {
				t.Fatalf("step %d: from %v on, number %d is %v", step, got[i], n, m.Outside)
			}
			n++
		}
		if n != len(got)-i {
			t.Fatalf("step %d: from %v on there are %d, want %d", step, got[i], n, len(got)-i)
		}
	}
}

// TestRemovedLeaveNoTimes: mappings that are removed long before their lifetime is over leave no
// memory behind, and those that stay are due in time.
func TestRemovedLeaveNoTimes(t *testing.T) {
	table := New(testConfig())
	kept := wish("bob", 22)
	kept.ExpiresAt = began.Add(time.Hour)
	kept = table.make(t, kept, netip.Addr{})
	for i := range 10_000 {
		m := wish("alice", 22)
		m.ExpiresAt = began.Add(24*time.Hour + time.Duration(i)*time.Second)
		table.Remove(table.make(t, m, netip.Addr{}).Outside)
	}
	if n := len(table.due); n > 2*dueLeast {
		t.Errorf("%d times are kept, of one mapping", n)
	}
	if m, ok := table.Due(kept.ExpiresAt); !ok || m.Outside != kept.Outside {
		t.Errorf("due is %+v, %t; want that of bob", m, ok)
	}
}
