package system

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/rig"
)

// TestGrowth_NAT35_I7: a subscriber opens flow after flow, while sessiond is killed at random
// times and started again. All get a port, all stand, and each keeps the one that it had at
// first; the kernel's range doubles where the neighbour of the block is free. A Stop ends all
// of them, and all blocks are free after the hold.
func TestGrowth_NAT35_I7(t *testing.T) {
	w := start(t, rig.Options{Lab: sharedAddress, BlockSize: 64, MaxBlocks: 4, PortRange: "1024-1791"})
	b := w.online(sessionOf(alice, "a"))
	w.online(sessionOf(bob, "b"))
	echo, err := w.Lab.StartEcho(netip.AddrPortFrom(w.Lab.Remotes[0], 7000))
	w.must(err)
	flows := []*netlab.Flow{w.flow(alice), w.flow(alice), w.flow(bob)}
	seen := map[uint16]netip.AddrPort{}
	ask := func(port uint16) netip.AddrPort {
		t.Helper()
		ctx, cancel := context.WithTimeout(w.ctx, 5*time.Second)
		defer cancel()
		s, err := w.Lab.Subscriber.AskUDP(ctx, netip.AddrPortFrom(alice, port), echo.Addr())
		if err != nil {
			t.Fatalf("flow of port %d, after %d others: %v", port, len(seen), err)
		}
		return s
	}
	keep := func(when string) {
		t.Helper()
		for port, first := range seen {
			if again := ask(port); again != first {
				t.Fatalf("%s, the flow of port %d is seen from %v, before from %v", when, port, again, first)
			}
		}
		for _, f := range flows {
			w.passes(f, when)
		}
	}
	await := func(blocks int) (found rig.Binding) {
		t.Helper()
		w.must(w.Until(w.ctx, fmt.Sprintf("alice to have %d blocks", blocks), func() (bool, error) {
			list, err := w.Bindings(w.ctx, alice)
			for _, x := range list {
				if x.State == "ACTIVE" && strings.Count(string(x.Blocks), "first_port") >= blocks {
					found = x
					return true, nil
				}
			}
			return false, err
		}))
		return found
	}
	port := uint16(5000)
	open := func(n int) {
		for range n {
			seen[port] = ask(port)
			port++
		}
	}
	open(44) // and two flows more are below three quarters of 64
	if n := len(seen); n != 44 {
		t.Fatal(n)
	}
	open(4)
	await(2)
	doubled := regexp.MustCompile(fmt.Sprintf(`%v : %s \. %d-%d`, alice, b.OutsideAddress, b.FirstPort, b.LastPort+64))
	w.must(w.Until(w.ctx, "the range to double", func() (bool, error) {
		out, err := w.Lab.CGN.Output(w.ctx, "nft", "list", "map", "ip", "sessiond", "block")
		return doubled.Match(out), err
	}))
	keep("after a growth")
	rnd := rand.New(rand.NewPCG(4, 4))
	for range 4 {
		open(8 + rnd.IntN(5))
		w.must(w.Daemon.Kill())
		open(2)
		w.must(w.Daemon.Start(w.ctx))
		keep("after a kill")
		if out := w.ctl("-o", "json", "reconcile", "--dry-run"); out != "" {
			t.Errorf("there is drift:\n%s", out)
		}
	}
	full := await(2)
	for _, s := range seen {
		if out := w.ctl("binding", "lookup", s.String()); !strings.Contains(out, alice.String()) {
			t.Fatalf("a lookup of %s finds\n%s", s, out)
		}
		if !full.Covers(s) {
			t.Errorf("%v is in none of %v", s, full)
		}
		break
	}
	open(60)
	await(3)
	keep("with three blocks")
	if grown, err := w.Daemon.Metric(w.ctx, `sessiond_growths_total{group="default",result="in_place"}`); err != nil || grown == "0" {
		t.Errorf("%s growths in place, %v", grown, err)
	}

	w.must(w.Offline(w.ctx, sessionOf(alice, "a")))
	w.gone(alice)
	for _, f := range flows[:2] {
		w.dead(f, "after the Stop")
	}
	w.passes(flows[2], "bob, after the Stop of alice")
	w.soon(10*time.Second, func(ctx context.Context) error { return w.awaitFree(ctx, alice) })
	if out := w.ctl("pool", "list", "-o", "json"); !strings.Contains(out, `"blocks_used":1,"blocks_held":0`) {
		t.Errorf("after the hold: %s", out)
	}
}

