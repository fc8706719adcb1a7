package session

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/lsn"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/nftnat"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb"
	"github.com/sessiond/sessiond/internal/testenv"
)

// mappedGroup is testGroup with ports set apart.
func mappedGroup() lsn.GroupConfig {
	g := testGroup
	g.LastPort, g.Static = 59903, lsn.StaticPorts{First: 60000, Last: 60099, PerOwner: 4}
	return g
}

var visitor = netip.MustParseAddrPort("203.0.113.20:5555")

// udpOf is a mapping to make, of a user's UDP port.
func udpOf(user string, port nat.Port) nat.Mapping {
	return nat.Mapping{Kind: nat.MappingStatic, Owner: nat.Owner{UserName: user}, InsidePort: port, Outside: nat.Endpoint{Protocol: nat.ProtocolUDP}}
}

func (w *world) mapped(m nat.Mapping, lifetime time.Duration) inspect.Mapping {
	w.t.Helper()
	made, err := w.CreateMapping(context.Background(), m, lifetime)
	if err != nil {
		w.t.Fatal(err)
	}
	return made
}

// reach lets a visitor send to a mapping.
func (w *world) reach(m nat.Mapping) (nftnat.Session, error) {
	return w.nat.Reach(m.Outside.Protocol, visitor, m.Outside.AddrPort)
}

func (w *world) mappings() []inspect.Mapping {
	w.t.Helper()
	list, next, err := w.Mappings(context.Background(), inspect.MappingFilter{}, inspect.MappingKey{}, 1000)
	if err != nil || next != (inspect.MappingKey{}) {
		w.t.Fatal(next, err)
	}
	return list
}

