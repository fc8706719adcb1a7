package interop

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/testenv"
)

// scapy runs a script of testdata in a namespace, by Debian's own Python, for which the package
// is built.
func (r *router) scapy(in *netlab.Namespace, script string, args ...any) {
	r.t.Helper()
	words := []string{"testdata/" + script}
	for _, a := range args {
		words = append(words, fmt.Sprint(a))
	}
	out, err := r.within(in, "/usr/bin/python3", words...).CombinedOutput()
	if err != nil {
		r.t.Fatalf("%s: %v\n%s", script, err, out)
	}
}

// listen opens a UDP socket that reads until the test's time is over.
func (r *router) listen(n *netlab.Namespace, at netip.AddrPort) *net.UDPConn {
	r.t.Helper()
	c, err := n.ListenUDP(at)
	r.must(err)
	r.t.Cleanup(func() { _ = c.Close() })
	r.must(c.SetReadDeadline(time.Now().Add(30 * time.Second)))
	return c
}

// datagrams reads datagrams until that of the name "end", and returns the names of the others,
// and their source. It checks that all are whole, from one source.
func (r *router) datagrams(at *net.UDPConn) (names []string, source netip.AddrPort) {
	r.t.Helper()
	for buf := make([]byte, 1<<16); ; {
		n, from, err := at.ReadFromUDPAddrPort(buf)
		r.must(err)
		name, rest, _ := strings.Cut(string(buf[:n]), " ")
		if source.IsValid() && from != source {
			r.t.Errorf("%s comes from %v, earlier ones from %v", name, from, source)
		}
		if source = from; name == "end" {
			return names, source
		}
		if len(name)+1+len(rest) != 3001 || strings.Trim(rest, "x") != "" {
			r.t.Errorf("%s is not as it was sent: %d octets", name, n)
		}
		names = append(names, name)
	}
}

// TestScapyFragments_NAT13: datagrams in four fragments pass both ways, in any order. A fragment
// that came before, whatever it has now, changes nothing. None passes with fragments that overlap
// otherwise (RFC 5722 section 4, which the kernel follows in IPv4 too), or without one of them.
func TestScapyFragments_NAT13(t *testing.T) {
	r := startRouter(t, testenv.Scapy, "")
	outside := r.captureOn(netlab.OutsideInterface)
	inside, remote := netip.AddrPortFrom(alice, 5000), netip.AddrPortFrom(r.remote, 7001)
	subscriber, host := r.listen(r.Lab.Subscriber, inside), r.listen(r.Lab.Internet, remote)
	whole := []string{"0123", "3210", "1032", "2301", "0213", "3120", "twice", "within", "within-header"}

	r.scapy(r.Lab.Subscriber, "fragments.py", inside.Addr(), inside.Port(), remote.Addr(), remote.Port())
	names, seen := r.datagrams(host)
	if !slices.Equal(names, whole) || !r.alice.Covers(seen) {
		t.Errorf("out came %q from %v, want %q from the block", names, seen, whole)
	}
	r.scapy(r.Lab.Internet, "fragments.py", remote.Addr(), remote.Port(), seen.Addr(), seen.Port())
	if names, from := r.datagrams(subscriber); !slices.Equal(names, whole) || from != remote {
		t.Errorf("in came %q from %v, want %q from %v", names, from, whole, remote)
	}
	if n := r.audited(); n != 1 {
		t.Errorf("conntrack has %d entries of one flow", n)
	}
	r.leaksNothing(outside)
}

// TestScapyErrors_NAT11_NAT23: of ICMP errors with every kind of quotation those arrive that
// RFC 5508 section 4.1 lets pass; a wrong checksum of the quoted transport header (7) is not the
// NAT's affair (REQ-3 d). Those with a wrong ICMP checksum (5), without a mapping (8), or without
// ports (9) do not. One whose quoted IP header has a wrong checksum (6) passes: the kernel
// does not look at it, though REQ-3 b asks for that with a SHOULD.
func TestScapyErrors_NAT11_NAT23(t *testing.T) {
	r := startRouter(t, testenv.Scapy, "")
	echo, err := r.Lab.StartEcho(netip.AddrPortFrom(r.remote, 7000))
	r.must(err)
	from := netip.AddrPortFrom(alice, 5000)
	seen, err := r.Lab.Subscriber.AskUDP(r.ctx, from, echo.Addr())
	r.must(err)
	inside := r.captureOn(netlab.InsideInterface)
	r.scapy(r.Lab.Internet, "errors.py", r.Lab.Remotes[1], seen.Addr(), seen.Port(), r.remote, 7000)
	r.must(inside.Settle(r.ctx, r.Lab.CGN, alice))
	var came []uint8
	for _, p := range inside.Matching(func(p netlab.Packet) bool { return p.Outgoing && p.Quoted != nil }) {
		came = append(came, p.Code)
		if p.Source.Addr() != r.Lab.Remotes[1] || p.Destination.Addr() != alice || p.Quoted.Source != from || p.Quoted.Destination != echo.Addr() {
			t.Errorf("an error of code %d is from %v to %v, and quotes %v to %v", p.Code, p.Source, p.Destination, p.Quoted.Source, p.Quoted.Destination)
		}
	}
	if want := []uint8{0, 1, 6, 7, 10}; !slices.Equal(came, want) {
		t.Errorf("errors of codes %d came in, want %d", came, want)
	}
	if again, err := r.Lab.Subscriber.AskUDP(r.ctx, from, echo.Addr()); err != nil || again != seen {
		t.Errorf("after the errors the flow is seen from %v, before from %v: %v", again, seen, err)
	}
	r.audited()
}
