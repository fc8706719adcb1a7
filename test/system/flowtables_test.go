package system

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"layeh.com/radius/rfc2866"

	"github.com/sessiond/sessiond/internal/clock"
	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/rig"
)

// The mapping and filtering of groups, with the ports of static mappings.
const (
	symmetric = "static_ports: 60000-60999"
	fullCone  = "mapping: endpoint_independent, filtering: endpoint_independent, " + symmetric
)

// fastWorld is a world beside the flowtable of an operator, which sessiond accepts. A kernel
// without flowtables has none: there all flows pass the chains.
type fastWorld struct {
	*world
	fast bool // the kernel has flowtables
}

func startFast(t *testing.T, group string) fastWorld {
	t.Helper()
	w := start(t, rig.Options{PortRange: "1024-59999", Hold: 30 * time.Second, Settings: group})
	w.must(w.Daemon.Kill())
	w.must(w.Daemon.Edit(func(config string) string { return strings.Replace(config, "nat: {", "nat: {flowtables: accept, ", 1) }))
	_, err := w.Lab.CGN.Output(w.ctx, "nft", netlab.OperatorsFlowtable)
	w.must(w.Daemon.Start(w.ctx))
	t.Logf("with a flowtable: %t", err == nil)
	return fastWorld{w, err == nil}
}

// udpFlow is a UDP flow between two sockets.
type udpFlow struct {
	name   string
	from   *net.UDPConn
	to     netip.AddrPort // an endpoint of the receiver, or a mapped one
	at     *net.UDPConn   // the receiver
	source netip.AddrPort // that the receiver sees
}

func endpoint(c *net.UDPConn) netip.AddrPort { return c.LocalAddr().(*net.UDPAddr).AddrPort() }

// begin begins a flow, which passes both ways, and waits until it is in the flowtable.
func (w fastWorld) begin(name string, from *net.UDPConn, to netip.AddrPort, at *net.UDPConn) *udpFlow {
	w.t.Helper()
	source, ok := w.arrives(from, to, at, 5*time.Second)
	if !ok {
		w.t.Fatalf("%s: nothing arrives", name)
	}
	f := &udpFlow{name, from, to, at, source}
	w.live("at first", f)
	w.offloaded(name, endpoint(from), to, func() { w.both(f, time.Second) })
	return f
}

// offloaded waits until a flow between two endpoints is in the flowtable, and keeps it alive.
func (w fastWorld) offloaded(name string, from, to netip.AddrPort, keep func()) {
	w.t.Helper()
	if !w.fast {
		return
	}
	entry := fmt.Sprintf(" src=%s dst=%s sport=%d dport=%d ", from.Addr(), to.Addr(), from.Port(), to.Port())
	w.soon(30*time.Second, func(ctx context.Context) error {
		return w.Until(ctx, name+" to be in the flowtable", func() (bool, error) {
			keep()
			listed, err := w.Lab.CGN.Output(ctx, "conntrack", "-L")
			for line := range strings.Lines(string(listed)) {
				if strings.Contains(line, entry) && strings.Contains(line, "[OFFLOAD]") {
					return true, nil
				}
			}
			return false, err
		})
	})
}

// both reports whether a datagram of the flow arrives, each way.
func (w fastWorld) both(f *udpFlow, within time.Duration) (out, in bool) {
	w.t.Helper()
	_, out = w.arrives(f.from, f.to, f.at, within)
	_, in = w.arrives(f.at, f.source, f.from, within)
	return out, in
}

func (w fastWorld) live(when string, flows ...*udpFlow) {
	w.t.Helper()
	for _, f := range flows {
		if out, in := w.both(f, 5*time.Second); !out || !in {
			w.t.Errorf("%s, %s: passes %t, back %t", f.name, when, out, in)
		}
	}
}

func (w fastWorld) ended(when string, flows ...*udpFlow) {
	w.t.Helper()
	for _, f := range flows {
		if out, in := w.both(f, 300*time.Millisecond); out || in {
			w.t.Errorf("%s, %s: passes %t, back %t", f.name, when, out, in)
		}
	}
}