// storedMappings returns the stored mappings.
func (w *world) storedMappings() map[nat.Endpoint]nat.Mapping {
	w.t.Helper()
	stored := map[nat.Endpoint]nat.Mapping{}
	err := w.db.Mappings(context.Background(), "default", func(list []nat.Mapping) error {
		for _, m := range list {
			stored[m.Outside] = m
		}
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return stored
}

// TestMapping_NAT02_I7: a mapping of a user is at whatever address the user has, on the outside
// address of its binding, and the same after a crash. It goes with the gate, and its own end
// takes its sessions.
func TestMapping_NAT02_I7(t *testing.T) {
	w := newWorld(t, mappedGroup())
	w.send(subscriber.EventStart, alice, "a", "1")
	b := w.awaitState(alice, nat.Active)
	m := w.mapped(udpOf("a", 53), 0)
	if m.Outside.Addr() != b.Outside || m.Inside != alice || !m.InForce {
		t.Fatalf("made %+v, want it in force at %v on %v", m, alice, b.Outside)
	}
	s, err := w.reach(m.Mapping)
	if err != nil || s.Inside != netip.AddrPortFrom(alice, 53) {
		t.Fatalf("a visitor reaches %v, %v", s.Inside, err)
	}
	if s := w.flow(alice, 53); s.Outside != m.Outside.AddrPort {
		t.Errorf("a flow of the mapped port leaves by %v", s.Outside)
	}
	at, err := w.MappingsAt(context.Background(), m.Outside.AddrPort, time.Time{})
	if err != nil || len(at) != 1 || at[0].Owner.UserName != "a" {
		t.Errorf("a lookup finds %+v, %v", at, err)
	}
	if drifts, err := w.Reconcile(context.Background(), true); err != nil || len(drifts) > 0 {
		t.Errorf("an audit finds %+v, %v", drifts, err)
	}

	w.send(subscriber.EventStop, alice, "a", "1")
	w.nothingLeft(alice)
	if _, err := w.reach(m.Mapping); err == nil {
		t.Error("a visitor reaches a subscriber that is offline")
	}
	if held := w.awaitState(alice, nat.Held); held.Receipt.Elements != 4 || held.Receipt.Deleted != 2 {
		t.Errorf("the receipt is %+v, want 4 elements and 2 sessions", held.Receipt)
	}
	if list := w.mappings(); len(list) != 1 || list[0].Inside.IsValid() || list[0].InForce {
		t.Errorf("listed offline: %+v", list)
	}

	w.halt()
	w.boot()
	w.send(subscriber.EventStart, bob, "a", "2")
	w.awaitState(bob, nat.Active)
	if s, err := w.reach(m.Mapping); err != nil || s.Inside != netip.AddrPortFrom(bob, 53) {
		t.Errorf("after the reconnect a visitor reaches %v, %v", s.Inside, err)
	}
	gone, sessions, err := w.DeleteMapping(context.Background(), "", m.Outside)
	if err != nil || sessions != 1 || !gone.Ended() {
		t.Errorf("deleted: %+v, %d sessions, %v", gone, sessions, err)
	}
	if _, err := w.reach(m.Mapping); err == nil || w.nat.SessionCount(bob) != 0 {
		t.Errorf("behind its end: %v, %d sessions", err, w.nat.SessionCount(bob))
	}
	if _, _, err := w.DeleteMapping(context.Background(), "", m.Outside); !errors.Is(err, inspect.ErrNotFound) {
		t.Errorf("deleted again: %v", err)
	}
	w.until("the quarantine to end", func() bool { return len(w.mappings()) == 0 && len(w.storedMappings()) == 0 })
	w.check()
}

// TestMappingFollowsTheUser: the newest session of a user has its mapping, with the end of the
// sessions that the other one had through it.
func TestMappingFollowsTheUser(t *testing.T) {
	w := newWorld(t, mappedGroup())
	m := w.mapped(udpOf("a", 53), 0)
	w.send(subscriber.EventStart, alice, "a", "1")
	w.awaitState(alice, nat.Active)
	if _, err := w.reach(m.Mapping); err != nil {
		t.Fatal(err)
	}
	w.flow(alice, 4000)
	w.send(subscriber.EventStart, bob, "a", "2")
	w.until("the mapping to follow", func() bool {
		list := w.mappings()
		return list[0].Inside == bob && list[0].InForce
	})
	w.until("the sessions of the former address to end", func() bool { return w.nat.SessionCount(alice) == 1 })
	w.send(subscriber.EventStop, bob, "a", "2")
	w.until("the mapping to come back", func() bool { return w.mappings()[0].Inside == alice })
	w.nothingLeft(bob)
	w.check()
}

// TestMappingStaysWithTheLaterSession_NAT02_NAT27_I7: an older session of a user, which was never
// stopped, gets another block, as its prefix is removed. The later session keeps the mapping and
// the sessions through it, over a restart too.
func TestMappingStaysWithTheLaterSession_NAT02_NAT27_I7(t *testing.T) {
	g := mappedGroup()
	g.Outside = prefixes("198.51.100.0/32")
	w := newWorld(t, g)
	ctx := context.Background()
	w.changePools(func() error { _, err := w.AddPool(ctx, "", spare); return err },
		func() error { _, err := w.DrainPool(ctx, "", g.Outside[0]); return err })
	w.send(subscriber.EventStart, bob, "a", "1")
	if b := w.awaitState(bob, nat.Active); !spare.Contains(b.Outside) {
		t.Fatalf("the first session has %v", b.Block)
	}
	w.changePools(func() error { _, err := w.AddPool(ctx, "", g.Outside[0]); return err },
		func() error { _, err := w.DrainPool(ctx, "", spare); return err })
	w.send(subscriber.EventStart, alice, "a", "2")
	w.awaitState(alice, nat.Active)
	m := w.mapped(udpOf("a", 53), 0)
	if _, err := w.reach(m.Mapping); err != nil || m.Inside != alice {
		t.Fatalf("the mapping is at %v, %v", m.Inside, err)
	}
	stays := func(when string) {
		t.Helper()
		if list := w.mappings(); list[0].Inside != alice || !list[0].InForce || w.nat.SessionCount(alice) != 1 {
			t.Fatalf("%s the mapping is at %v, in force: %t, and has %d sessions of %v; want it at %v, with 1",
				when, list[0].Inside, list[0].InForce, w.nat.SessionCount(alice), alice, alice)
		}
	}
	w.changePools(func() error { _, _, err := w.RemovePool(ctx, "", spare, true); return err })
	w.until("the first session to have another block", func() bool {
		b, ok := w.bindings(bob)[nat.Active]
		return ok && g.Outside[0].Contains(b.Outside)
	})
	stays("after the removal")
	w.check()
	w.halt()
	w.boot()
	stays("after a restart")
	w.check()
	w.send(subscriber.EventStop, alice, "a", "2")
	w.until("the mapping to go to the first session", func() bool { return w.mappings()[0].Inside == bob })
	w.nothingLeft(alice)
	w.check()
}

func (w *world) changePools(changes ...func() error) {
	w.t.Helper()
	for _, change := range changes {
		w.must(change())
	}
}

// TestMappingBesideARestart_NAT02_I7: of two sessions of a user one is stopped while the daemon
// restarts. The mapping is at the other one then, and its sessions have gone on if it was there
// before.
func TestMappingBesideARestart_NAT02_I7(t *testing.T) {
	for when, stop := range map[string]func(w *world, do func()){
		"before the end": func(w *world, do func()) { do(); w.halt(); w.boot() },
		"while away":     func(w *world, do func()) { w.halt(); do(); w.boot() },
		"at the start": func(w *world, do func()) {
			w.halt()
			w.store = func(db *subscriberdb.DB) Store { return &afterRecords{Store: db, do: do} }
			w.boot()
		},
	} {
		for began, start := range map[string]func(*world){
			"one after the other": func(w *world) {
				w.send(subscriber.EventStart, bob, "a", "1")
				w.awaitState(bob, nat.Active)
				w.send(subscriber.EventStart, alice, "a", "2")
			},
			"at once": func(w *world) {
				w.sendAll(w.event(subscriber.EventStart, bob, "a", "1"), w.event(subscriber.EventStart, alice, "a", "2"))
			},
		} {
			for _, ofIt := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s, stop %s, of the one with the mapping: %t", began, when, ofIt), func(t *testing.T) {
					w := newWorld(t, mappedGroup())
					start(w)
					w.awaitState(alice, nat.Active)
					w.awaitState(bob, nat.Active)
					m := w.mapped(udpOf("a", 53), 0)
					if _, err := w.reach(m.Mapping); err != nil {
						t.Fatal(err)
					}
					id := map[netip.Addr]string{bob: "1", alice: "2"}
					other := map[netip.Addr]netip.Addr{bob: alice, alice: bob}[m.Inside]
					stopped, left, sessions := other, m.Inside, 1
					if ofIt {
						stopped, left, sessions = m.Inside, other, 0
					}
					stop(w, func() { w.send(subscriber.EventStop, stopped, "a", id[stopped]) })
					w.nothingLeft(stopped)
					w.until("the mapping to be at the other one", func() bool {
						list := w.mappings()
						return list[0].Inside == left && list[0].InForce
					})
					if n := w.nat.SessionCount(left); n != sessions {
						t.Errorf("%v has %d sessions through the mapping, want %d", left, n, sessions)
					}
					w.check()
				})
			}
		}
	}
}

