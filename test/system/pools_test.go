package system

import (
	"context"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/rig"
)

// The group of these tests, whose second prefix comes at run time.
const (
	groupNarrow   = "  - {name: default, inside: [100.64.0.0/11], outside: [198.51.100.0/32], hold: 2s}\n"
	groupDraining = "  - {name: default, inside: [100.64.0.0/11], outside: [{prefix: 198.51.100.0/32, draining: true}, 198.51.100.16/29], hold: 2s}\n"
	firstPool     = "198.51.100.0/32"
	secondPool    = "198.51.100.16/29"
)

func poolsWorld(t *testing.T) *world {
	t.Helper()
	w := start(t, rig.Options{Lab: netlab.Options{
		Subscribers: []netip.Addr{alice, bob}, Pool: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/27")},
	}})
	w.reload(groupNarrow, true)
	return w
}

// firstElement matches the first prefix in the set, as nft prints it.
var firstElement = regexp.MustCompile(`\b198\.51\.100\.0[ ,]`)

// outsideInKernel returns the blackhole routes and the elements of the set of outside
// prefixes, as ip and nft print them.
func (w *world) outsideInKernel() (routes, set string) {
	w.t.Helper()
	r, err := w.Lab.CGN.Output(w.ctx, "ip", "route", "show", "type", "blackhole")
	w.must(err)
	s, err := w.Lab.CGN.Output(w.ctx, "nft", "list", "set", "ip", "sessiond", "outside_prefixes")
	w.must(err)
	return string(r), string(s)
}

// inKernel checks which of the two prefixes have a route and are in the set.
func (w *world) inKernel(first, second bool) {
	w.t.Helper()
	w.soon(15*time.Second, func(ctx context.Context) error {
		return w.Until(ctx, "the prefixes in the kernel", func() (bool, error) {
			routes, set := w.outsideInKernel()
			return strings.Contains(routes, "blackhole 198.51.100.0 ") == first && strings.Contains(routes, "blackhole "+secondPool) == second &&
				firstElement.MatchString(set) == first && strings.Contains(set, secondPool) == second, nil
		})
	})
}

// TestPoolsAtRunTime_NAT27_I7_I9: by sessionctl a prefix is added, drained and removed, with
// kill -9 between. Live flows of a draining prefix pass; the removal of one with live bindings
// is refused, or cuts them; route and set go with the last block.
func TestPoolsAtRunTime_NAT27_I7_I9(t *testing.T) {
	w := poolsWorld(t)
	before := w.online(sessionOf(alice, "a-1"))
	f := w.flow(alice)
	w.inKernel(true, false)

	w.ctl("pool", "add", secondPool)
	w.inKernel(true, true)
	w.ctl("pool", "drain", firstPool)
	for range 2 {
		w.passes(f, "alice, while her prefix drains")
		if got := w.draining(); got != "default "+firstPool {
			t.Fatalf("draining: %q", got)
		}
		w.inKernel(true, true)
		w.must(w.Daemon.Kill())
		w.passes(f, "alice, without the daemon")
		w.must(w.Daemon.Start(w.ctx))
	}
	w.flow(alice) // her block serves new flows too
	if b := w.online(sessionOf(bob, "b-1")); b.OutsideAddress == before.OutsideAddress {
		t.Fatalf("bob got a block of %s, which drains", b.OutsideAddress)
	}
	fb := w.flow(bob)

	if out, err := w.Daemon.Ctl(w.ctx, "pool", "remove", firstPool, "--yes"); err == nil || !strings.Contains(err.Error()+out, "live bindings: 1") {
		t.Fatalf("removal of a prefix in use: %s, %v", out, err)
	}
	w.passes(f, "alice, after the refused removal")
	if out := w.ctl("pool", "remove", firstPool, "--allow-disruption", "--yes"); !strings.Contains(out, "1 live binding cut") {
		t.Errorf("removal: %s", out)
	}
	w.dead(f, "alice, whose prefix was removed")
	w.passes(fb, "bob, in the other prefix")
	w.soon(10*time.Second, func(ctx context.Context) error {
		return w.Until(ctx, "alice to have a block of the other prefix", func() (bool, error) {
			list, err := w.Bindings(ctx, alice)
			for _, b := range list {
				if b.State == "ACTIVE" {
					return b.OutsideAddress != before.OutsideAddress, err
				}
			}
			return false, err
		})
	})
	again := w.flow(alice)
	w.inKernel(false, true) // when the hold is over
	w.must(w.Daemon.Kill())
	w.must(w.Daemon.Start(w.ctx))
	w.inKernel(false, true)
	w.passes(again, "alice, after a restart without the prefix")
	w.passes(fb, "bob")
	if table := w.ctl("pool", "list"); !strings.Contains(table, "removed") || !strings.Contains(table, "run time") {
		t.Errorf("pool list:\n%s", table)
	}
	if drifts := w.ctl("reconcile", "--dry-run", "-o", "json"); strings.Contains(drifts, `"kind"`) {
		t.Errorf("drift: %s", drifts)
	}
}

