package nftnat_test

import (
	"context"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/nftnat"
	"github.com/sessiond/sessiond/internal/nftnat/memnat"
)

// TestContract runs one body against the kernel and its twin.
func TestContract(t *testing.T) {
	t.Run("Kernel", func(t *testing.T) { nftnat.KernelTwin(t).Body(t) })
	t.Run("Memory", func(t *testing.T) { memoryTwin(t).Body(t) })
}

func memoryTwin(t *testing.T) nftnat.Twin {
	m, err := memnat.New([]netip.Prefix{netip.MustParsePrefix("100.64.0.0/10")}, nat.Timeouts{
		TCPEstablished: 7440 * time.Second, TCPTransitory: 240 * time.Second, UDP: 300 * time.Second, ICMP: 60 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var task sync.WaitGroup
	task.Go(func() { _ = m.Run(ctx) })
	t.Cleanup(func() { cancel(); task.Wait() })
	<-m.Ready()
	asking := func(remote netip.AddrPort) func(netip.AddrPort) (netip.AddrPort, error) {
		return func(inside netip.AddrPort) (netip.AddrPort, error) {
			s, err := m.Send(unix.IPPROTO_UDP, inside, remote)
			if err != nil {
				return netip.AddrPort{}, err
			}
			return s.Outside, m.Receive(s)
		}
	}
	remote := netip.MustParseAddrPort("203.0.113.10:7000")
	return nftnat.Twin{
		Contract: m,
		Ask:      asking(remote),
		Other:    asking(netip.MustParseAddrPort("203.0.113.11:7000")),
		Remote:   remote,
		Tamper: func(entries ...nat.Entry) {
			if err := m.Tamper(entries...); err != nil {
				t.Error(err)
			}
		},
		Reach: func(_, outside netip.AddrPort) error {
			_, err := m.Reach(unix.IPPROTO_UDP, netip.MustParseAddrPort("203.0.113.11:7001"), outside)
			return err
		},
	}
}