// afterRecords is a store that calls do when a start has read the records, once.
type afterRecords struct {
	Store
	once sync.Once
	do   func()
}

func (s *afterRecords) Records(ctx context.Context, group string, yield func([]subscriber.Record) error) error {
	err := s.Store.Records(ctx, group, yield)
	s.once.Do(s.do)
	return err
}

// TestMappingErrors: what cannot be made is refused, with the reason.
func TestMappingErrors(t *testing.T) {
	w := newWorld(t, mappedGroup())
	first := w.mapped(udpOf("a", 1), 0)
	taken := udpOf("b", 1)
	taken.Outside = first.Outside
	wrong := udpOf("b", 1)
	wrong.Outside.AddrPort = netip.AddrPortFrom(first.Outside.Addr(), 1024)
	nowhere, stranger := udpOf("b", 1), udpOf("", 1)
	nowhere.Group = "nowhere"
	stranger.Owner = nat.Owner{Inside: netip.MustParseAddr("192.0.2.1")}
	for what, tt := range map[string]struct {
		m    nat.Mapping
		want error
	}{
		"its own port again": {udpOf("a", 1), inspect.ErrMappingExists},
		"another's endpoint": {taken, inspect.ErrMappingExists},
		"a port of a block":  {wrong, inspect.ErrMappingOutside},
		"no such group":      {nowhere, inspect.ErrNotFound},
		"no group's address": {stranger, inspect.ErrNoGroup},
	} {
		if _, err := w.CreateMapping(context.Background(), tt.m, 0); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", what, err, tt.want)
		}
	}
	for port := nat.Port(2); port <= 4; port++ {
		w.mapped(udpOf("a", port), 0)
	}
	if _, err := w.CreateMapping(context.Background(), udpOf("a", 5), 0); !errors.Is(err, inspect.ErrMappingFull) {
		t.Errorf("a fifth of one owner: %v", err)
	}
	if n := w.MappingCounts()["default"]["static"]; n != 4 {
		t.Errorf("%d are counted", n)
	}
	w.server.Kill()
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	if _, err := w.CreateMapping(ctx, udpOf("c", 5), 0); err == nil {
		t.Error("one was made without a database")
	}
	if _, _, err := w.DeleteMapping(ctx, "", first.Outside); err == nil {
		t.Error("one was deleted without a database")
	}
	if n := w.MappingCounts()["default"]["static"]; n != 4 {
		t.Errorf("%d are counted after the refusals", n)
	}
}