// TestDrainingInTheConfiguration_NAT27: a reload makes a prefix drain, and takes it away once
// nobody has a block of it; the configuration then has what was added at run time.
func TestDrainingInTheConfiguration_NAT27(t *testing.T) {
	w := poolsWorld(t)
	w.online(sessionOf(alice, "a-1"))
	f := w.flow(alice)
	w.ctl("pool", "add", secondPool)
	w.reload(groupDraining, true)
	w.passes(f, "alice, while her prefix drains")
	if b := w.online(sessionOf(bob, "b-1")); b.OutsideAddress == "198.51.100.0" {
		t.Fatalf("bob got a block of %s, which drains", b.OutsideAddress)
	}
	w.soon(10*time.Second, func(ctx context.Context) error {
		return w.Until(ctx, "the configuration to win", func() (bool, error) {
			return w.redis("EXISTS", "sessiond:{default}:pools") == "0", nil
		})
	})
	w.must(w.Daemon.Kill())
	w.must(w.Daemon.Start(w.ctx))
	w.passes(f, "alice, after a restart")
	if got := w.draining(); got != "default "+firstPool {
		t.Errorf("draining: %q", got)
	}
	w.must(w.Offline(w.ctx, sessionOf(alice, "a-1")))
	w.gone(alice)
	w.reload(strings.Replace(groupDraining, "{prefix: 198.51.100.0/32, draining: true}, ", "", 1), true)
	w.inKernel(false, true)
}

// TestFullConePoolAtRunTime_NAT07_NAT27_DEL02_I7: a prefix that is added at run time has the
// learned mappings of its group, while it drains, after kill -9 and after a reload too; its
// removal takes them.
func TestFullConePoolAtRunTime_NAT07_NAT27_DEL02_I7(t *testing.T) {
	w := poolsWorld(t)
	group := strings.Replace(groupNarrow, "hold: 2s", "hold: 2s, filtering: endpoint_independent", 1)
	w.reload(group, true)
	w.ctl("pool", "add", secondPool)
	w.ctl("pool", "drain", firstPool)
	w.online(sessionOf(alice, "a-1"))
	subscriber := w.socket(w.Lab.Subscriber, netip.AddrPortFrom(alice, 5000))
	host := w.socket(w.Lab.Internet, netip.AddrPortFrom(w.Lab.Remotes[0], 7200))
	seen, ok := w.arrives(subscriber, netip.AddrPortFrom(w.Lab.Remotes[0], 7200), host, 5*time.Second)
	if !ok || !netip.MustParsePrefix(secondPool).Contains(seen.Addr()) {
		t.Fatalf("alice is seen as %v (%t)", seen, ok)
	}
	strangers := uint16(7300)
	reached := func(within time.Duration) bool {
		strangers++
		_, ok := w.arrives(w.socket(w.Lab.Internet, netip.AddrPortFrom(w.Lab.Remotes[1], strangers)), seen, subscriber, within)
		return ok
	}
	for _, step := range []struct {
		name string
		do   func()
	}{
		{"in an added prefix", func() {}},
		{"in a prefix that drains", func() { w.ctl("pool", "drain", secondPool) }},
		{"after a kill", func() { w.must(w.Daemon.Kill()); w.must(w.Daemon.Start(w.ctx)) }},
		{"after a reload", func() { w.reload(group, true) }},
	} {
		step.do()
		if !reached(5 * time.Second) {
			t.Errorf("%s no other host reaches alice", step.name)
		}
	}
	w.ctl("pool", "remove", secondPool, "--allow-disruption", "--yes")
	if reached(700 * time.Millisecond) {
		t.Error("another host reaches the removed prefix")
	}
	w.soon(15*time.Second, func(ctx context.Context) error {
		return w.Until(ctx, "nothing of the prefix to be in the sets of mappings", func() (bool, error) {
			table, err := w.Lab.CGN.Output(ctx, "nft", "list", "table", "ip", "sessiond")
			return err == nil && !strings.Contains(string(table), "198.51.100.16"), err
		})
	})
}