// TestGrowthOfFullCone_NAT01_NAT07_NAT35 goes through the whole program with a full-cone group:
// a block grows, in place or apart, under live flows; each inside port keeps its outside port
// towards a new destination, a stranger reaches it there, and kill -9 changes nothing of that.
// After the Stop nobody does.
func TestGrowthOfFullCone_NAT01_NAT07_NAT35(t *testing.T) {
	for _, apart := range []bool{false, true} {
		t.Run(fmt.Sprintf("apart=%t", apart), func(t *testing.T) { growthOfFullCone(t, apart) })
	}
}

func growthOfFullCone(t *testing.T, apart bool) {
	w := start(t, rig.Options{Lab: sharedAddress, BlockSize: 64, MaxBlocks: 2, PortRange: "1024-1215"})
	w.reload(fmt.Sprintf("  - {name: default, inside: [100.64.0.0/10], outside: [%v], hold: 2s, block_size: 64, max_blocks: 2, port_range: 1024-1215, filtering: endpoint_independent}\n", sharedAddress.Pool[0]), true)
	users := []netip.Addr{alice, bob, netip.MustParseAddr("100.64.0.12")}
	firsts := map[netip.Addr]int{} // of each one's block
	for _, inside := range users {
		firsts[inside] = int(w.online(sessionOf(inside, inside.String())).FirstPort)
	}
	grower := alice // of those with a socket, one whose block is not the middle one
	if firsts[alice] == 1024+64 {
		grower = bob
	}
	for _, inside := range users {
		if far := max(firsts[inside]-firsts[grower], firsts[grower]-firsts[inside]); far == 64 && !apart || far == 128 && apart {
			w.must(w.Offline(w.ctx, sessionOf(inside, inside.String())))
			w.soon(10*time.Second, func(ctx context.Context) error { return w.awaitFree(ctx, inside) })
		}
	}

	host := w.socket(w.Lab.Internet, netip.AddrPortFrom(w.Lab.Remotes[0], 7200))
	to := func(c *net.UDPConn) netip.AddrPort { return c.LocalAddr().(*net.UDPAddr).AddrPort() }
	flow := w.flow(grower)
	sockets, seen := map[uint16]*net.UDPConn{}, map[uint16]netip.AddrPort{}
	open := func(n int) {
		t.Helper()
		for range n {
			port := uint16(5000 + len(seen))
			sockets[port] = w.socket(w.Lab.Subscriber, netip.AddrPortFrom(grower, port))
			s, ok := w.arrives(sockets[port], to(host), host, 5*time.Second)
			if !ok {
				t.Fatalf("the flow of port %d, after %d others, is not seen", port, len(seen))
			}
			seen[port] = s
		}
	}
	hosts := uint16(7300)
	keep := func(when string) {
		t.Helper()
		hosts++
		other := w.socket(w.Lab.Internet, netip.AddrPortFrom(w.Lab.Remotes[1], hosts))
		for port, first := range seen {
			if now, ok := w.arrives(sockets[port], to(other), other, 5*time.Second); !ok || now != first {
				t.Fatalf("%s, port %d is seen towards a new host as %v (%t), before as %v", when, port, now, ok, first)
			}
		}
		stranger := w.socket(w.Lab.Internet, netip.AddrPortFrom(w.Lab.Remotes[1], hosts+1000))
		for port, first := range seen {
			if _, ok := w.arrives(stranger, first, sockets[port], 5*time.Second); !ok {
				t.Fatalf("%s, a stranger does not reach port %d at %v", when, port, first)
			}
		}
		w.passes(flow, when)
	}
	open(50)
	var how = map[bool]string{false: "in_place", true: "apart"}[apart]
	w.soon(15*time.Second, func(ctx context.Context) error {
		return w.Until(ctx, "the block to grow "+how, func() (bool, error) {
			n, err := w.Daemon.Metric(ctx, fmt.Sprintf(`sessiond_growths_total{group="default",result="%s"}`, how))
			return n == "1", err
		})
	})
	open(20)
	keep("after a growth")
	w.must(w.Daemon.Kill())
	open(2)
	w.must(w.Daemon.Start(w.ctx))
	keep("after a kill")
	ports := map[netip.AddrPort]bool{}
	for _, s := range seen {
		ports[s] = true
	}
	if len(ports) < len(seen)*9/10 {
		t.Errorf("%d inside ports share %d outside ports", len(seen), len(ports))
	}
	w.must(w.Offline(w.ctx, sessionOf(grower, grower.String())))
	w.gone(grower)
	stranger := w.socket(w.Lab.Internet, netip.AddrPortFrom(w.Lab.Remotes[1], 9999))
	for port, first := range seen {
		if _, ok := w.arrives(stranger, first, sockets[port], 20*time.Millisecond); ok {
			t.Errorf("a stranger reaches port %d after the Stop", port)
		}
	}
	w.dead(flow, "after the Stop")
}