// TestMappingExpires: a lifetime ends a mapping with its sessions, and a restart does not
// forget that.
func TestMappingExpires(t *testing.T) {
	w := newWorld(t, mappedGroup())
	w.send(subscriber.EventStart, alice, "a", "1")
	w.awaitState(alice, nat.Active)
	m := w.mapped(udpOf("a", 53), 1500*time.Millisecond)
	if _, err := w.reach(m.Mapping); err != nil {
		t.Fatal(err)
	}
	w.halt()
	w.boot()
	w.until("the lifetime to end", func() bool { return w.nat.SessionCount(alice) == 0 })
	if _, err := w.reach(m.Mapping); err == nil {
		t.Error("a visitor comes in after the end")
	}
	w.until("nothing to be left", func() bool { return len(w.mappings())+len(w.storedMappings()) == 0 })
	w.check()
}

// TestMappingsOutliveTheDatabase_I6: mappings that the daemon knows are in a database that came
// back empty, or that somebody changed, as they were.
func TestMappingsOutliveTheDatabase_I6(t *testing.T) {
	w := newWorld(t, mappedGroup())
	w.send(subscriber.EventStart, alice, "a", "1")
	w.awaitState(alice, nat.Active)
	m := w.mapped(udpOf("a", 53), 0)
	want := w.storedMappings()
	if err := w.client.FlushAll(context.Background()).Err(); err != nil {
		t.Fatal(err)
	}
	w.until("the mapping to be stored again", func() bool { return maps.Equal(w.storedMappings(), want) })
	if _, err := w.reach(m.Mapping); err != nil {
		t.Errorf("after the loss: %v", err)
	}
	w.until("the database to be whole", func() bool { return w.NotReady() == nil })
	w.halt()
	w.boot()
	if list := w.mappings(); len(list) != 1 || list[0].Outside != m.Outside {
		t.Errorf("after a restart: %+v", list)
	}
	if _, err := w.reach(m.Mapping); err != nil {
		t.Errorf("after a restart: %v", err)
	}
}

// TestConfiguredMappingOutlivesEverything_I6: where a daemon starts beside an emptied database, the
// kernel alone tells where the user of a configured mapping is. The mapping stays there, with its
// sessions, until accounting says that the user is somewhere else, or another one is there.
func TestConfiguredMappingOutlivesEverything_I6(t *testing.T) {
	for name, then := range map[string]struct {
		inside netip.Addr
		user   string
		stays  bool
	}{
		"the user goes on":          {alice, "a", true},
		"the user is elsewhere":     {bob, "a", false},
		"another user has the line": {alice, "b", false},
	} {
		t.Run(name, func(t *testing.T) {
			g := mappedGroup()
			m := udpOf("a", 53)
			m.Group, m.Configured, m.Outside.AddrPort = "default", true, netip.MustParseAddrPort("198.51.100.2:60053")
			g.Static.Mappings = []nat.Mapping{m}
			w := newWorld(t, g)
			w.send(subscriber.EventStart, alice, "a", "1")
			w.awaitState(alice, nat.Active)
			if _, err := w.reach(m); err != nil {
				t.Fatal(err)
			}
			before := w.entry(alice)
			w.halt()
			if err := w.client.FlushAll(context.Background()).Err(); err != nil {
				t.Fatal(err)
			}
			w.boot()
			if n := w.nat.SessionCount(alice); n != 1 || w.entry(alice) != before {
				t.Errorf("after the start there are %d sessions, and the entry is %+v, was %+v", n, w.entry(alice), before)
			}
			if list := w.mappings(); len(list) != 1 || list[0].Inside != alice || !list[0].InForce {
				t.Errorf("after the start the mappings are %+v", list)
			}
			w.send(subscriber.EventStart, then.inside, then.user, "2")
			if then.stays {
				w.until("the user to be known", func() bool { return w.bindings(alice)[nat.Active].UserName == "a" })
				if !w.entry(alice).Forwards.Has(m.Forward()) {
					t.Error("the mapping is gone")
				}
				return
			}
			w.until("the mapping to go", func() bool { return !w.entry(alice).Forwards.Has(m.Forward()) && w.nat.SessionCount(alice) == 0 })
			if then.inside != alice {
				w.until("the mapping to come", func() bool { return w.entry(then.inside).Forwards.Has(m.Forward()) })
			}
		})
	}
}

