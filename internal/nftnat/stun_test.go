package nftnat

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pion/stun/v3"
	"golang.org/x/sync/errgroup"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/testenv"
)

// stunTest is a lab with coturn's STUN server (RFC 5780) at two addresses of the internet.
type stunTest struct {
	wireTest
	servers [2]netip.AddrPort
}

const stunPort = 3478

// stunBlock has many more ports than a test has endpoints, so that few of them meet the port of
// another one.
var stunBlock = nat.Entry{Inside: alice, Gate: nat.GateOpen, Block: nat.Block{Outside: eip, First: 16384, Last: 32767}}

func newStunTest(t *testing.T, change func(*Options)) stunTest {
	t.Helper()
	w := newWireTestWith(t, change)
	testenv.Require(t, testenv.Coturn)
	dir := t.TempDir()
	args := []string{"-S", "-n", "--no-tls", "--no-dtls", "--no-cli", "--log-file=stdout", "--simple-log",
		"--pidfile=" + dir + "/pid", "--userdb=" + dir + "/db"}
	s := stunTest{wireTest: w}
	for i := range s.servers {
		s.servers[i] = netip.AddrPortFrom(w.Remotes[i], stunPort)
		args = append(args, "-L", w.Remotes[i].String())
	}
	ctx, cancel := context.WithCancel(context.Background())
	server := exec.CommandContext(ctx, "turnserver", args...)
	if err := w.Internet.Start(server); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); _ = server.Wait() })
	apply(t, w, stunBlock)
	probe := w.socket(t, alice, 4999)
	for _, at := range s.servers {
		testenv.Succeeds(t, func() error {
			_, err := ask(probe, at, silence)
			return err
		})
	}
	return s
}

// stunRuns is the number of discoveries of each kind, 24 if the environment does not say.
func stunRuns(t *testing.T) int {
	t.Helper()
	text := os.Getenv("STUN_RUNS")
	if text == "" {
		return 24
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("STUN_RUNS is %q", text)
	}
	return n
}

// poison gives conntrack entries of an inside port that nobody has answered, and some that
// others began, and deletes those that the port began itself in every second case.
func (s stunTest) poison(t *testing.T, port uint16) {
	t.Helper()
	from := s.socket(t, alice, port)
	defer from.Close()
	host := s.host(t, 1, 0)
	defer host.Close()
	seen := seenAs(t, from, host)
	if _, err := passes(host, seen, from, within); err != nil {
		t.Error(err)
	}
	other := s.host(t, 0, 0)
	defer other.Close()
	_, _ = passes(other, seen, from, 10*time.Millisecond) // inbound, unanswered, if it passes
	_, _ = passes(from, netip.AddrPortFrom(s.Remotes[0], 1), host, 10*time.Millisecond)
	if port%2 == 0 {
		run(t, s.Lab, "conntrack", "-D", "-p", "udp", "-s", alice.String(), "--sport", fmt.Sprint(port))
	}
}

