package radiusacct

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"testing"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// TestLongestPrefix_ACCT04 compares the table with a linear search.
func TestLongestPrefix_ACCT04(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 50 {
		var clients []Client
		seen := make(map[netip.Prefix]bool)
		for range 40 {
			p := netip.PrefixFrom(randomAddr(r), 0)
			p, _ = p.Addr().Prefix(r.IntN(p.Addr().BitLen() + 1))
			if !seen[p] {
				seen[p] = true
				clients = append(clients, Client{Name: strconv.Itoa(len(clients)), Prefix: p, Secret: []byte("s")})
			}
		}
		table, err := newClientTable(clients, func(name string) *clientState { return &clientState{name: name} }, testRealm)
		if err != nil {
			t.Fatal(err)
		}
		for range 200 {
			source := randomAddr(r)
			got := clientAt(table, source)
			if want := longest(clients, source); want != nameOf(got) {
				t.Fatalf("%v found %q, want %q", source, nameOf(got), want)
			}
		}
	}
}

// randomAddr draws from few values, so that prefixes contain each other.
func randomAddr(r *rand.Rand) netip.Addr {
	if r.IntN(2) == 0 {
		return netip.AddrFrom4([4]byte{byte(r.IntN(2) * 10), byte(r.IntN(2)), 0, byte(r.IntN(4))})
	}
	var b [16]byte
	b[0], b[1], b[15] = 0x20, byte(r.IntN(3)), byte(r.IntN(4))
	return netip.AddrFrom16(b)
}

func longest(clients []Client, source netip.Addr) string {
	best, name := -1, ""
	for _, c := range clients {
		if c.Prefix.Contains(source) && c.Prefix.Bits() > best {
			best, name = c.Prefix.Bits(), c.Name
		}
	}
	return name
}

// clientAt returns the client of a source address, or nil.
func clientAt(table *clientTable, source netip.Addr) *client {
	c, _ := table.prefixes.Lookup(source)
	return c
}

func nameOf(c *client) string {
	if c == nil {
		return ""
	}
	return c.Name
}

func testRealm(name string) *realm { return newRealm(name, 1) }

func TestClientsSharingAName(t *testing.T) {
	made := 0
	table, err := newClientTable([]Client{
		{Name: "bng", Prefix: netip.MustParsePrefix("::ffff:192.0.2.1/128"), Secret: []byte("a")},
		{Name: "bng", Prefix: netip.MustParsePrefix("192.0.2.99/28"), Secret: []byte("b")},
	}, func(name string) *clientState { made++; return &clientState{name: name} }, testRealm)
	if err != nil {
		t.Fatal(err)
	}
	a, b := clientAt(table, netip.MustParseAddr("192.0.2.1")), clientAt(table, netip.MustParseAddr("192.0.2.100"))
	if made != 1 || a == nil || b == nil || a.peer != b.peer {
		t.Errorf("%d peers, %v and %v, want one shared", made, a, b)
	}
}

// TestRealmIsShared: clients of one realm share its queues but no caches; other clients
// have a realm of their own.
func TestRealmIsShared(t *testing.T) {
	prefix := netip.MustParsePrefix
	table, err := newClientTable([]Client{
		{Name: "p1", Realm: "core", Prefix: prefix("192.0.2.1/32"), Secret: []byte("a")},
		{Name: "p2", Realm: "core", Prefix: prefix("192.0.2.2/32"), Secret: []byte("b")},
		{Name: "bng", Prefix: prefix("192.0.2.3/32"), Secret: []byte("c")},
	}, func(name string) *clientState { return &clientState{name: name} }, testRealm)
	if err != nil {
		t.Fatal(err)
	}
	at := func(a string) *client { return clientAt(table, netip.MustParseAddr(a)) }
	one, two, alone := at("192.0.2.1"), at("192.0.2.2"), at("192.0.2.3")
	if one.realm != two.realm || one.peer == two.peer || alone.realm == one.realm || alone.realm.name != "bng" {
		t.Errorf("realms %v, %v and %v", one.realm.name, two.realm.name, alone.realm.name)
	}
}

// TestBounds: an address is within bounds if it is within any of the prefixes, also if
// these overlap or touch.
func TestBounds(t *testing.T) {
	for _, tt := range []struct {
		prefixes       []string
		within, beyond []string
	}{
		{prefixes: []string{}, beyond: []string{"0.0.0.0", "100.64.0.1", "255.255.255.255"}},
		{prefixes: []string{"0.0.0.0/0"}, within: []string{"0.0.0.0", "100.64.0.1", "255.255.255.255"}},
		{prefixes: []string{"100.64.0.9/32"}, within: []string{"100.64.0.9"}, beyond: []string{"100.64.0.8", "100.64.0.10"}},
		{
			prefixes: []string{"100.64.2.0/24", "100.64.0.0/23", "100.64.0.128/25", "100.80.0.0/12"},
			within:   []string{"100.64.0.0", "100.64.1.255", "100.64.2.0", "100.64.2.255", "100.80.0.0", "100.95.255.255"},
			beyond:   []string{"100.63.255.255", "100.64.3.0", "100.79.255.255", "100.96.0.0"},
		},
		{prefixes: []string{"255.255.255.255/32", "255.255.255.254/32"}, within: []string{"255.255.255.255"}, beyond: []string{"255.255.255.253"}},
	} {
		prefixes := []netip.Prefix{}
		for _, p := range tt.prefixes {
			prefixes = append(prefixes, netip.MustParsePrefix(p))
		}
		b := newInsideBounds(prefixes)
		for _, a := range slices.Concat(tt.within, tt.beyond) {
			if got, want := b.allow(netip.MustParseAddr(a)), slices.Contains(tt.within, a); got != want {
				t.Errorf("%v: %v is within: %t, want %t", tt.prefixes, a, got, want)
			}
		}
		if !b.allow(netip.Addr{}) {
			t.Errorf("%v: no address is out of bounds", tt.prefixes)
		}
	}
	if b := newInsideBounds(nil); b != nil {
		t.Errorf("a client without bounds has %v", b)
	}
}

// TestBoundsMarkEachAddress: of a session with several addresses, only those out of bounds
// are marked.
func TestBoundsMarkEachAddress(t *testing.T) {
	inside := func(a string) subscriber.Event { return subscriber.Event{Inside: netip.MustParseAddr(a)} }
	first, more := inside("100.64.0.1"), []subscriber.Event{inside("100.65.0.1"), inside("100.64.0.2")}
	newInsideBounds([]netip.Prefix{netip.MustParsePrefix("100.64.0.0/16")}).mark(&first, more)
	if first.ForeignInside || !more[0].ForeignInside || more[1].ForeignInside {
		t.Errorf("marked: %t, %t, %t", first.ForeignInside, more[0].ForeignInside, more[1].ForeignInside)
	}
}