// TestSessionsOfFormerMapping_I7: a daemon that dies when a mapping has ended, and its sessions have
// not yet, leaves none: the next start ends those of stored mappings in quarantine. Where the outside
// endpoint leads to another port of the same address by then, the comparison finds those to the former.
func TestSessionsOfFormerMapping_I7(t *testing.T) {
	for name, moved := range map[string]bool{"ended": false, "to another port": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, mappedGroup())
			w.send(subscriber.EventStart, alice, "a", "1")
			w.awaitState(alice, nat.Active)
			m := w.mapped(udpOf("a", 53), 0).Mapping
			if _, err := w.reach(m); err != nil {
				t.Fatal(err)
			}
			w.flow(alice, 4000)
			w.halt()
			e := w.entry(alice)
			e.Forwards = nat.Forwards{}
			m.HoldUntil = time.Now().Add(time.Minute)
			if moved {
				m.InsidePort, m.HoldUntil = 54, time.Time{}
				e.Forwards = nat.NewForwards([]nat.Forward{m.Forward()})
			}
			if err := errors.Join(w.nat.Tamper(e), w.db.SaveMappings(context.Background(), "default", []nat.Mapping{m}, nil)); err != nil {
				t.Fatal(err)
			}
			w.boot()
			if moved {
				another := netip.AddrPortFrom(visitor.Addr(), visitor.Port()+1)
				if s, err := w.nat.Reach(nat.ProtocolUDP, another, m.Outside.AddrPort); err != nil || s.Inside.Port() != 54 {
					t.Fatalf("reached %v, %v", s.Inside, err)
				}
				if _, err := w.Reconcile(context.Background(), false); err != nil {
					t.Fatal(err)
				}
			}
			left := func() (ports []uint16) {
				err := w.nat.SessionsOf(context.Background(), netip.PrefixFrom(alice, 32), func(s nftnat.Session) error {
					ports = append(ports, s.Inside.Port())
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
				slices.Sort(ports)
				return ports
			}
			want := []uint16{4000}
			if moved {
				want = []uint16{54, 4000}
			}
			w.until("the sessions to the former port to end", func() bool { return slices.Equal(left(), want) })
		})
	}
}

// TestMappingDrift: elements of mappings that others take out, add or change are put right, and
// counted as drift.
func TestMappingDrift(t *testing.T) {
	w := newWorld(t, mappedGroup(), func(w *world) { w.every = 50 * time.Millisecond })
	w.send(subscriber.EventStart, alice, "a", "1")
	w.awaitState(alice, nat.Active)
	m := w.mapped(udpOf("a", 53), 0)
	right := w.entry(alice)
	other := m.Forward()
	other.Outside = netip.AddrPortFrom(other.Outside.Addr(), 60099)
	for what, f := range map[string][]nat.Forward{
		"taken out": nil, "changed": {other}, "added": {m.Forward(), {Protocol: nat.ProtocolTCP, InsidePort: 22, Outside: other.Outside}},
	} {
		wrong := right
		wrong.Forwards = nat.NewForwards(f)
		if err := w.nat.Tamper(wrong); err != nil {
			t.Fatal(err)
		}
		w.until(what+" to be put right", func() bool { return w.entry(alice) == right })
	}
	w.seen.mu.Lock()
	defer w.seen.mu.Unlock()
	if n := w.seen.drifts[string(inspect.DriftElementDiffers)]; n < 3 {
		t.Errorf("%d differences were counted, want 3", n)
	}
}

