package session

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// endings returns the endings that match, the latest first.
func (w *world) endings(f inspect.EndingFilter) []inspect.Ending {
	w.t.Helper()
	p, err := w.Endings(context.Background(), f, 0, 1000)
	if err != nil {
		w.t.Fatal(err)
	}
	return p.List
}

// TestEndings: an end is known at once, and its removal once it is proved; reason and cause are in
// the binding, the receipt and the ending. A restart keeps it while the block is held.
func TestEndings(t *testing.T) {
	t.Parallel()
	g := testGroup
	g.Hold = time.Minute
	w := newWorld(t, g)
	w.send(subscriber.EventStart, alice, "a", "1")
	w.awaitState(alice, nat.Active)
	if list := w.endings(inspect.EndingFilter{}); len(list) != 0 {
		t.Errorf("before any end: %+v", list)
	}
	w.flow(alice, 4000)
	w.hangUp(alice, "a", "1", userRequest)
	held := w.awaitState(alice, nat.Held)
	why := subscriber.End{Reason: subscriber.ReasonStop, Cause: userRequest}
	if held.Receipt.End != why || held.Why() != why {
		t.Errorf("the held binding tells %+v, its receipt %+v", held.Why(), held.Receipt)
	}
	check := func(when string, nas string) {
		t.Helper()
		list := w.endings(inspect.EndingFilter{UserName: "a", Inside: netip.PrefixFrom(alice, 32), Outside: netip.PrefixFrom(held.Outside, 32), Reason: subscriber.ReasonStop})
		if len(list) != 1 || list[0].End != why || list[0].Receipt == nil || list[0].Receipt.Deleted != 1 || list[0].Blocks != held.Blocks || list[0].Record.NAS != nas {
			t.Errorf("%s: %+v", when, list)
		}
	}
	check("after the removal", "bng-1")
	for name, f := range map[string]inspect.EndingFilter{
		"another user": {UserName: "b"}, "another reason": {Reason: subscriber.ReasonAdmin}, "later": {Since: time.Now().Add(time.Hour)},
		"earlier": {Until: time.Now().Add(-time.Hour)}, "another NAS": {NAS: "x"}, "elsewhere": {Outside: netip.MustParsePrefix("192.0.2.0/24")},
	} {
		if list := w.endings(f); len(list) != 0 {
			t.Errorf("%s: %+v", name, list)
		}
	}
	w.until("the binding to be stored", func() bool {
		w.mu.RLock()
		defer w.mu.RUnlock()
		return w.life.Writes().Len() == 0
	})
	w.halt()
	w.boot()
	w.until("the holds to be taken over", func() bool { return len(w.endings(inspect.EndingFilter{})) > 0 })
	check("after the restart", "")
	if p, _ := w.Endings(context.Background(), inspect.EndingFilter{}, 0, 1); p.Since.IsZero() || !p.Since.After(p.List[0].At) {
		t.Errorf("all are known since %v, although the daemon began after %v", p.Since, p.List[0].At)
	}
}

// TestEndingOfGrace: a subscriber that comes back in its grace time was not removed; one that
// does not, is.
func TestEndingOfGrace(t *testing.T) {
	t.Parallel()
	w := newWorld(t, graceGroup(time.Minute))
	w.inGrace()
	list := w.endings(inspect.EndingFilter{})
	if len(list) != 1 || list[0].Receipt != nil || !list[0].ResumedAt.IsZero() || list[0].Cause != lostCarrier {
		t.Errorf("in the grace time: %+v", list)
	}
	if b := w.bindings(alice)[nat.Draining]; b.Why() != (subscriber.End{Reason: subscriber.ReasonStop, Cause: lostCarrier}) {
		t.Errorf("the draining binding tells %+v", b.Why())
	}
	w.send(subscriber.EventStart, alice, "a", "2")
	w.awaitState(alice, nat.Active)
	w.until("the return to be noted", func() bool { return !w.endings(inspect.EndingFilter{})[0].ResumedAt.IsZero() })
	w.hangUp(alice, "a", "2", userRequest)
	w.awaitState(alice, nat.Held)
	list = w.endings(inspect.EndingFilter{})
	if len(list) != 2 || list[0].Receipt == nil || list[1].Receipt != nil || list[0].Number <= list[1].Number {
		t.Errorf("after the second end: %+v", list)
	}
}

