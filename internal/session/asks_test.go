package session

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/lsn"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/pcp"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// askedGroup is mappedGroup, with four mappings by PCP for each subscriber.
func askedGroup() lsn.GroupConfig {
	g := mappedGroup()
	g.Static.PCP = lsn.PCP{On: true, Mappings: 4}
	return g
}

// asking is a request of a client for a UDP port, with a nonce of its own.
func asking(inside netip.Addr, port uint16) pcp.MapRequest {
	return pcp.MapRequest{Inside: netip.AddrPortFrom(inside, port), Protocol: nat.ProtocolUDP, Lifetime: time.Hour, Nonce: [12]byte{1}, CheckNonce: true}
}

// asked makes a mapping by PCP.
func (w *world) asked(r pcp.MapRequest) pcp.Mapping {
	w.t.Helper()
	m, err := w.PCP().Map(context.Background(), r)
	if err != nil {
		w.t.Fatalf("%v is not mapped: %v", r.Inside, err)
	}
	return m
}

// storedAsked returns the stored mapping of an outside UDP endpoint.
func (w *world) storedAsked(outside netip.AddrPort) (nat.Mapping, bool) {
	m, ok := w.storedMappings()[nat.Endpoint{Protocol: nat.ProtocolUDP, AddrPort: outside}]
	return m, ok
}

// TestAsked_PCP11_PCP12_PCP13_PCP26: a mapping is stored and in force when the client has its
// answer, for both directions; a renewal keeps it, and it goes in the cut of its session. The next
// holder of the inside address sees none, and the outside port is in quarantine.
func TestAsked_PCP11_PCP12_PCP13_PCP26(t *testing.T) {
	g := askedGroup()
	g.Hold = time.Minute
	w := newWorld(t, g)
	if _, err := w.PCP().Map(context.Background(), asking(alice, 53)); !errors.Is(err, pcp.ErrNotOnline) {
		t.Fatalf("offline: %v", err)
	}
	w.send(subscriber.EventStart, alice, "a", "1")
	b := w.awaitState(alice, nat.Active)
	c, ok := w.PCP().Client(alice)
	if !ok || c.Outside != b.Outside || c.Group != "default" || !c.Since.Equal(b.AllocatedAt) || c.Until.IsZero() {
		t.Errorf("the client is %+v, %t", c, ok)
	}
	m := w.asked(asking(alice, 53))
	if stored, ok := w.storedAsked(m.Outside); !ok || stored.Kind != nat.MappingPCP || !stored.ExpiresAt.Equal(m.Expires) {
		t.Errorf("stored: %+v, %t", stored, ok)
	}
	if s, err := w.nat.Reach(nat.ProtocolUDP, visitor, m.Outside); err != nil || s.Inside != m.Inside || m.Outside.Addr() != b.Outside {
		t.Errorf("a visitor reaches %v, %v", s.Inside, err)
	}
	if s := w.flow(alice, 53); s.Outside != m.Outside {
		t.Errorf("a flow of the mapped port leaves by %v, want %v", s.Outside, m.Outside)
	}
	again := asking(alice, 53)
	again.Lifetime, again.Suggested = 2*time.Hour, netip.AddrPortFrom(m.Outside.Addr(), 60077)
	renewed := w.asked(again)
	if stored, _ := w.storedAsked(m.Outside); renewed.Outside != m.Outside || !renewed.Expires.After(m.Expires) || !stored.ExpiresAt.Equal(renewed.Expires) {
		t.Errorf("renewed: %+v, stored until %v", renewed, stored.ExpiresAt)
	}
	if list := w.PCP().List(alice); len(list) != 1 || !reflect.DeepEqual(list[0], renewed) {
		t.Errorf("listed: %+v", list)
	}
	if drifts, err := w.Reconcile(context.Background(), true); err != nil || len(drifts) > 0 {
		t.Errorf("an audit finds %+v, %v", drifts, err)
	}

	w.send(subscriber.EventStart, alice, "b", "2") // in the place of the first session
	w.until("the next holder to be bound", func() bool {
		c, ok := w.PCP().Client(alice)
		return ok && c.Since.After(b.AllocatedAt)
	})
	if list := w.PCP().List(alice); len(list) != 0 {
		t.Errorf("the next holder has %+v", list)
	}
	if s, err := w.nat.Reach(nat.ProtocolUDP, visitor, m.Outside); err == nil {
		t.Errorf("a visitor reaches %v of the next holder", s.Inside)
	}
	w.until("the end to be stored", func() bool {
		stored, ok := w.storedAsked(m.Outside)
		return ok && stored.Ended()
	})
	other := asking(alice, 53)
	other.Suggested, other.Nonce = m.Outside, [12]byte{2}
	if got := w.asked(other); got.Outside.Port() == m.Outside.Port() && got.Outside.Addr() == m.Outside.Addr() {
		t.Errorf("the next holder got %v, which is in quarantine", got.Outside)
	}
	w.check()
}

