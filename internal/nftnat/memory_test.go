package nftnat

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/netlab"
	"golang.org/x/sys/unix"
)

// TestMemoryTraffic tests the simulated traffic, which only the twin has.
func TestMemoryTraffic(t *testing.T) {
	m, err := NewMemory(labOptions(&netlab.Lab{CGN: netlab.Current()}))
	if err != nil {
		t.Fatal(err)
	}
	apply(t, m, nat.Entry{Inside: alice, Gate: nat.GateOpen, Block: nat.Block{Outside: eip, First: 1024, Last: 1025}})
	from, web := netip.AddrPortFrom(alice, 5000), netip.MustParseAddrPort("203.0.113.10:80")

	first, err := m.Send(unix.IPPROTO_TCP, from, web)
	if err != nil || first.State != "SYN_SENT" || first.ExpiresIn != testTimeouts.TCPTransitory {
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
	if err != nil || echo.Outside.Port() != 1024 || echo.Remote.Port() != 0 || echo.ExpiresIn != testTimeouts.ICMP {
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
	apply(t, m, nat.Entry{Inside: alice})
	if err := m.Receive(second); !errors.Is(err, ErrDropped) {
		t.Errorf("a packet to a closed gate: %v", err)
	}
}