// TestEndingOfOutdated: an end that the slot is ahead of is not one of the subscriber that is online
// at the address now, neither in the history nor for watchers.
func TestEndingOfOutdated(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testGroup)
	w.send(subscriber.EventStart, bob, "b", "1")
	w.awaitState(bob, nat.Active)
	all, his := w.events(inspect.Watch{}), w.events(inspect.Watch{Filter: inspect.SubscriberFilter{UserName: "b"}})
	old := subscriber.Record{Key: subscriber.Key{Group: "default", Inside: bob}, Version: "1-1"}
	c := subscriber.Change{
		Kind: subscriber.Deleted, Partial: true, ID: subscriber.ParseVersion(old.Version), Record: old.Pack(),
		End: subscriber.End{Reason: subscriber.ReasonNASRestart},
	}
	f := w.Manager.desk.watches.follower
	g := f.groups["default"]
	f.apply(g, []subscriber.Change{c}, f.positionOf(g))
	if list := w.endings(inspect.EndingFilter{}); len(list) != 0 {
		t.Errorf("endings %+v", list)
	}
	if n := w.Manager.desk.reports.endings.wave(inspect.NASKey{Client: "bng1", Name: "bng-1"}); n.Subscribers != 0 || len(w.Manager.desk.reports.endings.waves) != 0 {
		t.Errorf("a restart of a NAS ended some: %+v", n)
	}
	w.hangUp(bob, "b", "1", userRequest)
	for name, c := range map[string]struct {
		events iter.Seq2[*inspect.Notice, error]
		user   string
		why    subscriber.Reason
	}{"all": {all, "", subscriber.ReasonNASRestart}, "his": {his, "b", subscriber.ReasonStop}} {
		for e, err := range c.events {
			if err != nil {
				t.Fatal(err)
			}
			if e.Kind != inspect.EventDeleted {
				continue
			}
			if e.Subscriber.UserName != c.user || e.Reason != c.why {
				t.Errorf("%s: the first end is of %q, for %v", name, e.Subscriber.UserName, e.Reason)
			}
			break
		}
	}
	w.awaitState(bob, nat.Held)
	if list := w.endings(inspect.EndingFilter{}); len(list) != 1 || list[0].Reason != subscriber.ReasonStop {
		t.Errorf("endings %+v", list)
	}
}

// TestExplainLeavesTheLock: a search through all ends does not keep cuts waiting.
func TestExplainLeavesTheLock(t *testing.T) {
	w := newWorld(t, testGroup)
	w.Manager.desk.reports.endings.mu.Lock()
	done := make(chan error)
	go func() {
		_, err := w.Explain(context.Background(), inspect.Customer{UserName: "nobody"})
		done <- err
	}()
	stacks := make([]byte, 1<<20)
	w.until("the search to begin", func() bool {
		return strings.Contains(string(stacks[:runtime.Stack(stacks, true)]), "(*endingLog).page")
	})
	defer func() {
		w.Manager.desk.reports.endings.mu.Unlock()
		if err := <-done; !errors.Is(err, inspect.ErrNotFound) {
			t.Error(err)
		}
	}()
	w.until("a cut to get the lock", func() bool {
		free := w.mu.TryLock()
		if free {
			w.mu.Unlock()
		}
		return free
	})
}

// TestEndingsOfRestart: whom the restart of a NAS ended is counted by NAS, and named.
func TestEndingsOfRestart(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testGroup)
	for i := range 5 {
		w.send(subscriber.EventStart, netip.AddrFrom4([4]byte{100, 64, 1, byte(i + 1)}), fmt.Sprint("u", i), fmt.Sprint(i))
	}
	w.until("all to be online", func() bool {
		n, _ := w.SubscriberTotal(context.Background(), inspect.SubscriberFilter{})
		return n == 5
	})
	ev := w.event(subscriber.EventAccountingOn, netip.Addr{}, "", "")
	ev.AcctSessionID, ev.At = "", time.Now().Add(time.Second)
	w.sendAll(ev)
	w.until("all to be ended", func() bool {
		return len(w.endings(inspect.EndingFilter{NAS: "bng-1", Reason: subscriber.ReasonNASRestart})) == 5
	})
	again := w.event(subscriber.EventStart, alice, "back", "9")
	again.At = ev.At.Add(time.Second)
	w.sendAll(again)
	var list []inspect.NAS
	w.until("the NAS to be listed, by its subscriber", func() bool {
		var err error
		list, err = w.NASes(context.Background(), inspect.NASFilter{Name: "bng-1"}, inspect.NASKey{}, 1)
		return err == nil && len(list) == 1
	})
	if list[0].Endings.Subscribers != 5 || list[0].Endings.Last.Before(list[0].Endings.First) {
		t.Errorf("NAS %+v", list)
	}
}

