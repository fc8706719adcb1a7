package nftnat

import (
	"net/netip"
	"testing"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/netlab"
)

// TestFloodOfTheMachineHoldsUpNoRemoval_I5 removes a subscriber that goes on sending to the
// machine's own address, from port after port: that passes no gate, and its entries keep
// coming back. The receipt is about the entries through the NAT, and those are gone.
func TestFloodOfTheMachineHoldsUpNoRemoval_I5(t *testing.T) {
	for name, events := range map[string]string{"by the index": "2", "by the table": "0"} {
		t.Run(name, func(t *testing.T) {
			w := newWireTest(t)
			run(t, w.Lab, "sysctl", "-qw", "net.netfilter.nf_conntrack_events="+events)
			defer floodMachine(t, w.Lab)()
			for range 3 {
				apply(t, w, blockOf(alice, nat.GateOpen, 0))
				if _, err := w.Subscriber.AskUDP(testContext(t), netip.AddrPortFrom(alice, 5000), w.echo.Addr()); err != nil {
					t.Fatal(err)
				}
				apply(t, w, nat.Entry{Inside: alice})
				receipts, err := w.Reap(testContext(t), []netip.Addr{alice})
				if err != nil || len(receipts) != 1 {
					t.Fatalf("receipts are %+v: %v", receipts, err)
				}
				for s := range w.sessionsOf(t, alice) {
					if s.Remote.Addr() != netlab.InsideGateway.Addr() {
						t.Fatalf("a session is left: %+v", s)
					}
				}
			}
		})
	}
}

// sessionsOf reads the sessions of an address from the kernel.
func (w wireTest) sessionsOf(t *testing.T, inside netip.Addr) map[Session]bool {
	t.Helper()
	list := map[Session]bool{}
	err := w.SessionsOf(testContext(t), netip.PrefixFrom(inside, 32), func(s Session) error { list[s] = true; return nil })
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// floodMachine sends from alice to port after port of the machine until the returned
// function is called.
func floodMachine(t *testing.T, lab *netlab.Lab) (stop func()) {
	t.Helper()
	conn, err := lab.Subscriber.ListenUDP(netip.AddrPortFrom(alice, 6000))
	if err != nil {
		t.Fatal(err)
	}
	return floodPorts(conn, netlab.InsideGateway.Addr(), 1024, 60_000)
}
