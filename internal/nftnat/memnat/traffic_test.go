package memnat

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/nat"
)

var (
	alice    = netip.MustParseAddr("100.64.0.10")
	inside   = []netip.Prefix{netip.MustParsePrefix("100.64.0.0/10")}
	timeouts = nat.Timeouts{TCPEstablished: 7440 * time.Second, TCPTransitory: 240 * time.Second, UDP: 300 * time.Second, ICMP: 60 * time.Second}
)

// TestNewNamesTheBadArgument has the inside prefixes and the timeouts that New refuses.
func TestNewNamesTheBadArgument(t *testing.T) {
	short := timeouts
	short.UDP = 0
	for want, open := range map[string]func() (*NAT, error){
		"InsidePrefixes": func() (*NAT, error) { return New(nil, timeouts) },
		"2001:db8::/32":  func() (*NAT, error) { return New([]netip.Prefix{netip.MustParsePrefix("2001:db8::/32")}, timeouts) },
		"Timeouts.UDP":   func() (*NAT, error) { return New(inside, short) },
	} {
		if _, err := open(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error is %v", want, err)
		}
	}
}

// TestTraffic tests the simulated traffic, which only the twin has.
func TestTraffic(t *testing.T) {
	m, err := New(inside, timeouts)
	if err != nil {
		t.Fatal(err)
	}
	block := nat.Block{Outside: netip.MustParseAddr("198.51.100.1"), First: 1024, Last: 1025}
	if err := m.Apply(t.Context(), []nat.Entry{{Inside: alice, Gate: nat.GateOpen, Block: block}}); err != nil {
		t.Fatal(err)
	}
	from, web := netip.AddrPortFrom(alice, 5000), netip.MustParseAddrPort("203.0.113.10:80")

	first, err := m.Send(unix.IPPROTO_TCP, from, web)
	if err != nil || first.State != "SYN_SENT" || first.ExpiresIn != timeouts.TCPTransitory {
		t.Errorf("session is %+v: %v", first, err)
	}
	if err := m.Receive(first); err != nil {
		t.Error(err)
	}
	again, err := m.Send(unix.IPPROTO_TCP, from, web)
	if err != nil || again.State != "ESTABLISHED" || again.Outside != first.Outside || again.Packets != 3 {
		t.Errorf("session is %+v: %v", again, err)
	}
	second, err := m.Send(unix.IPPROTO_TCP, from, netip.MustParseAddrPort("203.0.113.20:80"))
	if err != nil || second.Outside != first.Outside { // RFC 4787 REQ-1
		t.Errorf("to another remote it is seen from %v, want %v: %v", second.Outside, first.Outside, err)
	}
	echo, err := m.Send(unix.IPPROTO_ICMP, netip.AddrPortFrom(alice, 7), netip.AddrPortFrom(web.Addr(), 0))
	if err != nil || echo.Outside.Port() != 1024 || echo.Remote.Port() != 0 || echo.ExpiresIn != timeouts.ICMP {
		t.Errorf("echo is %+v: %v", echo, err)
	}
	if _, err := m.Send(unix.IPPROTO_TCP, netip.AddrPortFrom(alice, 5001), web); err != nil {
		t.Error(err)
	}
	if _, err := m.Send(unix.IPPROTO_TCP, netip.AddrPortFrom(alice, 5002), web); !errors.Is(err, ErrDropped) {
		t.Errorf("a third port of a block of two: %v", err)
	}
	m.Expire(first)
	if err := m.Receive(first); !errors.Is(err, ErrDropped) {
		t.Errorf("a packet of an expired session: %v", err)
	}
	if err := m.Apply(t.Context(), []nat.Entry{{Inside: alice}}); err != nil {
		t.Fatal(err)
	}
	if err := m.Receive(second); !errors.Is(err, ErrDropped) {
		t.Errorf("a packet to a closed gate: %v", err)
	}
}