// TestEndingLog: the log keeps the newest endings, and says since when it has all; pages go on
// where the one before ended, whatever is added meanwhile.
func TestEndingLog(t *testing.T) {
	t.Parallel()
	t0 := time.Unix(1_700_000_000, 0)
	l := newEndingLog(100, t0)
	add := func(i int) {
		r := (&subscriber.Record{Key: subscriber.Key{Group: "g", Inside: netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})}, UserName: fmt.Sprint("u", i%2)}).Pack()
		l.ended(&r, subscriber.End{Reason: subscriber.ReasonStop}, t0.Add(time.Duration(i)*time.Second), &nat.Binding{})
	}
	for i := range 60 {
		add(i)
	}
	if p := l.page(&inspect.EndingFilter{}, 0, 1000); len(p.List) != 60 || !p.Since.Equal(t0) || p.Next != 0 {
		t.Errorf("%d endings since %v", len(p.List), p.Since)
	}
	for i := 60; i < 250; i++ {
		add(i)
	}
	var seen []time.Time
	for before := uint64(0); ; {
		p := l.page(&inspect.EndingFilter{UserName: "u1"}, before, 7)
		for _, e := range p.List {
			seen = append(seen, e.At)
		}
		if !p.Since.Equal(t0.Add(149*time.Second + 1)) {
			t.Fatalf("all are known since %v", p.Since)
		}
		if before = p.Next; before == 0 {
			break
		}
	}
	if len(seen) != 50 || !seen[0].Equal(t0.Add(249*time.Second)) || !seen[49].Equal(t0.Add(151*time.Second)) || !slices.IsSortedFunc(seen, func(a, b time.Time) int { return b.Compare(a) }) {
		t.Errorf("%d endings, from %v to %v", len(seen), seen[0], seen[len(seen)-1])
	}
	if len(l.open) != 100 {
		t.Errorf("%d endings are open, of 100 that are kept", len(l.open))
	}
	p := l.page(&inspect.EndingFilter{}, 0, 10)
	add(250)
	if next := l.page(&inspect.EndingFilter{}, p.Next, 10); !next.List[0].At.Equal(t0.Add(239 * time.Second)) {
		t.Errorf("the second page begins with %v", next.List[0].At)
	}
	held := []nat.Binding{
		{Group: "g", Holder: nat.Holder{Inside: alice, UserName: "old"}, ReleasedAt: t0.Add(-time.Minute), Receipt: &nat.Receipt{ReleasedAt: t0.Add(-time.Minute)}},
		{Group: "g", Holder: nat.Holder{Inside: bob, UserName: "noted"}, ReleasedAt: t0.Add(250 * time.Second), Receipt: &nat.Receipt{ReleasedAt: t0.Add(250 * time.Second)}},
	}
	small := newEndingLog(100, t0)
	small.seed(slices.Clone(held))
	if p := small.page(&inspect.EndingFilter{}, 0, 10); len(p.List) != 1 || p.List[0].Record.UserName != "old" || !p.Since.Equal(t0) {
		t.Errorf("of two holds, one of before the start: %+v", p)
	}
	l.seed(held)
	if p := l.page(&inspect.EndingFilter{UserName: "old"}, 0, 10); len(p.List) != 0 {
		t.Errorf("an old hold took the place of a newer ending: %+v", p.List)
	}
}