// keepSending sends datagrams of a flow until the test ends.
func (w fastWorld) keepSending(f *udpFlow) {
	ctx, cancel := context.WithCancel(w.ctx)
	var sender sync.WaitGroup
	sender.Go(func() {
		for clock.Sleep(ctx, 5*time.Millisecond) == nil {
			_, _ = f.from.WriteToUDPAddrPort([]byte("more"), f.to)
		}
	})
	w.t.Cleanup(func() {
		cancel()
		sender.Wait()
	})
}

// nothingLeft is as gone, for slow machines too.
func (w fastWorld) nothingLeft(inside netip.Addr) {
	w.t.Helper()
	w.soon(10*time.Second, func(ctx context.Context) error { return w.AwaitNothing(ctx, inside) })
}

// receipt checks the receipt of an address's removal. Beside a flowtable packets stop with the reap.
func (w fastWorld) receipt(inside netip.Addr, sessions int) {
	w.t.Helper()
	w.awaitState(inside, "HELD")
	r := w.proofOf(inside).Receipt
	if r == nil || r.SessionsDeleted < sessions || r.CutAt.After(r.ReapedAt) || w.fast && !r.CutAt.Equal(r.ReapedAt) {
		w.t.Fatalf("the receipt is %+v, want %d sessions", r, sessions)
	}
	w.t.Logf("%v: cut %v, reaped %v, %d sessions", inside, r.CutAt, r.ReapedAt, r.SessionsDeleted)
}

// subscribers brings alice and bob online, each with a static mapping of its port 5001.
func (w fastWorld) subscribers() (a, b rig.Session, atAlice, atBob netip.AddrPort) {
	w.t.Helper()
	mapped := func(s rig.Session) netip.AddrPort {
		w.online(s)
		return w.readMapping(w.ctl("mapping", "create", ":5001", "--owner", s.User, "--protocol", "udp", "-o", "json")).outside()
	}
	a, b = sessionOf(alice, "a-1"), sessionOf(bob, "b-1")
	return a, b, mapped(a), mapped(b)
}

// TestOffloadedFlowsEndWithTheRecord_DEL02_DEL03_DEL08: flows of all kinds, in the flowtable of
// an operator, end as the record of their subscriber is deleted: its own, those to its static
// mapping and to a learned one, and those with a neighbour, whoever began them. The
// neighbour's own go on.
func TestOffloadedFlowsEndWithTheRecord_DEL02_DEL03_DEL08(t *testing.T) {
	for name, group := range map[string]string{"symmetric": symmetric, "full cone": fullCone} {
		t.Run(name, func(t *testing.T) {
			w := startFast(t, group)
			_, _, atAlice, atBob := w.subscribers()
			of := func(n *netlab.Namespace, at netip.Addr, port uint16) *net.UDPConn {
				return w.socket(n, netip.AddrPortFrom(at, port))
			}
			subscriber, internet, remote, stranger := w.Lab.Subscriber, w.Lab.Internet, w.Lab.Remotes[0], w.Lab.Remotes[1]
			server, atAlices, atBobs := of(internet, remote, 7000), of(subscriber, alice, 5001), of(subscriber, bob, 5001)
			own := w.begin("alice's own", of(subscriber, alice, 5000), endpoint(server), server)
			ends := []*udpFlow{
				own,
				w.begin("to alice's static mapping", of(internet, stranger, 7300), atAlice, atAlices),
				w.begin("bob's to alice's static mapping", of(subscriber, bob, 5002), atAlice, atAlices),
				w.begin("alice's to bob's static mapping", of(subscriber, alice, 5003), atBob, atBobs),
			}
			if group == fullCone {
				ends = append(ends,
					w.begin("to alice's learned mapping", of(internet, stranger, 7301), own.source, own.from),
					w.begin("bob's to alice's learned mapping", of(subscriber, bob, 5004), own.source, own.from))
			}
			stay := []*udpFlow{
				w.begin("bob's own", of(subscriber, bob, 5005), endpoint(server), server),
				w.begin("to bob's static mapping", of(internet, stranger, 7302), atBob, atBobs),
			}
			tcp := w.flow(alice)
			w.offloaded("alice's TCP", tcp.Inside.Local(), tcp.Inside.Remote(), func() { w.passes(tcp, "alice") })

			w.keepSending(own)
			w.redis("DEL", recordKey(alice))
			w.nothingLeft(alice)
			internetSide, err := w.Lab.CGN.Capture(netlab.OutsideInterface)
			w.must(err)
			defer internetSide.Close()
			w.ended("after the record", ends...)
			w.dead(tcp, "alice")
			w.nothingOf(internetSide, alice)
			w.live("beside the removal", stay...)
			w.receipt(alice, len(ends)+1)
		})
	}
}

