package main

import (
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/config"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/radiusacct"
	"github.com/sessiond/sessiond/internal/radiusacct/radsec"
	"github.com/sessiond/sessiond/internal/radiusacct/wire"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb"
)

// TestRadiusClients: each source of a client has an entry, one of them has the
// certificate, and every word of the configuration is converted.
func TestRadiusClients(t *testing.T) {
	one, two := netip.MustParsePrefix("192.0.2.0/25"), netip.MustParsePrefix("198.51.100.9/32")
	certificate := radsec.Certificate{SAN: "p1.example"}
	groups := []config.Group{{Name: "east", Inside: []netip.Prefix{netip.MustParsePrefix("100.64.0.0/16")}}, {Name: "empty"}, {Name: "west"}}
	bound := netip.MustParsePrefix("100.96.0.0/24")
	got := radiusClients(config.Config{Groups: groups, RADIUS: config.RADIUS{Clients: []config.RADIUSClient{
		{Name: "p1", Prefixes: []netip.Prefix{one, two}, Secret: []byte("s"), Certificate: config.Certificate{SAN: "p1.example"},
			Realm: "core", NASIdentity: "both", Restarts: "confirm", Services: "count", StatusServer: true,
			ServiceMarks: []config.VendorAttribute{{Vendor: 2352, Type: 190}}, Inside: []netip.Prefix{bound}, Groups: []string{"east"}},
		{Name: "tls", Certificate: config.Certificate{SAN: "tls.example"}, NASIdentity: "address", Restarts: "ignore", Services: "ignore", Groups: []string{"empty"}},
	}}})
	p1 := radiusacct.Client{
		Name: "p1", Prefix: one, Secret: []byte("s"), Certificate: certificate,
		Realm: "core", NASIdentity: wire.NASBoth, Restarts: subscriber.RestartsConfirmed, CountServices: true,
		ServiceMarks: []wire.VendorAttribute{{Vendor: 2352, Type: 190}}, Inside: []netip.Prefix{bound, groups[0].Inside[0]},
	}
	more := p1
	more.Prefix, more.Certificate = two, radsec.Certificate{}
	tls := radiusacct.Client{
		Name: "tls", Certificate: radsec.Certificate{SAN: "tls.example"}, IgnoreStatusServer: true,
		NASIdentity: wire.NASAddress, Restarts: subscriber.RestartsIgnored, Inside: []netip.Prefix{},
	}
	if want := []radiusacct.Client{p1, more, tls}; !reflect.DeepEqual(got, want) {
		t.Errorf("clients are\n%+v, want\n%+v", got, want)
	}
	server, err := radiusacct.New(radiusacct.Options{Listen: []string{"127.0.0.1:0"}, Clients: got[:2], Recorder: subscriberdb.Recorder{}})
	if err != nil {
		t.Fatal(err)
	}
	server.Close()
}

// TestOutsideToOthers: networks that are neither inside nor outside are closed
// to outside hosts unless the configuration opens them.
func TestOutsideToOthers(t *testing.T) {
	for word, want := range map[string]bool{"drop": false, "accept": true} {
		c := config.Config{NAT: config.NAT{OutsideToOthers: word}}
		if got := natOptions(c, nil).OutsideToOthers; got != want {
			t.Errorf("%s opens them: %t", word, got)
		}
	}
}

// TestDatabaseClients_SES16: a client is known by its name and by that of its
// realm.
func TestDatabaseClients_SES16(t *testing.T) {
	got := databaseClients([]config.RADIUSClient{{Name: "p1", Realm: "core"}, {Name: "p2", Realm: "core"}, {Name: "bng"}, {Name: "bng"}})
	if want := (subscriberdb.Realms{"p1": "core", "p2": "core", "bng": ""}); !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestClientTTL_SES18: the TTL is found under the name of a session's realm,
// and for an older session under its client's name.
func TestClientTTL_SES18(t *testing.T) {
	hour, never := time.Hour, time.Duration(0)
	got := clientTTL([]config.RADIUSClient{
		{Name: "p1", Realm: "core", RecordTTL: &hour}, {Name: "p2", Realm: "core", RecordTTL: &hour},
		{Name: "bng", RecordTTL: &never}, {Name: "other"},
	})
	if want := map[string]time.Duration{"p1": hour, "p2": hour, "core": hour, "bng": 0}; !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestGroupTimeouts_NAT05: every group is converted, with its prefixes and ports.
func TestGroupTimeouts_NAT05(t *testing.T) {
	inside := []netip.Prefix{netip.MustParsePrefix("100.64.0.0/16")}
	own := config.IdleTimeouts{TCPEstablished: 1, TCPTransitory: 2, TCPPartialOpen: 3, TCPPartialClose: 4, UDP: 5, ICMP: 6}
	got := natOptions(config.Config{Groups: []config.Group{
		{Name: "a", Inside: inside, IdleTimeouts: own, PortTimeouts: []config.PortTimeout{{Protocol: "udp", Port: 53, Timeout: 7}, {Protocol: "tcp", Port: 80, Timeout: 8}}},
		{Name: "b"},
	}}, nil).GroupTimeouts
	want := []nat.GroupTimeouts{
		{Inside: inside, Own: nat.Timeouts{TCPEstablished: 1, TCPTransitory: 2, TCPPartialOpen: 3, TCPPartialClose: 4, UDP: 5, ICMP: 6},
			Ports: []nat.PortTimeout{{Protocol: 17, Port: 53, Timeout: 7}, {Protocol: 6, Port: 80, Timeout: 8}}},
		{},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("they are %+v, want %+v", got, want)
	}
}

// TestMappingsOfDrainingPrefixes: live bindings in a prefix that drains keep their mappings.
func TestMappingsOfDrainingPrefixes_NAT07_NAT27(t *testing.T) {
	a, b := netip.MustParsePrefix("198.51.100.0/29"), netip.MustParsePrefix("198.51.100.8/29")
	got := natOptions(config.Config{Groups: []config.Group{{
		Outside: []netip.Prefix{a}, Draining: []netip.Prefix{b},
		Mapping: config.EndpointIndependent, Filtering: config.EndpointIndependent,
	}}}, nil).Mappings
	for _, prefixes := range [][]netip.Prefix{got.EndpointIndependent, got.Open, got.Strict} {
		if !reflect.DeepEqual(prefixes, []netip.Prefix{a, b}) {
			t.Errorf("the prefixes are %v, want %v and %v", prefixes, a, b)
		}
	}
}

// TestPinsOfGroups_NAT35: the table has maps of pins where the ports of new sessions may move.
func TestPinsOfGroups_NAT35(t *testing.T) {
	for _, c := range []struct {
		mapping      string
		size, blocks int
		pins         bool
	}{
		{"", 128, 1, false},
		{"", 64, 2, true},
		{"", 256, 1, true},
		{config.EndpointIndependent, 64, 2, false},
		{config.EndpointIndependent, 64, 4, true},
		{config.EndpointIndependent, 512, 0, true},
	} {
		g := config.Group{Mapping: c.mapping, BlockSize: c.size, MaxBlocks: c.blocks}
		if got := natOptions(config.Config{Groups: []config.Group{g}}, nil).Mappings; got.Pinned != c.pins {
			t.Errorf("mapping %q, %d blocks of %d ports: pins %t", c.mapping, c.blocks, c.size, got.Pinned)
		}
	}
}
