package interop

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/rig"
	"github.com/sessiond/sessiond/internal/testenv"
)

// gateway is where clients of PCP and NAT-PMP ask.
var gateway = netlab.InsideGateway.Addr()

// portSettings are those of a group whose subscribers ask for ports, with more of its rules.
func portSettings(rules string) string {
	return "static_ports: 60000-60999, pcp: {enabled: true, nat_pmp: true, " + rules + "}"
}

// startPorts starts a sessiond whose group has rules of PCP, with alice online.
func startPorts(t *testing.T, needs testenv.Need, rules string) *router {
	t.Helper()
	r := &router{world: startWith(t, needs|testenv.Root|testenv.Nft|testenv.Conntrack, func(_ *world, o *rig.Options) {
		o.Memory, o.PortRange, o.Settings = false, "1024-59999", portSettings(rules)
	})}
	r.remote = r.Lab.Remotes[0]
	var err error
	r.alice, err = r.Online(r.ctx, rig.Session{ID: "a-1", User: "alice", Inside: alice})
	r.must(err)
	return r
}

// inside runs a client on alice's host, and returns what it prints.
func (r *router) inside(name string, args ...string) string {
	r.t.Helper()
	out, err := r.within(r.Lab.Subscriber, name, args...).CombinedOutput()
	if err != nil {
		r.t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// answers reports whether an outside endpoint leads to the service of an inside port, which
// answers through it.
func (r *router) answers(outside netip.AddrPort, within time.Duration) bool {
	ctx, cancel := context.WithTimeout(r.ctx, within)
	defer cancel()
	_, err := r.Lab.Internet.AskUDP(ctx, netip.AddrPortFrom(r.remote, 0), outside)
	return err == nil
}

// service starts a server at a port of alice's.
func (r *router) service(port uint16) {
	r.t.Helper()
	e, err := r.Lab.Subscriber.StartEcho(netip.AddrPortFrom(alice, port))
	r.must(err)
	r.Lab.Own(e)
}

const longEnough, briefly = 10 * time.Second, 700 * time.Millisecond

var (
	natpmpcAddress = regexp.MustCompile(`Public IP address : (\S+)`)
	natpmpcMapped  = regexp.MustCompile(`Mapped public port (\d+) protocol (\S+) to local port (\d+) liftime (\d+)`)
)

// TestNATPMPClients_PCP36: natpmpc and go-nat-pmp learn the outside address, get a port that
// leads to them from outside, keep it when they ask again and over a restart of sessiond, and
// give it back.
func TestNATPMPClients_PCP36_PCP11_PCP13(t *testing.T) {
	clients := portClient(t, "natpmp")
	r := startPorts(t, testenv.Natpmpc, "nonce: strict")
	r.service(5000)
	r.service(5001)
	type client struct {
		address func() string
		ask     func(port, seconds string) (outside, lifetime string)
		port    string
	}
	all := map[string]client{
		"natpmpc": {
			port: "5000",
			address: func() string {
				return natpmpcAddress.FindStringSubmatch(r.inside("natpmpc", "-g", gateway.String()))[1]
			},
			ask: func(port, seconds string) (outside, lifetime string) {
				out := r.inside("natpmpc", "-g", gateway.String(), "-a", "0", port, "udp", seconds)
				m := natpmpcMapped.FindStringSubmatch(out)
				if m == nil || m[3] != port {
					t.Fatalf("natpmpc printed:\n%s", out)
				}
				return m[1], m[4]
			},
		},
		"go-nat-pmp": {
			port: "5001",
			address: func() string {
				return strings.TrimSpace(r.inside(clients, gateway.String(), "address"))
			},
			ask: func(port, seconds string) (outside, lifetime string) {
				out := strings.Fields(r.inside(clients, gateway.String(), "udp", port, "0", seconds))
				return out[0], out[1]
			},
		},
	}
	granted := map[string]netip.AddrPort{}
	for name, c := range all {
		if got := c.address(); got != r.alice.OutsideAddress {
			t.Errorf("%s is told the address %s, want %s", name, got, r.alice.OutsideAddress)
		}
		port, lifetime := c.ask(c.port, "600")
		granted[name] = netip.MustParseAddrPort(r.alice.OutsideAddress + ":" + port)
		if lifetime != "600" || !r.answers(granted[name], longEnough) {
			t.Errorf("%s gets %v for %s s, and nobody reaches it", name, granted[name], lifetime)
		}
	}
	r.must(r.Daemon.Kill())
	r.must(r.Daemon.Start(r.ctx))
	for name, c := range all {
		if port, _ := c.ask(c.port, "900"); port != fmt.Sprint(granted[name].Port()) || !r.answers(granted[name], longEnough) {
			t.Errorf("after a restart %s gets port %s, want that of %v", name, port, granted[name])
		}
		if _, lifetime := c.ask(c.port, "0"); lifetime != "0" {
			t.Errorf("%s is told a lifetime of %s for a deletion", name, lifetime)
		}
		if r.answers(granted[name], briefly) {
			t.Errorf("%v is reached after %s has deleted it", granted[name], name)
		}
	}
}

// TestPortmapper: tailscale's client, which draws a new nonce for each request, keeps its port over three
// lives and a restart of sessiond where the group is lenient, reached from outside at any time, and
// deletes it.
func TestPortmapper_PCP13_PCP14_PCP21(t *testing.T) {
	clients := tailscale(t)
	for _, protocol := range []string{"pcp", "pmp"} {
		t.Run(protocol, func(t *testing.T) {
			r := startPorts(t, 0, "nonce: lenient, min_lifetime: 1s, max_lifetime: 8s") // longer than a restart, and a retry
			r.service(5000)
			p, end := r.portmapper(clients, protocol)
			outside := p.endpoint()
			probes := r.probe(outside)
			restart := r.metric(protocol) + 2 // renewed at half of each life
			lives, restarted := 0, false
			r.soon("five renewals", func() bool {
				n := r.metric(protocol)
				if n >= restart && !restarted {
					restarted = true
					r.must(r.Daemon.Kill())
					r.must(r.Daemon.Start(r.ctx))
					lives = r.metric(protocol) + 3
				}
				return restarted && r.metric(protocol) >= lives
			})
			if sent, lost := probes(); lost > 0 || sent < 100 {
				t.Errorf("%d of %d probes from outside were lost", lost, sent)
			}
			if last := p.endpoint(); last != outside {
				t.Errorf("the port moved from %v to %v", outside, last)
			}
			end()
			r.soon("the end of the mapping", func() bool { return !r.answers(outside, briefly) })
		})
	}
}

// TestPortmapperStrict_PCP14: under the rule of the RFC the same client loses its port, and the
// mismatches are counted.
func TestPortmapperStrict_PCP14(t *testing.T) {
	clients := tailscale(t)
	r := startPorts(t, 0, "nonce: strict, min_lifetime: 1s, max_lifetime: 3s")
	p, _ := r.portmapper(clients, "pcp")
	p.endpoint()
	r.await(p.Program, "PCP is implemented but not enabled in the router")
	mismatches, err := r.Daemon.Metric(r.ctx, `sessiond_pcp_nonce_mismatches_total{group="default"}`)
	r.must(err)
	if mismatches == "0" {
		t.Error("no mismatch is counted")
	}
}

// A mapper is a running client of tailscale's library.
type mapper struct {
	*rig.Program
	r *router
}

// portmapper starts the client, and returns how to end it.
func (r *router) portmapper(clients, protocol string) (p *mapper, end func()) {
	r.t.Helper()
	cmd := r.within(r.Lab.Subscriber, clients, gateway.String(), alice.String(), "5000", protocol)
	in, err := cmd.StdinPipe()
	r.must(err)
	run, err := rig.Run(cmd)
	r.must(err)
	r.t.Cleanup(func() { _ = run.Kill() })
	r.await(run, "endpoint: 198.51.100.")
	return &mapper{run, r}, sync.OnceFunc(func() { _ = in.(io.Closer).Close() })
}

// endpoint returns the outside endpoint that the client holds.
func (p *mapper) endpoint() (outside netip.AddrPort) {
	p.r.t.Helper()
	for line := range strings.Lines(p.Log()) {
		if text, ok := strings.CutPrefix(strings.TrimSpace(line), "endpoint: "); ok {
			outside, _ = netip.ParseAddrPort(text) // none is the zero one
		}
	}
	if !outside.IsValid() {
		p.r.t.Fatalf("the client holds no endpoint:\n%s", p.Log())
	}
	return outside
}

// metric returns the number of mappings that clients of a protocol were granted since sessiond
// started.
func (r *router) metric(protocol string) (n int) {
	r.t.Helper()
	opcode := map[string]string{"pcp": "map", "pmp": "natpmp_map"}[protocol]
	value, err := r.Daemon.Metric(r.ctx, `sessiond_pcp_requests_total{opcode="`+opcode+`",result="success"}`)
	r.must(err)
	_, err = fmt.Sscan(value, &n)
	r.must(err)
	return n
}

// probe sends to an outside endpoint all the time, and returns how to end that, with the number of
// probes, and of those that got no answer from there.
func (r *router) probe(outside netip.AddrPort) (end func() (sent, lost int)) {
	r.t.Helper()
	c, err := r.Lab.Internet.Dial(r.ctx, "udp4", netip.AddrPortFrom(r.remote, 0), outside)
	r.must(err)
	ctx, cancel := context.WithCancel(r.ctx)
	var sent, lost int
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			sent++
			if !answered(c, fmt.Sprint("probe ", sent)) {
				lost++
			}
			select {
			case <-ctx.Done():
			case <-tick.C:
			}
		}
	}()
	end = func() (int, int) {
		cancel()
		<-done
		return sent, lost
	}
	r.t.Cleanup(func() {
		end()
		_ = c.Close()
	})
	return end
}