// TestConfiguredMapping: a reload adds and takes away mappings, and is refused where one made at
// run time is in the way, or would lose its port.
func TestConfiguredMapping(t *testing.T) {
	g := mappedGroup()
	w := newWorld(t, g)
	w.send(subscriber.EventStart, alice, "a", "1")
	w.awaitState(alice, nat.Active)
	web := nat.Mapping{Group: "default", Kind: nat.MappingStatic, Configured: true, Owner: nat.Owner{Inside: alice}, InsidePort: 80,
		Outside: nat.Endpoint{Protocol: nat.ProtocolTCP, AddrPort: netip.MustParseAddrPort("198.51.100.2:60080")}}
	g.Static.Mappings = []nat.Mapping{web}
	set := func(g lsn.GroupConfig) error { return w.SetGroups(context.Background(), []lsn.GroupConfig{g}) }
	if err := set(g); err != nil {
		t.Fatal(err)
	}
	w.until("the configured mapping to be in force", func() bool { return w.entry(alice).Forwards.Has(web.Forward()) })
	if _, err := w.reach(web); err != nil {
		t.Error(err)
	}
	if _, _, err := w.DeleteMapping(context.Background(), "", web.Outside); !errors.Is(err, inspect.ErrMappingConfigured) {
		t.Errorf("deleted: %v", err)
	}
	if len(w.storedMappings()) != 0 {
		t.Error("a configured mapping is stored")
	}
	made := w.mapped(udpOf("a", 53), 0)
	clash := g
	clash.Static.Mappings = append(slices.Clone(g.Static.Mappings), nat.Mapping{Group: "default", Kind: nat.MappingStatic, Configured: true,
		Owner: nat.Owner{UserName: "b"}, InsidePort: 1, Outside: made.Outside})
	if err := set(clash); err == nil || !strings.Contains(err.Error(), "delete that mapping first") {
		t.Errorf("a reload with an endpoint that is taken: %v", err)
	}
	none := testGroup
	none.LastPort = g.LastPort
	if err := set(none); err == nil || !strings.Contains(err.Error(), "sessionctl mapping delete") {
		t.Errorf("a reload without the ports: %v", err)
	}
	if _, _, err := w.DeleteMapping(context.Background(), "", made.Outside); err != nil {
		t.Fatal(err)
	}
	if err := set(none); err != nil {
		t.Fatal(err)
	}
	w.until("no mapping to be left", func() bool { return w.entry(alice).Forwards == nat.Forwards{} })
	w.until("its session to end", func() bool { return w.nat.SessionCount(alice) == 0 })
	if _, err := w.CreateMapping(context.Background(), udpOf("a", 53), 0); !errors.Is(err, inspect.ErrNoStaticPorts) {
		t.Errorf("made without ports: %v", err)
	}
	w.check()
}

// TestConfiguredMappingLeavesItsPort_NAT30: the endpoint of a mapping that a reload takes out is kept
// from others for the hold, over a restart too.
func TestConfiguredMappingLeavesItsPort_NAT30(t *testing.T) {
	with, without := mappedGroup(), mappedGroup()
	web := nat.Mapping{Group: "default", Kind: nat.MappingStatic, Configured: true, Owner: nat.Owner{Inside: alice}, InsidePort: 80,
		Outside: nat.Endpoint{Protocol: nat.ProtocolTCP, AddrPort: netip.MustParseAddrPort("198.51.100.2:60080")}}
	with.Hold, without.Hold = time.Minute, time.Minute
	with.Static.Mappings = []nat.Mapping{web}
	w := newWorld(t, with)
	if err := w.SetGroups(context.Background(), []lsn.GroupConfig{without}); err != nil {
		t.Fatal(err)
	}
	w.until("its end to be stored", func() bool {
		m, ok := w.storedMappings()[web.Outside]
		return ok && m.Ended()
	})
	other := nat.Mapping{Group: "default", Kind: nat.MappingStatic, Owner: nat.Owner{UserName: "b"}, InsidePort: 1, Outside: web.Outside}
	refused := func(when string) {
		t.Helper()
		if _, err := w.CreateMapping(context.Background(), other, 0); err == nil || !strings.Contains(err.Error(), "quarantine") {
			t.Errorf("%s: the endpoint for another owner: %v", when, err)
		}
	}
	refused("at once")
	w.halt()
	w.group = without
	w.boot()
	refused("after a restart")
	w.check()
}