// discover runs coturn's discovery from many inside ports, some at a time, and returns the
// outputs.
func (s stunTest) discover(t *testing.T, option string, first uint16) (outputs []string) {
	t.Helper()
	outputs = make([]string, stunRuns(t))
	for i := range outputs {
		s.poison(t, first+uint16(i))
	}
	var g errgroup.Group
	g.SetLimit(8)
	for i := range outputs {
		g.Go(func() error {
			out, err := s.discoverOnce(t, option, first+uint16(i))
			for range impatience {
				if err == nil {
					break
				}
				out, err = s.discoverOnce(t, option, first+uint16(i))
			}
			outputs[i] = out
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	return outputs
}

// impatience is the number of times that a discovery is made again: on a busy machine an answer
// may come later than the program waits, which then fails on the address that it was not told.
const impatience = 3

func (s stunTest) discoverOnce(t *testing.T, option string, port uint16) (string, error) {
	out, err := s.Subscriber.Output(testContext(t), "turnutils_natdiscovery", option,
		"-L", alice.String(), "-l", fmt.Sprint(port), s.servers[0].Addr().String())
	return string(out), err
}

// TestNATDiscovery_NAT01_NAT07_NAT09 has coturn's program say how we behave, after conntrack
// was poisoned. No endpoint shares a port: one that does has no mapping.
func TestNATDiscovery_NAT01_NAT07_NAT09(t *testing.T) {
	const mapping = "NAT with Endpoint Independent Mapping!"
	for _, c := range []struct {
		name    string
		options func(*Options)
		wants   map[string]string
	}{
		{"full cone", strict, map[string]string{"-m": mapping, "-f": "NAT with Endpoint Independent Filtering!"}},
		{"restricted", strictRestricted, map[string]string{"-m": mapping, "-f": "NAT with Address and Port Dependent Filtering!"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newStunTest(t, c.options)
			first := uint16(6000)
			for option, want := range c.wants {
				for i, out := range s.discover(t, option, first) {
					if !strings.Contains(out, want) || strings.Contains(out, "STUN receive timeout") && option == "-m" {
						t.Errorf("%s, run %d: want %q of\n%s", option, i, want, out)
					}
				}
				first += 1000
			}
		})
	}
	t.Run("hairpin, restricted", func(t *testing.T) { // the new socket is one that the mapping has not sent to
		t.Parallel()
		s := newStunTest(t, strictRestricted)
		for i := range min(stunRuns(t), 4) { // each waits for an answer that does not come
			s.wantNoHairpin(t, 6000+uint16(i))
		}
	})
	t.Run("hairpin", func(t *testing.T) {
		t.Parallel()
		s := newStunTest(t, strict)
		for i := range stunRuns(t) {
			s.wantHairpin(t, 6000+uint16(i))
		}
	})
}

// wantHairpin has coturn's program send from a socket of its own to the outside endpoint of an
// inside port. The program sends once: where the new socket's datagram was dropped, because it
// met the port of another mapping, it runs again.
func (s stunTest) wantHairpin(t *testing.T, port uint16) {
	t.Helper()
	s.poison(t, port)
	taken := func() (packets uint64) {
		for _, c := range dropsOf(t, s) {
			if c.Reason == nat.DropPortTaken {
				packets += c.Packets
			}
		}
		return packets
	}
	for {
		before := taken()
		out, err := s.discoverOnce(t, "-H", port)
		if err == nil && strings.Contains(out, "successful hairpinning") {
			return
		}
		if taken() == before {
			t.Errorf("port %d does not reach itself: %v\n%s", port, err, out)
			return
		}
	}
}

// wantNoHairpin has coturn's program send in the same way, and checks that the filter refused it.
func (s stunTest) wantNoHairpin(t *testing.T, port uint16) {
	t.Helper()
	s.poison(t, port)
	before := filteredDrops(t, s.wireTest)
	var out string
	var err error
	for range impatience { // a process that is being started may hold the port for a moment
		if out, err = s.discoverOnce(t, "-H", port); strings.Contains(out, "successful hairpinning") {
			break
		}
		if filteredDrops(t, s.wireTest) > before {
			return
		}
	}
	t.Errorf("port %d: the filter did not refuse the packet of another port: %v\n%s", port, err, out)
}

// ask asks a STUN server for the outside endpoint of a socket (RFC 8489 section 2), with the
// help of pion/stun.
func ask(from *net.UDPConn, at netip.AddrPort, wait time.Duration, more ...stun.Setter) (netip.AddrPort, error) {
	request, err := stun.Build(append([]stun.Setter{stun.TransactionID, stun.BindingRequest}, more...)...)
	if err != nil {
		return netip.AddrPort{}, err
	}
	if _, err := from.WriteToUDPAddrPort(request.Raw, at); err != nil {
		return netip.AddrPort{}, err
	}
	if err := from.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return netip.AddrPort{}, err
	}
	for buf := make([]byte, 1500); ; {
		n, _, err := from.ReadFromUDPAddrPort(buf)
		if err != nil {
			return netip.AddrPort{}, errSilent
		}
		answer := &stun.Message{Raw: buf[:n]}
		var mapped stun.XORMappedAddress
		if answer.Decode() != nil || answer.TransactionID != request.TransactionID || mapped.GetFrom(answer) != nil {
			continue
		}
		a, _ := netip.AddrFromSlice(mapped.IP)
		return netip.AddrPortFrom(a.Unmap(), uint16(mapped.Port)), nil
	}
}

// changeRequest asks for an answer from the server's other address and other port (RFC 5780
// section 7.2).
var changeRequest = stun.RawAttribute{Type: stun.AttrChangeRequest, Value: []byte{0, 0, 0, 6}}

type rawSetter stun.RawAttribute

func (a rawSetter) AddTo(m *stun.Message) error { m.Add(a.Type, a.Value); return nil }

// TestSTUN_NAT01_NAT07 asks by pion/stun, as RFC 5780 section 4 says, after conntrack was
// poisoned.
func TestSTUN_NAT01_NAT07(t *testing.T) {
	for _, c := range []struct {
		name    string
		options func(*Options)
		open    bool
	}{{"full cone", strict, true}, {"restricted", strictRestricted, false}} {
		t.Run(c.name, func(t *testing.T) {
			s := newStunTest(t, c.options)
			for i := range stunRuns(t) {
				port := 5000 + uint16(i)
				s.poison(t, port)
				from := s.socket(t, alice, port)
				var seen [2]netip.AddrPort
				for j, at := range []netip.AddrPort{s.servers[0], netip.AddrPortFrom(s.servers[1].Addr(), stunPort+1)} {
					var err error
					if seen[j], err = ask(from, at, within); err != nil {
						t.Fatalf("port %d asks %v: %v", port, at, err)
					}
				}
				if seen[0] != seen[1] || !inBlock(stunBlock, seen[0]) {
					t.Errorf("port %d is seen from %v", port, seen)
				}
				_ = from.Close()

				fresh := s.socket(t, alice, port+1000)
				if _, err := ask(fresh, s.servers[0], silence); err != nil { // its port may be another mapping's
					_ = seenAs(t, fresh, s.host(t, 1, 0))
				}
				_, err := ask(fresh, s.servers[0], map[bool]time.Duration{true: within, false: silence}[c.open], rawSetter(changeRequest))
				if (err == nil) != c.open {
					t.Errorf("port %d: an answer from another address and port: %v", port, err)
				}
				_ = fresh.Close()
			}
		})
	}
}