// TestRefusals_PCP14_PCP17_PCP21_PCP24 asks for what a client does not get. Nothing changes.
func TestRefusals_PCP14_PCP17_PCP21_PCP24(t *testing.T) {
	w := newWorld(t, askedGroup())
	w.send(subscriber.EventStart, alice, "a", "1")
	w.send(subscriber.EventStart, bob, "b", "2")
	w.awaitState(alice, nat.Active)
	b := w.awaitState(bob, nat.Active)
	p, ctx := w.PCP(), context.Background()
	static := w.mapped(nat.Mapping{Kind: nat.MappingStatic, Owner: nat.Owner{Inside: alice}, InsidePort: 22, Outside: nat.Endpoint{Protocol: nat.ProtocolUDP}}, 0)
	users := w.mapped(udpOf("a", 23), 0)
	first := w.asked(asking(alice, 53))
	stranger := asking(alice, 53)
	stranger.Nonce = [12]byte{9}
	if m, err := p.Map(ctx, stranger); !errors.Is(err, pcp.ErrNotAuthorized) || m.Outside != first.Outside {
		t.Errorf("another nonce: %+v, %v", m, err)
	}
	un := pcp.UnmapRequest{Inside: stranger.Inside, Protocol: nat.ProtocolUDP, Nonce: stranger.Nonce, CheckNonce: true}
	if err := p.Unmap(ctx, un); !errors.Is(err, pcp.ErrNotAuthorized) {
		t.Errorf("deletion with another nonce: %v", err)
	}
	for _, m := range []inspect.Mapping{static, users} {
		r := asking(alice, uint16(m.InsidePort))
		if got, err := p.Map(ctx, r); err != nil || !got.Static || got.Outside != m.Outside.AddrPort {
			t.Errorf("the operator's mapping of %d: %+v, %v", m.InsidePort, got, err)
		}
		if err := p.Unmap(ctx, pcp.UnmapRequest{Inside: r.Inside, Protocol: r.Protocol}); !errors.Is(err, pcp.ErrNotAuthorized) {
			t.Errorf("deletion of the operator's: %v", err)
		}
	}
	strict := asking(bob, 53)
	strict.PreferFailure, strict.Suggested = true, netip.AddrPortFrom(b.Outside, first.Outside.Port())
	if b.Outside == first.Outside.Addr() {
		if m, err := p.Map(ctx, strict); !errors.Is(err, pcp.ErrNoPort) {
			t.Errorf("alice's port, or failure: %+v, %v", m, err)
		}
	}
	strict.Suggested = netip.MustParseAddrPort("203.0.113.1:60001")
	if m, err := p.Map(ctx, strict); !errors.Is(err, pcp.ErrNoPort) {
		t.Errorf("a foreign address, or failure: %+v, %v", m, err)
	}
	strict.Suggested = netip.AddrPortFrom(b.Outside, 60050)
	if m, err := p.Map(ctx, strict); err != nil || m.Outside != strict.Suggested {
		t.Errorf("a free port, or failure: %+v, %v", m, err)
	}
	for port := uint16(54); port < 57; port++ {
		w.asked(asking(alice, port))
	}
	if m, err := p.Map(ctx, asking(alice, 57)); !errors.Is(err, pcp.ErrQuota) {
		t.Errorf("a fifth mapping: %+v, %v", m, err)
	}
	w.asked(asking(bob, 54)) // others are not concerned
	if n := len(p.List(alice)); n != 6 {
		t.Errorf("alice has %d mappings, want 4 and the operator's 2", n)
	}

	un.Nonce = first.Nonce
	un.Inside = netip.AddrPortFrom(alice, 0)
	if err := p.Unmap(ctx, un); err != nil {
		t.Errorf("deletion of all: %v", err)
	}
	if n := len(p.List(alice)); n != 2 {
		t.Errorf("alice has %d mappings left, want the operator's 2", n)
	}
	if _, err := w.nat.Reach(nat.ProtocolUDP, visitor, first.Outside); err == nil {
		t.Error("a visitor reaches a mapping that was deleted")
	}
	if err := p.Unmap(ctx, un); err != nil {
		t.Errorf("deletion of none: %v", err)
	}
	w.check()
}