// TestMappingWithoutPorts_NAT27: a start without the ports of a stored mapping keeps it. Pools can
// be changed, and a reload that has the ports again brings it back for its owner.
func TestMappingWithoutPorts_NAT27(t *testing.T) {
	with := mappedGroup()
	w := newWorld(t, with)
	made := w.mapped(udpOf("a", 53), 0)
	w.halt()
	w.group.Static = lsn.StaticPorts{}
	w.boot()
	w.send(subscriber.EventStart, alice, "a", "1")
	w.awaitState(alice, nat.Active)
	if w.entry(alice).Forwards != (nat.Forwards{}) || len(w.mappings()) != 1 {
		t.Errorf("without ports alice has %v, and %+v is listed", w.entry(alice).Forwards, w.mappings())
	}
	if _, err := w.AddPool(context.Background(), "", spare); err != nil {
		t.Error(err)
	}
	if err := w.SetGroups(context.Background(), []lsn.GroupConfig{with}); err != nil {
		t.Fatal(err)
	}
	w.until("the mapping to be in force", func() bool { return w.entry(alice).Forwards.Has(made.Forward()) })
	w.check()
}

// newWorldWithMappedPrefix has a second outside prefix, with a mapping.
func newWorldWithMappedPrefix(t *testing.T) (*world, netip.Prefix) {
	t.Helper()
	g, prefix := mappedGroup(), netip.MustParsePrefix("203.0.113.0/30")
	g.Outside = append(slices.Clone(g.Outside), prefix)
	w := newWorld(t, g)
	m := udpOf("a", 53)
	m.Outside.AddrPort = netip.MustParseAddrPort("203.0.113.1:60000")
	w.mapped(m, 0)
	return w, prefix
}

// TestPoolWithMappings_NAT27: a prefix with mappings is removed only with allow_disruption,
// which ends them.
func TestPoolWithMappings_NAT27(t *testing.T) {
	w, prefix := newWorldWithMappedPrefix(t)
	ctx := context.Background()
	if _, err := w.DrainPool(ctx, "", prefix); err != nil {
		t.Fatal(err)
	}
	if list := w.mappings(); len(list) != 1 || list[0].Ended() {
		t.Errorf("draining: %+v", list)
	}
	other := udpOf("b", 53)
	other.Outside.AddrPort = netip.MustParseAddrPort("203.0.113.1:60001")
	if _, err := w.CreateMapping(ctx, other, 0); !errors.Is(err, inspect.ErrMappingOutside) {
		t.Errorf("a draining prefix gives a port: %v", err)
	}
	live := (*inspect.LiveBindingsError)(nil)
	if _, _, err := w.RemovePool(ctx, "", prefix, false); !errors.As(err, &live) || live.Mappings != 1 {
		t.Errorf("removed: %v", err)
	}
	w.server.Hang(t)
	hung, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	if _, _, err := w.RemovePool(hung, "", prefix, true); !errors.Is(err, inspect.ErrUnavailable) {
		t.Errorf("removed without the database: %v", err)
	}
	w.server.Resume(t)
	w.until("the daemon to be ready", func() bool { return w.NotReady() == nil })
	if list := w.mappings(); len(list) != 1 || list[0].Ended() {
		t.Errorf("after the removal that failed: %+v", list)
	}
	if _, _, err := w.RemovePool(ctx, "", prefix, true); err != nil {
		t.Fatal(err)
	}
	w.until("the mapping to be gone", func() bool { return len(w.mappings())+len(w.storedMappings()) == 0 })
}

// TestCutOfMappingsSurvivesKill_NAT27_I7: a kill after the removal of a prefix was stored leaves no
// mapping of it.
func TestCutOfMappingsSurvivesKill_NAT27_I7(t *testing.T) {
	w, prefix := newWorldWithMappedPrefix(t)
	w.halt()
	change := subscriberdb.PoolChange{Prefix: prefix, Kind: subscriberdb.PoolCut, At: time.Now().UTC()}
	w.must(w.db.SavePoolChanges(context.Background(), "default", []subscriberdb.PoolChange{change}))
	w.boot()
	w.until("the mapping to be gone", func() bool { return len(w.mappings())+len(w.storedMappings()) == 0 })
}