// TestEndingsOfBefore: no hold of before the start is lost, and each comes before the ends that were
// noted, also before one that is told late; their numbers differ, also within one microsecond.
func TestEndingsOfBefore(t *testing.T) {
	t.Parallel()
	t0 := time.Unix(1_700_000_000, 0)
	hold := func(i int, before time.Duration) nat.Binding {
		at := t0.Add(-before)
		return nat.Binding{
			Group: "g", Holder: nat.Holder{Inside: netip.AddrFrom4([4]byte{10, 1, 0, byte(i)}), UserName: "held"},
			ReleasedAt: at, Receipt: &nat.Receipt{ReleasedAt: at},
		}
	}
	for name, c := range map[string]struct {
		noted []time.Duration // before the start
		held  []time.Duration
	}{
		"one hold, after an end that is told late": {noted: []time.Duration{5 * time.Second}, held: []time.Duration{3 * time.Second}},
		"holds before and after it":                {noted: []time.Duration{5 * time.Second}, held: []time.Duration{9 * time.Second, 4 * time.Second, time.Second}},
		"no end":                                   {held: []time.Duration{2, 2, 1, 1}},
		"of the microsecond of the start":          {noted: []time.Duration{0}, held: []time.Duration{3, 2, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			l := newEndingLog(100, t0)
			for _, before := range c.noted {
				r := (&subscriber.Record{Key: subscriber.Key{Group: "g", Inside: alice}, UserName: "noted"}).Pack()
				l.ended(&r, subscriber.End{Reason: subscriber.ReasonStop}, t0.Add(-before), nil)
			}
			var held []nat.Binding
			for i, before := range c.held {
				held = append(held, hold(i, before))
			}
			l.seed(held)
			r := (&subscriber.Record{Key: subscriber.Key{Group: "g", Inside: bob}, UserName: "noted"}).Pack()
			l.ended(&r, subscriber.End{Reason: subscriber.ReasonStop}, t0, nil)
			list := l.page(&inspect.EndingFilter{}, 0, 100).List
			if want := len(c.noted) + len(c.held) + 1; len(list) != want {
				t.Fatalf("%d endings, want %d: %+v", len(list), want, list)
			}
			for i, e := range list {
				if (e.Record.UserName == "noted") != (i <= len(c.noted)) || i > 0 && e.Number >= list[i-1].Number {
					t.Errorf("ending %d from the latest: %s, number %d after %d", i, e.Record.UserName, e.Number, list[max(i-1, 0)].Number)
				}
				if l.findLocked(e.Number) == nil {
					t.Errorf("no ending has number %d", e.Number)
				}
			}
		})
	}
}