// TestMappingBesideAPoolRemoval_NAT02_NAT27_I7: an older session of a user, which was never stopped,
// gets another block as its prefix is removed. A connection through the user's mapping to the later
// session goes on, with its conntrack entry, then and over a SIGTERM during which the older session
// is stopped.
func TestMappingBesideAPoolRemoval_NAT02_NAT27_I7(t *testing.T) {
	w := poolsWorld(t)
	const group = "  - {name: default, inside: [100.64.0.0/11], outside: [198.51.100.0/32], hold: 2s, port_range: 1024-59999, static_ports: 60000-60999}\n"
	w.reload(group, true)
	w.ctl("pool", "add", secondPool)
	w.ctl("pool", "drain", firstPool)
	older := sessionOf(bob, "b-1")
	removed := w.online(older).OutsideAddress
	w.ctl("pool", "add", firstPool)
	w.ctl("pool", "drain", secondPool)
	later := sessionOf(alice, "a-1")
	later.User = older.User
	w.online(later)
	web := w.readMapping(w.ctl("mapping", "create", ":8080", "--owner", later.User, "--protocol", "tcp", "-o", "json"))
	if web.PresentAddress != alice.String() || !web.InForce {
		t.Fatalf("the mapping is %+v, want it in force at %v", web, alice)
	}
	f := w.through(web, netip.AddrPortFrom(alice, 8080))
	entries := w.flowEntries(f)
	goesOn := func(when string) {
		t.Helper()
		w.passes(f, "the later session, "+when)
		if now := w.flowEntries(f); len(now) != 1 || !slices.Equal(now, entries) {
			t.Fatalf("%s the connection has the conntrack entries %q, had %q", when, now, entries)
		}
		if m := w.readMapping(w.ctl("mapping", "list", "-o", "json")); m.PresentAddress != alice.String() || !m.InForce {
			t.Errorf("%s the mapping is %+v", when, m)
		}
	}
	w.ctl("pool", "remove", secondPool, "--allow-disruption", "--yes")
	w.soon(10*time.Second, func(ctx context.Context) error {
		return w.Until(ctx, "the older session to have another block", func() (bool, error) {
			list, err := w.Bindings(ctx, bob)
			for _, b := range list {
				if b.State == "ACTIVE" {
					return b.OutsideAddress != removed, err
				}
			}
			return false, err
		})
	})
	goesOn("after the removal")
	if _, err := w.Daemon.Stop(); err != nil {
		t.Fatal(err)
	}
	w.must(w.Daemon.Start(w.ctx))
	goesOn("after a restart")
	w.must(w.Offline(w.ctx, older))
	w.must(w.Daemon.Kill())
	w.must(w.Daemon.Start(w.ctx))
	w.gone(bob)
	goesOn("after the end of the older session")
}

// through opens a connection from outside, through a mapping, to the server at an inside endpoint.
func (w *world) through(m staticMapping, at netip.AddrPort) *netlab.Flow {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, 10*time.Second)
	defer cancel()
	server, err := w.Lab.Subscriber.Listen(ctx, at)
	w.must(err)
	defer server.Close()
	outside, err := w.Lab.Internet.Dial(ctx, "tcp4", netip.AddrPortFrom(w.Lab.Remotes[0], 0), m.outside())
	w.must(err)
	deadline, _ := ctx.Deadline()
	w.must(server.(*net.TCPListener).SetDeadline(deadline))
	inside, err := server.Accept()
	w.must(err)
	f := &netlab.Flow{Inside: netlab.NewEnd(inside), Outside: netlab.NewEnd(outside)}
	w.t.Cleanup(func() { _ = f.Close() })
	return f
}