// TestAskedOverRestarts_PCP26_PCP31_I7: mappings of a session and its epoch outlive a daemon that
// dies. Those of a session that ended while no daemon ran are gone with the start.
func TestAskedOverRestarts_PCP26_PCP31_I7(t *testing.T) {
	w := newWorld(t, askedGroup())
	w.send(subscriber.EventStart, alice, "a", "1")
	w.send(subscriber.EventStart, bob, "b", "2")
	w.awaitState(alice, nat.Active)
	w.awaitState(bob, nat.Active)
	kept, gone := w.asked(asking(alice, 53)), w.asked(asking(bob, 53))
	before, _ := w.PCP().Client(alice)
	w.halt()
	w.send(subscriber.EventStop, bob, "b", "2")
	w.boot()
	if list := w.PCP().List(alice); len(list) != 1 || list[0].Outside != kept.Outside || !list[0].Expires.Equal(kept.Expires) || list[0].Nonce != kept.Nonce {
		t.Errorf("after a restart alice has %+v, want %+v", list, kept)
	}
	if after, ok := w.PCP().Client(alice); !ok || !after.Since.Equal(before.Since) {
		t.Errorf("the epoch of alice began at %v, %t; before the restart at %v", after.Since, ok, before.Since)
	}
	if s, err := w.nat.Reach(nat.ProtocolUDP, visitor, kept.Outside); err != nil || s.Inside != kept.Inside {
		t.Errorf("a visitor reaches %v, %v", s.Inside, err)
	}
	w.nothingLeft(bob)
	if _, err := w.nat.Reach(nat.ProtocolUDP, visitor, gone.Outside); err == nil {
		t.Error("a visitor reaches bob's mapping, whose session ended while no daemon ran")
	}
	w.until("the end of bob's to be stored, or its quarantine to be over", func() bool {
		m, ok := w.storedAsked(gone.Outside)
		return !ok || m.Ended()
	})
	w.must(w.client.FlushAll(context.Background()).Err()) // what a failover to an empty replica is
	w.until("the mapping to be written again", func() bool { _, ok := w.storedAsked(kept.Outside); return ok })
	w.check()
}