// TestExplain: a subscriber at a limit, one that waits for a block, one that is offline, and nobody.
func TestExplain(t *testing.T) {
	t.Parallel()
	g := testGroup
	g.Hold, g.Outside, g.FirstPort, g.LastPort = time.Minute, []netip.Prefix{netip.MustParsePrefix("198.51.100.1/32")}, 1024, 1535
	g.Limits = nat.Limits{UDPPorts: 2, Sessions: 10}
	w := newWorld(t, g)
	explain := func(who inspect.Customer) inspect.Explanation {
		t.Helper()
		list, err := w.Explain(context.Background(), who)
		if err != nil || len(list) != 1 {
			t.Fatalf("%+v: %d, %v", who, len(list), err)
		}
		return list[0]
	}
	if _, err := w.Explain(context.Background(), inspect.Customer{Inside: alice}); !errors.Is(err, inspect.ErrNotFound) {
		t.Errorf("nobody: %v", err)
	}
	if _, err := w.Explain(context.Background(), inspect.Customer{UserName: "a"}); !errors.Is(err, inspect.ErrNotFound) {
		t.Errorf("a user that nobody knows: %v", err)
	}
	if _, err := w.Explain(context.Background(), inspect.Customer{Inside: netip.MustParseAddr("10.0.0.1")}); !errors.Is(err, inspect.ErrNoGroup) {
		t.Errorf("an address of no group: %v", err)
	}
	w.send(subscriber.EventStart, alice, "a", "1")
	w.awaitState(alice, nat.Active)
	w.send(subscriber.EventStart, bob, "b", "2")
	w.flow(alice, 4000)
	w.flow(alice, 4001)
	if err := w.nat.SetLimits(context.Background(), []nat.PrefixLimits{{Inside: g.Inside, Limits: g.Limits}}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.nat.Send(17, netip.AddrPortFrom(alice, 4002), remote); err == nil {
		t.Fatal("the twin let a third port pass")
	}
	w.until("the refusal to be known", func() bool {
		e := explain(inspect.Customer{UserName: "a"})
		i := slices.IndexFunc(e.Limits, func(l inspect.LimitUse) bool { return l.Limit == "udp_ports" })
		return !e.Limits[i].RefusedAt.IsZero()
	})
	e := explain(inspect.Customer{Inside: alice})
	d, dropped := e.NewSession()
	if !dropped || d.Reason != nat.DropOverLimit || e.Sessions.UDP != 2 || e.NAS == nil || e.NAS.Name != "bng-1" || e.Binding == nil || e.Subscriber == nil {
		t.Errorf("at her limit: a new session %+v, %t; %+v", d, dropped, e)
	}
	if i := slices.IndexFunc(e.Drops, func(c nat.DropCount) bool { return c.Drop == d && c.Packets == 1 }); i < 0 {
		t.Errorf("drops %+v", e.Drops)
	}
	w.until("bob to wait", func() bool {
		e := explain(inspect.Customer{Inside: bob})
		return e.Subscriber != nil && e.Subscriber.Pending
	})
	if e := explain(inspect.Customer{UserName: "b"}); e.Binding != nil || !strings.Contains(e.Advice(time.Now())[0], "waits for a port block") {
		t.Errorf("bob: %+v, %q", e, e.Advice(time.Now()))
	}
	w.hangUp(alice, "a", "1", lostCarrier)
	w.awaitState(alice, nat.Held)
	for _, who := range []inspect.Customer{{Inside: alice}, {UserName: "a"}} {
		e := explain(who)
		if e.Subscriber != nil || e.Binding != nil || e.LastEnding == nil || e.LastEnding.Cause != lostCarrier || e.Inside != alice {
			t.Errorf("%+v, offline: %+v", who, e)
		}
	}
	w.send(subscriber.EventStart, alice, "c", "3") // another user at her address
	w.until("the other user to be online", func() bool { e := explain(inspect.Customer{Inside: alice}); return e.Subscriber != nil })
	if e := explain(inspect.Customer{Inside: alice}); e.LastEnding != nil {
		t.Errorf("the last end of %s is that of %s", e.Subscriber.UserName, e.LastEnding.Record.UserName)
	}
	if e := explain(inspect.Customer{UserName: "a"}); e.Subscriber != nil || e.LastEnding == nil {
		t.Errorf("of a user whose address another has: %+v", e.Subscriber)
	}
}

// TestTop: the busiest subscribers by each measure, of a group, and of a part of a pool.
func TestTop(t *testing.T) {
	t.Parallel()
	g := testGroup
	g.MaxBlocks = 2
	w := newWorld(t, g)
	inside := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{100, 64, 2, byte(i + 1)}) }
	for i := range 8 {
		w.send(subscriber.EventStart, inside(i), fmt.Sprint("u", i), fmt.Sprint(i))
		w.awaitState(inside(i), nat.Active)
		for port := range i {
			w.flow(inside(i), uint16(4000+port))
		}
		ev := w.event(subscriber.EventInterim, inside(i), fmt.Sprint("u", i), fmt.Sprint(i))
		ev.At, ev.InputOctets, ev.OutputOctets = time.Now().Add(time.Second), uint64(i), uint64(100*i)
		w.sendAll(ev)
	}
	top := func(q inspect.TopQuery) (got []string) {
		t.Helper()
		list, err := w.Top(context.Background(), q)
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range list {
			got = append(got, fmt.Sprint(x.Who.UserName, "=", x.Value))
		}
		return got
	}
	w.until("the octets to be known", func() bool { return len(top(inspect.TopQuery{By: inspect.TopOctets, Limit: 8})) == 7 })
	for by, want := range map[inspect.TopBy][]string{
		inspect.TopSessions: {"u7=7", "u6=6", "u5=5"},
		inspect.TopPorts:    {"u7=7", "u6=6", "u5=5"},
		inspect.TopOctets:   {"u7=707", "u6=606", "u5=505"},
		inspect.TopBlocks:   nil,
	} {
		if got := top(inspect.TopQuery{By: by, Limit: 3}); !slices.Equal(got, want) {
			t.Errorf("by %d: %v, want %v", by, got, want)
		}
	}
	all, err := w.Top(context.Background(), inspect.TopQuery{By: inspect.TopSessions, Limit: 1000})
	if err != nil || len(all) != 7 {
		t.Fatalf("%d with sessions, %v", len(all), err)
	}
	if got := top(inspect.TopQuery{By: inspect.TopSessions, Limit: 9, Group: "none"}); len(got) != 0 {
		t.Errorf("of no group: %v", got)
	}
	one := all[2].Who.Binding.Outside
	for _, x := range all {
		if (x.Who.Binding.Outside == one) != slices.Contains(top(inspect.TopQuery{By: inspect.TopPorts, Limit: 9, Outside: netip.PrefixFrom(one, 32)}), fmt.Sprint(x.Who.UserName, "=", x.Value)) {
			t.Errorf("of %v: %v", one, top(inspect.TopQuery{By: inspect.TopPorts, Limit: 9, Outside: netip.PrefixFrom(one, 32)}))
		}
	}
	began, port := make(chan []string), uint16(10_000)
	go func() {
		began <- top(inspect.TopQuery{By: inspect.TopNewSessions, Limit: 9, Window: 200 * time.Millisecond})
	}()
	w.until("new sessions to be counted", func() bool {
		select {
		case got := <-began:
			if len(got) == 1 && strings.HasPrefix(got[0], "u3=") {
				return true
			}
			go func() {
				began <- top(inspect.TopQuery{By: inspect.TopNewSessions, Limit: 9, Window: 200 * time.Millisecond})
			}()
		default:
			port++
			w.flow(inside(3), port)
		}
		return false
	})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := w.Top(ctx, inspect.TopQuery{By: inspect.TopNewSessions, Limit: 1, Window: time.Hour}); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller that is gone: %v", err)
	}
}

