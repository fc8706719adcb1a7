package system

import (
	"context"
	"fmt"
	"math/rand/v2"
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