// TestOffloadedFlowsOfADrain_DEL11: a draining subscriber keeps its flows in the flowtable,
// and opens no others; they end as removals are switched on. A flow to a static mapping
// ends with the mapping.
func TestOffloadedFlowsOfADrain_DEL11(t *testing.T) {
	w := startFast(t, symmetric)
	s, _, mapped, _ := w.subscribers()
	server := w.socket(w.Lab.Internet, netip.AddrPortFrom(w.Lab.Remotes[0], 7000))
	own := w.begin("alice's own", w.socket(w.Lab.Subscriber, netip.AddrPortFrom(alice, 5000)), endpoint(server), server)
	game := w.begin("to the static mapping", w.socket(w.Lab.Internet, netip.AddrPortFrom(w.Lab.Remotes[1], 7300)), mapped,
		w.socket(w.Lab.Subscriber, netip.AddrPortFrom(alice, 5001)))
	w.ctl("mapping", "delete", mapped.String(), "--protocol", "udp", "--yes")
	if _, ok := w.arrives(game.from, game.to, game.at, 300*time.Millisecond); ok { // alice may answer by her block
		t.Error("a host reaches a deleted mapping")
	}

	w.ctl("settings", "set", "subscriber_session_removal=off")
	w.must(w.Offline(w.ctx, s))
	w.awaitState(alice, "DRAINING")
	w.live("as alice drains", own)
	w.offloaded("alice's own, as she drains", endpoint(own.from), own.to, func() { w.both(own, time.Second) })
	w.cannotOpen(alice)
	w.ctl("settings", "set", "subscriber_session_removal=on")
	w.nothingLeft(alice)
	w.ended("after the drain was cut", own)
	w.receipt(alice, 1)
}

// TestOffloadedFlowsOfATakeover_SES07: a Start of another user on the address ends the flows of the
// one before in the flowtable. Nothing of theirs passes by its ports any more.
func TestOffloadedFlowsOfATakeover_SES07(t *testing.T) {
	w := startFast(t, fullCone)
	before := w.online(sessionOf(alice, "a-1"))
	server := w.socket(w.Lab.Internet, netip.AddrPortFrom(w.Lab.Remotes[0], 7000))
	own := w.begin("alice's own", w.socket(w.Lab.Subscriber, netip.AddrPortFrom(alice, 5000)), endpoint(server), server)
	w.must(w.Report(w.ctx, rfc2866.AcctStatusType_Value_Start, rig.Session{ID: "m-1", User: "mallory", Inside: alice}))
	now := w.awaitUser(alice, "mallory")
	seen, ok := w.arrives(own.from, own.to, own.at, 5*time.Second)
	if !ok || !now.Covers(seen) || before.Covers(seen) {
		t.Errorf("the next user is seen as %v (%t), want within %+v", seen, ok, now)
	}
	if _, ok := w.arrives(own.at, own.source, own.from, 300*time.Millisecond); ok {
		t.Errorf("answers to %v reach the next user", own.source)
	}
}
