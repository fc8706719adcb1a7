package session

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/lsn"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb"
)

// conditional returns testGroup with every setting that the kernel has.
func conditional() lsn.GroupConfig {
	g := testGroup
	g.Limits = nat.Limits{Sessions: 3}
	g.Learned = nat.Learned{EndpointIndependent: true, Open: true}
	g.Timeouts = nat.GroupTimeouts{Own: nat.Timeouts{UDP: 7 * time.Minute}, Ports: []nat.PortTimeout{{Protocol: unix.IPPROTO_UDP, Port: 53, Timeout: 3 * time.Second}}}
	g.NoNAT = []nat.NoNAT{{Remote: netip.MustParsePrefix("192.0.2.128/25"), Last: 65535}}
	return g
}

// wantTerms checks that a subscriber has the settings of conditional. It begins the sessions
// from three ports on.
func (w *world) wantTerms(inside netip.Addr, first uint16) {
	w.t.Helper()
	const udp = unix.IPPROTO_UDP
	from := func(n uint16) netip.AddrPort { return netip.AddrPortFrom(inside, first+n) }
	mapped, err := w.nat.Send(udp, from(0), remote)
	w.must(err)
	if got := mapped.Entry.Timeout; got != 7*time.Minute {
		w.t.Errorf("a session idles out after %v, want 7m", got)
	}
	query, err := w.nat.Send(udp, from(1), netip.AddrPortFrom(remote.Addr(), 53))
	w.must(err)
	if got := query.Entry.Timeout; got != 3*time.Second {
		w.t.Errorf("a query idles out after %v, want 3s", got)
	}
	direct, err := w.nat.Send(udp, from(2), netip.MustParseAddrPort("192.0.2.129:80"))
	w.must(err)
	if direct.Outside != from(2) {
		w.t.Errorf("a session without NAT leaves as %v", direct.Outside)
	}
	if got := w.tries(inside, first+3, 5); got != 0 {
		w.t.Errorf("%d sessions began at the limit", got)
	}
	others, err := w.nat.Reach(udp, netip.MustParseAddrPort("192.0.2.77:7"), mapped.Outside)
	if err != nil {
		w.t.Errorf("another host does not reach the mapping: %v", err)
		return
	}
	w.nat.Expire(others)
	w.nat.Expire(mapped)
	w.nat.Expire(query)
	w.nat.Expire(direct)
}

// TestDrainedGroupKeepsTerms_NAT05_NAT07_NAT28_NAT29_I7: the subscribers of a group that is taken
// out of the configuration keep what the kernel did for them: limits, learned mappings,
// timeouts and destinations without NAT; after a reload, after further ones, after a change of
// pools, and after restarts.
func TestDrainedGroupKeepsTerms_NAT05_NAT07_NAT28_NAT29_I7(t *testing.T) {
	w := newWorld(t, conditional())
	ctx := context.Background()
	w.send(subscriber.EventStart, alice, "a", "1")
	w.awaitState(alice, nat.Active)
	w.wantTerms(alice, 5000)
	if _, err := w.AddPool(ctx, "default", netip.MustParsePrefix("192.0.2.0/30")); err != nil {
		t.Fatal(err)
	}
	w.wantTerms(alice, 5100)
	away := awayGroup()
	w.must(w.db.Serve([]subscriberdb.Group{{Name: away.Name, Inside: away.Inside, RecordTTL: time.Minute}}))
	w.must(w.SetGroups(ctx, []lsn.GroupConfig{away}))
	w.wantTerms(alice, 5200)
	w.must(w.SetGroups(ctx, []lsn.GroupConfig{away}))
	w.wantTerms(alice, 5300)
	w.until("the terms to be stored", func() bool {
		all, err := w.db.Served(ctx, nil)
		return err == nil && len(all) == 2
	})
	for first := uint16(5400); first < 5600; first += 100 {
		w.halt()
		w.group = away
		w.boot()
		w.wantTerms(alice, first)
		w.must(w.SetGroups(ctx, []lsn.GroupConfig{away}))
		w.wantTerms(alice, first+50)
	}
	w.send(subscriber.EventStop, alice, "a", "1")
	w.nothingLeft(alice)
}

// TestDrainedInsideKeepsTerms_NAT05_NAT07_NAT28_NAT29: so do those in an inside prefix that is
// taken out of their group.
func TestDrainedInsideKeepsTerms_NAT05_NAT07_NAT28_NAT29(t *testing.T) {
	g := conditional()
	w := newWorld(t, g)
	w.send(subscriber.EventStart, alice, "a", "1")
	w.awaitState(alice, nat.Active)
	g.Inside = prefixes("100.96.0.0/11")
	w.must(w.SetGroups(context.Background(), []lsn.GroupConfig{g}))
	w.wantTerms(alice, 5000)
	w.halt()
	w.group = g
	w.boot()
	w.wantTerms(alice, 5100)
}

// TestPoolsAtRunTimeHaveMappings_NAT07_NAT27_DEL02: a prefix that is added at run time has
// the mappings of its group, while it drains and after a restart too; its removal takes them.
func TestPoolsAtRunTimeHaveMappings_NAT07_NAT27_DEL02(t *testing.T) {
	g := testGroup
	g.Outside, g.Hold = prefixes("198.51.100.0/32"), time.Second
	g.Learned = nat.Learned{EndpointIndependent: true, Open: true}
	w := newWorld(t, g)
	ctx := context.Background()
	added := netip.MustParsePrefix("192.0.2.0/30")
	_, err := w.AddPool(ctx, "default", added)
	w.must(err)
	_, err = w.DrainPool(ctx, "default", g.Outside[0])
	w.must(err)
	w.send(subscriber.EventStart, alice, "a", "1")
	if b := w.awaitState(alice, nat.Active); !added.Contains(b.Outside) {
		t.Fatalf("alice has a block of %v", b.Outside)
	}
	mapped, err := w.nat.Send(unix.IPPROTO_UDP, netip.AddrPortFrom(alice, 5000), remote)
	w.must(err)
	reached := func(when string) {
		t.Helper()
		other, err := w.nat.Reach(unix.IPPROTO_UDP, netip.MustParseAddrPort("203.0.113.77:7"), mapped.Outside)
		if err != nil {
			t.Errorf("%s another host does not reach alice: %v", when, err)
			return
		}
		w.nat.Expire(other)
	}
	reached("in an added prefix,")
	_, err = w.DrainPool(ctx, "default", added)
	w.must(err)
	reached("in a prefix that drains,")
	w.halt()
	w.boot()
	reached("after a restart,")
	w.must(w.SetGroups(ctx, []lsn.GroupConfig{g}))
	reached("after a reload,")
	_, _, err = w.RemovePool(ctx, "default", added, true)
	w.must(err)
	w.until("the mapping to be gone", func() bool { return w.nat.MappingFill().Mappings == 0 })
	w.until("the prefix to lose its mappings", func() bool { return !w.nat.Maps(added.Addr()) })
}