// TestAskedOfDeadRun_PCP26: a mapping that is stored in force, of a binding that is not there any
// more, is nobody's after a start.
func TestAskedOfDeadRun_PCP26(t *testing.T) {
	w := newWorld(t, askedGroup())
	w.send(subscriber.EventStart, alice, "a", "1")
	b := w.awaitState(alice, nat.Active)
	m := w.asked(asking(alice, 53))
	stale, _ := w.storedAsked(m.Outside)
	w.halt()
	stale.BoundAt = b.AllocatedAt.Add(-time.Second)
	w.must(w.db.SaveMappings(context.Background(), "default", []nat.Mapping{stale}, nil))
	w.boot()
	w.until("the stale mapping to end", func() bool {
		stored, ok := w.storedAsked(m.Outside)
		return !ok || stored.Ended()
	})
	if list := w.PCP().List(alice); len(list) != 0 {
		t.Errorf("alice has %+v of another binding", list)
	}
	if _, err := w.nat.Reach(nat.ProtocolUDP, visitor, m.Outside); err == nil {
		t.Error("a visitor reaches it")
	}
	w.check()
}

// TestAskedWithoutRoom_PCP13: a mapping whose port a start does not set apart any more is gone, and the
// client gets another one for its inside port.
func TestAskedWithoutRoom_PCP13(t *testing.T) {
	w := newWorld(t, askedGroup())
	w.send(subscriber.EventStart, alice, "a", "1")
	w.awaitState(alice, nat.Active)
	m := w.asked(asking(alice, 53))
	w.halt()
	w.group.Static.First = nat.Port(m.Outside.Port()) + 1
	w.boot()
	w.awaitState(alice, nat.Active)
	if again := w.asked(asking(alice, 53)); nat.Port(again.Outside.Port()) < w.group.Static.First {
		t.Errorf("the client gets %v, want a port from %d on", again.Outside, w.group.Static.First)
	}
	w.until("the former mapping to be forgotten", func() bool { _, ok := w.storedAsked(m.Outside); return !ok })
	if _, err := w.nat.Reach(nat.ProtocolUDP, visitor, m.Outside); err == nil {
		t.Error("a visitor reaches the former mapping")
	}
	w.check()
}

// TestGivenUp_PCP07: a request for whose answer nobody waits any more changes nothing.
func TestGivenUp_PCP07(t *testing.T) {
	w := newWorld(t, askedGroup())
	w.send(subscriber.EventStart, alice, "a", "1")
	w.awaitState(alice, nat.Active)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := w.PCP().Map(ctx, asking(alice, 53)); !errors.Is(err, pcp.ErrUnavailable) {
		t.Errorf("given up: %v", err)
	}
	m := w.asked(asking(alice, 54))
	if list := w.PCP().List(alice); len(list) != 1 || list[0].Outside != m.Outside {
		t.Errorf("alice has %+v", list)
	}
	w.check()
}

// TestAskedExpires_PCP20_PCP37: the end of the lifetime takes the mapping and its sessions; the
// operator may end one before, and what is stored of it, as in the audit trail, has no nonce.
func TestAskedExpires_PCP20_PCP37(t *testing.T) {
	var clock sync.Mutex
	var ahead time.Duration
	w := newWorld(t, askedGroup(), func(w *world) {
		w.shifted = func() time.Time {
			clock.Lock()
			defer clock.Unlock()
			return time.Now().Add(ahead)
		}
		w.ttl = 24 * time.Hour
	})
	w.send(subscriber.EventStart, alice, "a", "1")
	w.awaitState(alice, nat.Active)
	m, other := w.asked(asking(alice, 53)), w.asked(asking(alice, 54))
	if _, err := w.nat.Reach(nat.ProtocolUDP, visitor, m.Outside); err != nil {
		t.Fatal(err)
	}
	view, _, err := w.DeleteMapping(context.Background(), "", nat.Endpoint{Protocol: nat.ProtocolUDP, AddrPort: other.Outside})
	if err != nil || view.Kind != nat.MappingPCP || len(w.PCP().List(alice)) != 1 {
		t.Errorf("the operator ends %+v, %v; left: %+v", view, err, w.PCP().List(alice))
	}
	if stored, ok := w.storedAsked(other.Outside); ok && (!stored.Ended() || stored.Nonce != [12]byte{}) {
		t.Errorf("stored of it: %+v", stored)
	}
	clock.Lock()
	ahead = 61 * time.Minute
	clock.Unlock()
	w.until("the mapping to end with its session", func() bool {
		return len(w.PCP().List(alice)) == 0 && w.nat.SessionCount(alice) == 0
	})
	w.check()
}