// answered sends a text, and reports whether it comes back within a second.
func answered(c net.Conn, text string) bool {
	if _, err := c.Write([]byte(text)); err != nil {
		return false
	}
	if err := c.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		return false
	}
	for buf := make([]byte, 200); ; {
		n, err := c.Read(buf)
		if err != nil {
			return false
		}
		if strings.HasSuffix(string(buf[:n]), "\n"+text) {
			return true
		}
	}
}

// portClientsMu is held while a program of portclients is built.
var portClientsMu sync.Mutex

// portClient builds a program of portclients, and returns its path.
func portClient(t *testing.T, name string) string {
	t.Helper()
	portClientsMu.Lock()
	defer portClientsMu.Unlock()
	file := filepath.Join(filepath.Dir(programs.Sessiond), "portclients-"+name)
	cmd := exec.Command("go", "build", "-trimpath", "-o", file, "./"+name)
	cmd.Dir = "portclients"
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build portclients: %v\n%s", err, out)
	}
	return file
}

// tailscale builds the client of tailscale, which takes a minute of processor time to compile, and its
// tests half a minute each.
func tailscale(t *testing.T) string {
	t.Helper()
	if !testenv.Soak() {
		t.Skip("SOAK is not set")
	}
	return portClient(t, "portmapper")
}
