package nat

import (
	"net/netip"
	"testing"
	"time"
)

const second = time.Second

var elsewhere = Timeouts{
	TCPEstablished: 7440 * second, TCPTransitory: 240 * second, TCPPartialClose: 100 * second, UDP: 300 * second, ICMP: 60 * second,
}

func TestGroupTimeoutsOver(t *testing.T) {
	for name, c := range map[string]struct{ own, want Timeouts }{
		"none of its own": {want: elsewhere},
		"some": {
			own:  Timeouts{UDP: 10 * second, ICMP: 70 * second, TCPPartialOpen: 30 * second},
			want: Timeouts{7440 * second, 240 * second, 30 * second, 100 * second, 10 * second, 70 * second},
		},
		"transitory also where elsewhere tells both phases apart": {
			own:  Timeouts{TCPTransitory: 500 * second},
			want: Timeouts{7440 * second, 500 * second, 0, 0, 300 * second, 60 * second},
		},
	} {
		if got := (GroupTimeouts{Own: c.own}).Over(elsewhere); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

func TestTimeoutsOf(t *testing.T) {
	inside := netip.MustParsePrefix("100.64.0.0/24")
	groups := []GroupTimeouts{{
		Inside: []netip.Prefix{inside}, Own: Timeouts{UDP: 600 * second},
		Ports: []PortTimeout{{protocolUDP, 53, 10 * second}, {protocolTCP, 53, 150 * second}},
	}}
	of := func(a string, protocol uint8, port uint16) Timeouts {
		return TimeoutsOf(elsewhere, groups, netip.MustParseAddr(a), protocol, port)
	}
	if got := of("100.64.1.1", protocolUDP, 53); got != elsewhere {
		t.Errorf("of no group: %+v", got)
	}
	if got := of("100.64.0.1", protocolUDP, 53).UDP; got != 10*second {
		t.Errorf("UDP 53 has %v", got)
	}
	if got := of("100.64.0.1", protocolUDP, 54).UDP; got != 600*second {
		t.Errorf("UDP 54 has %v", got)
	}
	tcp := of("100.64.0.1", protocolTCP, 53)
	if tcp.TCPEstablished != 150*second || tcp.PartialOpen() != 150*second || tcp.PartialClose() != 100*second {
		t.Errorf("TCP 53 has %+v", tcp)
	}
	if err := tcp.Check(); err != nil {
		t.Error(err)
	}
}

func TestCheckGroups(t *testing.T) {
	of := func(prefix string, own Timeouts, ports ...PortTimeout) GroupTimeouts {
		return GroupTimeouts{[]netip.Prefix{netip.MustParsePrefix(prefix)}, own, ports}
	}
	for name, groups := range map[string][]GroupTimeouts{
		"prefix twice":     {of("100.64.0.0/24", Timeouts{}), of("100.64.0.7/32", Timeouts{})},
		"half a second":    {of("100.64.0.0/24", Timeouts{UDP: 1500 * time.Millisecond})},
		"negative":         {of("100.64.0.0/24", Timeouts{TCPPartialOpen: -second})},
		"port twice":       {of("100.64.0.0/24", Timeouts{}, PortTimeout{protocolUDP, 53, second}, PortTimeout{protocolUDP, 53, second})},
		"another protocol": {of("100.64.0.0/24", Timeouts{}, PortTimeout{1, 53, second})},
		"port without one": {of("100.64.0.0/24", Timeouts{}, PortTimeout{protocolUDP, 53, 0})},
	} {
		if CheckGroups(groups) == nil {
			t.Errorf("%s was taken", name)
		}
	}
	good := []GroupTimeouts{of("100.64.0.0/24", Timeouts{UDP: second}, PortTimeout{protocolUDP, 53, second}, PortTimeout{protocolTCP, 53, second}), of("100.64.1.0/24", Timeouts{})}
	if err := CheckGroups(good); err != nil || good[0].Plain() || !good[1].Plain() {
		t.Errorf("%v", err)
	}
}