// TestRefusalMemory: a bound on the subscribers, those refused last are kept; old ones are not told.
func TestRefusalMemory(t *testing.T) {
	t.Parallel()
	m, t0 := newRefusalMemory(10), time.Unix(1_700_000_000, 0)
	at := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}) }
	for i := range 100 {
		m.note(at(0), "sessions", t0.Add(time.Duration(i)*time.Second))
		m.note(at(i), "tcp_ports", t0.Add(time.Duration(i)*time.Second))
	}
	if n := len(m.young) + len(m.old); n > 10 {
		t.Errorf("%d are kept", n)
	}
	if got := m.of(at(0), t0); !got["sessions"].Equal(t0.Add(99*time.Second)) || !got["tcp_ports"].Equal(t0) {
		t.Errorf("the one that is refused all the time: %v", got)
	}
	if got := m.of(at(99), t0.Add(100*time.Second)); len(got) != 0 {
		t.Errorf("of before: %v", got)
	}
	if got := m.of(at(1), t0); len(got) != 0 {
		t.Errorf("the first one is kept: %v", got)
	}
}

// TestStaleVersion: a record is changed and deleted only in the version that the caller has seen.
func TestStaleVersion(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testGroup)
	ctx := context.Background()
	w.send(subscriber.EventStart, alice, "a", "1")
	w.awaitState(alice, nat.Active)
	key := subscriber.Key{Group: "default", Inside: alice}
	seen, err := w.Subscriber(ctx, key)
	if err != nil || seen.Version == "" {
		t.Fatal(seen.Version, err)
	}
	ev := w.event(subscriber.EventInterim, alice, "a", "1")
	ev.At = time.Now().Add(time.Second)
	w.sendAll(ev)
	put := subscriber.Record{Key: key, UserName: "a", Version: seen.Version}
	if _, err := w.Put(ctx, put); !errors.Is(err, inspect.ErrConflict) {
		t.Errorf("put over a newer record: %v", err)
	}
	if _, err := w.DeleteVersion(ctx, key, seen.Version); !errors.Is(err, inspect.ErrConflict) {
		t.Errorf("delete of a newer record: %v", err)
	}
	var now inspect.Subscriber
	w.until("the newer record to be seen", func() bool { now, _ = w.Subscriber(ctx, key); return now.Version != seen.Version })
	put.Version = now.Version
	stored, err := w.Put(ctx, put)
	if err != nil || stored.Version == now.Version {
		t.Fatalf("put over the record that was seen: %+v, %v", stored, err)
	}
	deleted, err := w.DeleteVersion(ctx, key, stored.Version)
	if err != nil || deleted.UserName != "a" {
		t.Errorf("delete of the record that was seen: %+v, %v", deleted, err)
	}
	if _, err := w.DeleteVersion(ctx, key, stored.Version); !errors.Is(err, inspect.ErrNotFound) {
		t.Errorf("delete of what is gone: %v", err)
	}
	if _, err := w.Put(ctx, put); !errors.Is(err, inspect.ErrConflict) {
		t.Errorf("put over what is gone: %v", err)
	}
	w.awaitState(alice, nat.Held)
	if e := w.endings(inspect.EndingFilter{Reason: subscriber.ReasonAdmin}); len(e) != 1 {
		t.Errorf("endings %+v", e)
	}
}