// TestAskedAgain_PCP32: a client whose binding was taken away is told so once it has another one.
func TestAskedAgain_PCP32(t *testing.T) {
	g := askedGroup()
	g.Outside = prefixes("198.51.100.0/32")
	w := newWorld(t, g)
	lost := make(chan netip.Addr, 9)
	w.SetPCP(map[string]*pcp.GroupSettings{"default": {Enabled: true}}, func(inside netip.Addr) { lost <- inside })
	ctx := context.Background()
	w.send(subscriber.EventStart, alice, "a", "1")
	w.awaitState(alice, nat.Active)
	before, _ := w.PCP().Client(alice)
	w.asked(asking(alice, 53))
	w.changePools(func() error { _, err := w.AddPool(ctx, "", spare); return err },
		func() error { _, _, err := w.RemovePool(ctx, "", g.Outside[0], true); return err })
	select {
	case inside := <-lost:
		after, ok := w.PCP().Client(alice)
		if inside != alice || !ok || !after.Since.After(before.Since) || !spare.Contains(after.Outside) {
			t.Errorf("%v was told; the client is %+v, %t", inside, after, ok)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("alice is not told")
	}
	w.asked(asking(alice, 53))
	w.check()
}

// TestAskedWhileRedisIsAway_PCP07: a request that cannot be stored changes nothing.
func TestAskedWhileRedisIsAway_PCP07(t *testing.T) {
	w := newWorld(t, askedGroup())
	w.send(subscriber.EventStart, alice, "a", "1")
	w.awaitState(alice, nat.Active)
	m := w.asked(asking(alice, 53))
	w.server.Kill()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if _, err := w.PCP().Map(ctx, asking(alice, 54)); !errors.Is(err, pcp.ErrUnavailable) {
		t.Errorf("a new mapping: %v", err)
	}
	again := asking(alice, 53)
	again.Lifetime = 2 * time.Hour
	if _, err := w.PCP().Map(ctx, again); !errors.Is(err, pcp.ErrUnavailable) {
		t.Errorf("a renewal: %v", err)
	}
	if list := w.PCP().List(alice); len(list) != 1 || !reflect.DeepEqual(list[0], m) {
		t.Errorf("alice has %+v, want %+v", list, m)
	}
}

// TestManyAsk_PCP24: requests of many clients at once are each answered, and nobody gets another's
// port.
func TestManyAsk_PCP24(t *testing.T) {
	g := askedGroup()
	g.LastPort, g.Static.First, g.Static.Last = 32767, 40000, 49999
	w := newWorld(t, g)
	var clients []netip.Addr
	for i := range 40 {
		inside := netip.AddrFrom4([4]byte{100, 64, 1, byte(i)})
		w.send(subscriber.EventStart, inside, fmt.Sprint("u", i), fmt.Sprint("s", i))
		clients = append(clients, inside)
	}
	for _, inside := range clients {
		w.awaitState(inside, nat.Active)
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	owners := map[netip.AddrPort]netip.AddrPort{}
	for _, inside := range clients {
		all.Go(func() {
			for i := range uint16(20) {
				m, err := w.PCP().Map(context.Background(), asking(inside, 1+i%4))
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if has, ok := owners[m.Outside]; ok && has != m.Inside {
					t.Errorf("%v is of %v and %v", m.Outside, has, m.Inside)
				}
				owners[m.Outside] = m.Inside
				mu.Unlock()
			}
		})
	}
	all.Wait()
	if len(owners) != 160 {
		t.Errorf("%d ports are mapped, want 160", len(owners))
	}
	w.check()
}