// TestRandomMappings_I1_I7: whatever subscribers and persons do, and however often sessiond
// crashes or its database is emptied, no endpoint has two owners, the database has what is in
// force, and a visitor reaches whom the mapping names.
func TestRandomMappings_I1_I7(t *testing.T) {
	for seed := range uint64(testenv.Walks(3)) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { randomMappings(t, rand.New(rand.NewPCG(seed, 7))) })
	}
}

func randomMappings(t *testing.T, r *rand.Rand) {
	g := mappedGroup()
	g.Hold = 20 * time.Millisecond
	g.Static.Last = 60009
	w := newWorld(t, g)
	ctx := context.Background()
	want := map[nat.Endpoint]nat.Mapping{} // in force, by the answers
	online := map[netip.Addr]string{}
	number := 0
	for range 120 {
		user, inside := fmt.Sprint("u", r.IntN(4)), netip.AddrFrom4([4]byte{100, 64, 1, byte(r.IntN(5))})
		switch r.IntN(12) {
		case 0, 1, 2:
			number++
			if online[inside] == "" {
				w.send(subscriber.EventStart, inside, user, fmt.Sprint("s", number))
				online[inside] = user + "/" + fmt.Sprint("s", number)
			}
		case 3, 4:
			if u, id, ok := strings.Cut(online[inside], "/"); ok {
				w.send(subscriber.EventStop, inside, u, id)
				delete(online, inside)
			}
		case 5, 6, 7, 8:
			m := udpOf(user, nat.Port(1+r.IntN(3)))
			if r.IntN(4) == 0 {
				m.Owner = nat.Owner{Inside: inside}
			}
			made, err := w.CreateMapping(ctx, m, 0)
			if err == nil {
				if has, taken := want[made.Outside]; taken {
					t.Fatalf("%v was given to %v, it is of %v", made.Outside, m.Owner, has.Owner)
				}
				want[made.Outside] = made.Mapping
			} else if !errors.Is(err, inspect.ErrMappingExists) && !errors.Is(err, inspect.ErrMappingFull) {
				t.Fatal(err)
			}
		case 9:
			for e := range want {
				if _, _, err := w.DeleteMapping(ctx, "", e); err != nil {
					t.Fatal(err)
				}
				delete(want, e)
				break
			}
		case 10:
			w.halt()
			w.boot()
		case 11:
			if r.IntN(3) == 0 {
				if err := w.client.FlushAll(ctx).Err(); err != nil {
					t.Fatal(err)
				}
				w.until("the database to be whole", func() bool {
					ok, err := w.client.Exists(ctx, "sessiond:{default}:marker").Result()
					return err == nil && ok == 1 && w.NotReady() == nil
				})
			}
		}
	}
	heldBy := func(m *inspect.Mapping) string {
		holder, _, _ := strings.Cut(online[m.Inside], "/")
		return holder
	}
	w.until("all to be at rest", func() bool {
		for _, m := range w.mappings() {
			stopped := m.InForce && m.Owner.UserName != "" && heldBy(&m) != m.Owner.UserName // not read from the feed yet
			if m.Ended() || m.Inside.IsValid() != m.InForce || stopped {
				return false
			}
		}
		return true
	})
	got := map[nat.Endpoint]nat.Mapping{}
	for _, m := range w.mappings() {
		got[m.Outside] = m.Mapping
		s, err := w.reach(m.Mapping)
		if m.InForce != (err == nil) || err == nil && s.Inside != netip.AddrPortFrom(m.Inside, uint16(m.InsidePort)) {
			t.Errorf("a visitor of %+v reaches %v, %v", m, s.Inside, err)
		}
		if holder := heldBy(&m); m.InForce && m.Owner.UserName != "" && holder != m.Owner.UserName {
			t.Errorf("%v of %v is at %v, which %q has", m.Outside, m.Owner, m.Inside, holder)
		}
	}
	if !maps.EqualFunc(got, want, func(a, b nat.Mapping) bool { return sameMapping(&a, &b) }) {
		t.Errorf("in force are %v, want %v", got, want)
	}
	w.until("the database to have the same", func() bool {
		return maps.EqualFunc(w.storedMappings(), want, func(a, b nat.Mapping) bool { return sameMapping(&a, &b) })
	})
	w.check()
}
