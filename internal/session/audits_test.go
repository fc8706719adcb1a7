package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/access"
	"github.com/sessiond/sessiond/internal/audit"
	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/redisconn"
	"github.com/sessiond/sessiond/internal/subscriberdb/trail"
	"github.com/sessiond/sessiond/internal/testenv"
)

// ordering returns a context of a caller's order.
func ordering(method, requestID string) context.Context {
	return audit.With(context.Background(), &audit.Order{
		Actor: audit.Actor{Name: "user:0"}, Method: method, Reason: "ticket 7", RequestID: requestID,
	})
}

// again returns the context of another attempt of an order.
func again(method, requestID string) context.Context {
	ctx := ordering(method, requestID)
	audit.From(ctx).Again = true
	return ctx
}

// entries returns the audit entries of a method, oldest first, and checks all trails.
func (w *world) entries(method string) []audit.Entry {
	w.t.Helper()
	checked, err := w.Manager.Audits().VerifyAudit(w.t.Context(), "")
	w.must(err)
	for _, v := range checked {
		if v.Flaw != nil {
			w.t.Errorf("trail %s: %+v", v.Trail, *v.Flaw)
		}
	}
	page, err := w.Manager.Audits().ListAudit(w.t.Context(), audit.Filter{Method: method}, audit.Place{}, 1000)
	if err != nil || page.Next != (audit.Place{}) || page.Unread != nil {
		w.t.Fatal(page.Next, page.Unread, err)
	}
	slices.Reverse(page.Entries)
	return page.Entries
}

// hold makes subscribers whose removal is suspended, each with one session.
func (w *world) hold(inside ...netip.Addr) {
	w.t.Helper()
	for _, a := range inside {
		r := subscriber.Record{Key: subscriber.Key{Group: "default", Inside: a}, UserName: "user-" + a.String(), StartedAt: time.Now()}
		w.must(w.db.SuspendRemovals(w.t.Context(), []subscriber.Ending{subscriber.NewEnding(r, subscriber.ReasonRemovedInDatabase, time.Now())}))
		w.awaitState(a, nat.Active)
		w.flow(a, 5000)
	}
}

// TestPreviewsChangeNothing: each tells the effect of its call, and has none.
func TestPreviewsChangeNothing(t *testing.T) {
	w := newWorld(t, mappedGroup())
	p := w.Backend.Previews()
	w.send(subscriber.EventStart, alice, "a", "1")
	w.send(subscriber.EventStart, bob, "b", "2")
	held := w.awaitState(alice, nat.Active)
	w.awaitState(bob, nat.Active)
	w.flow(alice, 4000)
	w.flow(alice, 4001)
	made := w.mapped(udpOf("a", 53), 0)
	_, err := w.reach(made.Mapping)
	w.must(err)
	ctx := t.Context()

	records, all, sessions, err := p.PreviewDelete(ctx, inspect.SubscriberFilter{UserName: "a"}, 10)
	if err != nil || len(records) != 1 || all != 1 || records[0].Inside != alice || sessions != 3 {
		t.Errorf("delete: %v, %d, %d sessions, %v", records, all, sessions, err)
	}
	port := held.First
	for _, f := range []inspect.SubscriberFilter{
		{}, {State: inspect.SubscriberActive}, {State: inspect.SubscriberPending}, {Outside: netip.PrefixFrom(held.Outside, 32), Port: port},
	} {
		doomed, err := w.matching(f)
		w.must(err)
		records, all, _, err := p.PreviewDelete(ctx, f, 1)
		if err != nil || all != len(doomed) || len(records) != min(all, 1) {
			t.Errorf("%+v: %d would be deleted, previewed are %d, %v", f, len(doomed), all, err)
		}
	}
	for user, want := range map[string]int{"a": 0, "z": 1} {
		n, sessions, err := p.PreviewPut(ctx, subscriber.Record{Key: subscriber.Key{Inside: alice}, UserName: user})
		if err != nil || n != want || sessions != 3*want {
			t.Errorf("put of %s: %d, %d sessions, %v", user, n, sessions, err)
		}
	}
	if _, _, err := p.PreviewPut(ctx, subscriber.Record{Key: subscriber.Key{Inside: netip.MustParseAddr("10.0.0.1")}}); !errors.Is(err, inspect.ErrNoGroup) {
		t.Errorf("put outside of the group: %v", err)
	}
	pool := testGroup.Outside[0]
	if _, _, _, err := p.PreviewRemovePool(ctx, "", pool, false); !errors.As(err, new(*inspect.LiveBindingsError)) {
		t.Errorf("remove a pool in use: %v", err)
	}
	pools, bindings, sessions, err := p.PreviewRemovePool(ctx, "", pool, true)
	if err != nil || len(pools) != 1 || bindings != 2 || sessions != 3 {
		t.Errorf("remove a pool: %v, %d bindings, %d sessions, %v", pools, bindings, sessions, err)
	}
	if _, err := p.PreviewAddPool(ctx, "", spare); err != nil {
		t.Errorf("add a pool: %v", err)
	}
	if _, err := p.PreviewAddPool(ctx, "", testGroup.Inside[0]); !errors.Is(err, inspect.ErrPoolConflict) {
		t.Errorf("add an inside prefix: %v", err)
	}
	if pools, err := p.PreviewDrainPool(ctx, "", pool); err != nil || len(pools) != 1 || pools[0].Draining {
		t.Errorf("drain a pool: %v, %v", pools, err)
	}
	if _, err := p.PreviewMapping(ctx, udpOf("a", 53), 0); !errors.Is(err, inspect.ErrMappingExists) {
		t.Errorf("map a port again: %v", err)
	}
	if m, err := p.PreviewMapping(ctx, udpOf("a", 54), 0); err != nil || !m.Outside.IsValid() || m.InForce {
		t.Errorf("map another port: %+v, %v", m, err)
	}
	if m, n, err := p.PreviewMappingEnd(ctx, "", made.Outside); err != nil || m.Outside != made.Outside || n != 1 {
		t.Errorf("end a mapping: %+v, %d sessions, %v", m, n, err)
	}
	if n, sessions, _, err := p.PreviewRemovals(ctx, inspect.RemovalFilter{}); err != nil || n != 0 || sessions != 0 {
		t.Errorf("removals: %d, %d, %v", n, sessions, err)
	}
	w.hold(carol, dave)
	w.flow(dave, 5001)
	for _, c := range []struct {
		f           inspect.RemovalFilter
		n, sessions int
	}{
		{inspect.RemovalFilter{}, 2, 3}, {one(carol), 1, 1}, {one(dave), 1, 2}, {one(alice), 0, 0},
		{inspect.RemovalFilter{Reason: subscriber.ReasonRemovedInDatabase}, 2, 3}, {inspect.RemovalFilter{Reason: subscriber.ReasonExpired}, 0, 0},
	} {
		if n, sessions, _, err := p.PreviewRemovals(ctx, c.f); err != nil || n != c.n || sessions != c.sessions {
			t.Errorf("removals %+v: %d, %d sessions, %v; want %d and %d", c.f, n, sessions, err, c.n, c.sessions)
		}
	}
	if held := w.removals(inspect.RemovalFilter{}); len(held) != 2 {
		t.Errorf("a preview decided about removals: %+v", held)
	}

	if b := w.bindings(alice)[nat.Active]; b.Outside != held.Outside || len(w.mappings()) != 1 || len(w.entries("")) != 0 {
		t.Error("a preview changed something")
	}
	w.toggle(false)
	w.send(subscriber.EventStop, alice, "a", "1")
	w.awaitState(alice, nat.Draining)
	s, bindings, sessions, err := p.PreviewSettings(ctx, inspect.Settings{Removal: inspect.RemovalOn}, []string{inspect.SettingRemoval})
	if err != nil || s.Removal != inspect.RemovalOn || bindings != 1 || sessions == 0 {
		t.Errorf("settings: %+v, %d bindings, %d sessions, %v", s, bindings, sessions, err)
	}
	if w.bindings(alice)[nat.Draining].Inside != alice {
		t.Error("a preview changed the settings")
	}
	w.check()
}

// TestEveryOrderIsInTheTrail: each order of a caller has its entries, with its reason.
func TestEveryOrderIsInTheTrail(t *testing.T) {
	w := newWorld(t, mappedGroup())
	w.send(subscriber.EventStart, alice, "a", "1")
	w.awaitState(alice, nat.Active)
	w.flow(alice, 4000)
	w.hold(carol, dave)
	removals := func(ctx context.Context, decide func(context.Context, inspect.RemovalFilter, string) (int, error), inside netip.Addr) error {
		n, err := decide(ctx, one(inside), "")
		if n != 1 {
			t.Errorf("%d removals are decided", n)
		}
		return err
	}
	elsewhere := func(ctx context.Context) error { // what is not in Redis: the history
		_, err := w.Audits().Ordered(ctx, func(e *audit.Entry) { e.Keys = []string{"case 4711"} }, func() (int, error) { return 1, nil })
		return err
	}
	orders := map[string]func(ctx context.Context) error{
		"ExportHistory": elsewhere, "BackupHistory": elsewhere, "EraseHistory": elsewhere,
		"ConfirmRemovals": func(ctx context.Context) error { return removals(ctx, w.ConfirmRemovals, carol) },
		"RefuseRemovals":  func(ctx context.Context) error { return removals(ctx, w.RefuseRemovals, dave) },
		"PutSubscriber": func(ctx context.Context) error {
			_, err := w.Put(ctx, subscriber.Record{Key: subscriber.Key{Inside: bob}, UserName: "b"})
			return err
		},
		"TerminateSessions": func(ctx context.Context) error {
			n, err := w.TerminateSessions(ctx, inspect.SessionFilter{Inside: netip.PrefixFrom(alice, 32)})
			if n != 1 {
				t.Errorf("%d sessions ended", n)
			}
			return err
		},
		"DeleteSubscribers": func(ctx context.Context) error {
			_, err := w.Delete(ctx, inspect.SubscriberFilter{UserName: "a"})
			return err
		},
		"UpdateSettings": func(ctx context.Context) error {
			_, err := w.UpdateSettings(ctx, inspect.Settings{Removal: inspect.RemovalOff}, []string{inspect.SettingRemoval})
			return err
		},
		"Reconcile":  func(ctx context.Context) error { _, err := w.Reconcile(ctx, false); return err },
		"AddPool":    func(ctx context.Context) error { _, err := w.AddPool(ctx, "", spare); return err },
		"DrainPool":  func(ctx context.Context) error { _, err := w.DrainPool(ctx, "", spare); return err },
		"RemovePool": func(ctx context.Context) error { _, _, err := w.RemovePool(ctx, "", spare, true); return err },
		"CreateMapping": func(ctx context.Context) error {
			m := udpOf("a", 53)
			m.Outside.AddrPort = netip.MustParseAddrPort("198.51.100.1:60001")
			_, err := w.CreateMapping(ctx, m, 0)
			return err
		},
		"DeleteMapping": func(ctx context.Context) error {
			_, _, err := w.DeleteMapping(ctx, "", nat.Endpoint{Protocol: nat.ProtocolUDP, AddrPort: netip.MustParseAddrPort("198.51.100.1:60001")})
			return err
		},
	}
	for _, method := range access.Methods() {
		name, ours := strings.CutPrefix(method, "/sessiond.v1.")
		if _, short, _ := strings.Cut(name, "/"); ours && access.Changes(method, nil) && orders[short] == nil {
			t.Errorf("no order is by %s", name)
		}
	}
	for _, method := range []string{
		"PutSubscriber", "TerminateSessions", "ConfirmRemovals", "RefuseRemovals", "DeleteSubscribers", "UpdateSettings", "Reconcile",
		"AddPool", "DrainPool", "RemovePool", "CreateMapping", "DeleteMapping", "ExportHistory", "BackupHistory", "EraseHistory",
	} {
		if err := orders[method](ordering(method, "")); err != nil {
			t.Fatalf("%s: %v", method, err)
		}
		entries := w.entries(method)
		want := []audit.Outcome{audit.Done}
		if method == "Reconcile" || method == "TerminateSessions" || strings.HasSuffix(method, "History") {
			want = []audit.Outcome{audit.Ordered, audit.Done}
		}
		if len(entries) != len(want) {
			t.Errorf("%s: entries %+v", method, entries)
			continue
		}
		for i, e := range entries {
			if e.Outcome != want[i] || e.Reason != "ticket 7" || e.Actor != "user:0" || i > 0 && e.Of != entries[0].Number {
				t.Errorf("%s: entry %+v", method, e)
			}
		}
	}
	if e := w.entries("UpdateSettings")[0]; e.Old != "subscriber_session_removal=on" || e.New != "subscriber_session_removal=off" {
		t.Errorf("settings: old %q, new %q", e.Old, e.New)
	}
	for method, inside := range map[string]netip.Addr{"ConfirmRemovals": carol, "RefuseRemovals": dave} {
		if e := w.entries(method)[0]; e.Count != 1 || !slices.Equal(e.Keys, []string{inside.String()}) || !strings.Contains(e.Old, "REMOVED_IN_DATABASE") {
			t.Errorf("%s: entry %+v", method, e)
		}
	}
	before := len(w.entries(""))
	if _, err := w.Reconcile(ordering("Reconcile", ""), true); err != nil || len(w.entries("")) != before {
		t.Errorf("a dry run has an entry, or %v", err)
	}
	if n, err := w.TerminateSessions(ordering("TerminateSessions", ""), inspect.SessionFilter{Inside: netip.PrefixFrom(carol, 32)}); n != 0 || err != nil || len(w.entries("")) != before {
		t.Errorf("no session ended, and an entry: %d, %v", n, err)
	}
}

// awayServer fails commands with some keys, as those of a server of a Cluster that is away.
type awayServer struct {
	mu   sync.Mutex
	keys []string // parts of names
}

func (a *awayServer) set(keys ...string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.keys = keys
}

func (a *awayServer) fail(cmds ...redis.Cmder) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, cmd := range cmds {
		for _, key := range a.keys {
			if strings.Contains(fmt.Sprint(cmd.Args()...), key) {
				cmd.SetErr(&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED})
				return cmd.Err()
			}
		}
	}
	return nil
}

func (a *awayServer) DialHook(next redis.DialHook) redis.DialHook { return next }

func (a *awayServer) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if err := a.fail(cmd); err != nil {
			return err
		}
		return next(ctx, cmd)
	}
}

func (a *awayServer) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if err := a.fail(cmds...); err != nil {
			return err
		}
		return next(ctx, cmds)
	}
}

// TestAuditWithoutAServer: where the trails of one server cannot be read, the others are
// verified and listed, and those that cannot are named.
func TestAuditWithoutAServer(t *testing.T) {
	t.Parallel()
	client := redis.NewClient(&redis.Options{Network: "unix", Addr: testenv.StartRedis(t).Socket})
	t.Cleanup(func() { _ = client.Close() })
	away := &awayServer{}
	client.AddHook(away)
	trails := trail.New(trail.Options{
		Client: redisconn.New(client, trail.Scripts()...), Node: "test", Trails: func() []string { return []string{"default", "east"} },
		Failed: func() {}, Logger: slog.New(slog.DiscardHandler), Now: time.Now,
	})
	for _, name := range []string{"default", "east", "removed", audit.DaemonTrail} {
		if err := trails.Write(ordering("Any", ""), name, func(*audit.Entry) {}, nil); err != nil {
			t.Fatal(err)
		}
	}
	a := &Audits{trails: trails}
	for _, c := range []struct {
		away []string
		want string
	}{
		{nil, "_:1 default:1 east:1 removed:1"},
		{[]string{"{east}"}, "_:1 default:1 east:unread removed:1"},
		{[]string{"{east}", "{removed}"}, "_:1 default:1 east:unread removed:unread"},
		{[]string{"{sessiond:settings}"}, "_:unread default:1 east:1 :unread"}, // has the names of the others too
	} {
		away.set(c.away...)
		all, err := a.VerifyAudit(t.Context(), "")
		var told []string
		for _, v := range all {
			switch {
			case v.Unread == "":
				told = append(told, fmt.Sprint(v.Trail, ":", v.Entries))
			case strings.Contains(v.Unread, "connection refused"):
				told = append(told, v.Trail+":unread")
			default:
				told = append(told, v.Trail+":"+v.Unread)
			}
			if v.Flaw != nil {
				t.Errorf("%v away: flaw %+v of %s", c.away, v.Flaw, v.Trail)
			}
		}
		if got := strings.Join(told, " "); err != nil || got != c.want {
			t.Errorf("%v away: %s, %v, want %s", c.away, got, err, c.want)
		}
		if got := listed(t, a); got != c.want {
			t.Errorf("%v away: listed %s, want %s", c.away, got, c.want)
		}
		for _, name := range []string{"default", "removed"} {
			reads := !slices.Contains(c.away, "{"+name+"}") && (name == "default" || !slices.Contains(c.away, "{sessiond:settings}"))
			if _, err := a.VerifyAudit(t.Context(), name); (err == nil) != reads || err != nil && !errors.Is(err, inspect.ErrUnavailable) {
				t.Errorf("%v away: trail %s alone: %v", c.away, name, err)
			}
		}
	}
	away.set("sessiond:")
	if page, err := a.ListAudit(t.Context(), audit.Filter{}, audit.Place{}, 1); !errors.Is(err, inspect.ErrUnavailable) {
		t.Errorf("listed without Redis: %+v, %v", page, err)
	}
	if all, err := a.VerifyAudit(t.Context(), ""); !errors.Is(err, inspect.ErrUnavailable) {
		t.Errorf("without Redis: %+v, %v", all, err)
	}
}

// listed returns the number of entries of each trail, by pages of one.
func listed(t *testing.T, a *Audits) string {
	t.Helper()
	told := map[string]string{}
	for after := (audit.Place{}); ; {
		page, err := a.ListAudit(t.Context(), audit.Filter{}, after, 1)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page.Entries {
			told[e.Trail] += "1"
		}
		for _, u := range page.Unread {
			if told[u.Trail] = "unread"; !errors.Is(u.Err, syscall.ECONNREFUSED) {
				t.Errorf("trail %q: %v", u.Trail, u.Err)
			}
		}
		if after = page.Next; after == (audit.Place{}) {
			break
		}
	}
	var all []string
	for _, name := range []string{audit.DaemonTrail, "default", "east", "removed", ""} {
		if told[name] != "" {
			all = append(all, name+":"+told[name])
		}
	}
	return strings.Join(all, " ")
}

// TestDecisionIsAboutTheSeen: a decision with an etag is about the removals that had it, or about none;
// an attempt behind a crash is about the same ones.
func TestDecisionIsAboutTheSeen(t *testing.T) {
	w := newWorld(t, mappedGroup())
	all := inspect.RemovalFilter{Group: "default"}
	w.hold(carol)
	_, _, one, err := w.Previews().PreviewRemovals(t.Context(), all)
	w.must(err)
	w.hold(dave)
	_, _, two, err := w.Previews().PreviewRemovals(t.Context(), all)
	w.must(err)
	decide := map[string]func(context.Context, inspect.RemovalFilter, string) (int, error){"ConfirmRemovals": w.ConfirmRemovals, "RefuseRemovals": w.RefuseRemovals}
	for method, decided := range decide {
		if n, err := decided(ordering(method, ""), all, one); n != 0 || !errors.Is(err, inspect.ErrConflict) {
			t.Errorf("%s of others: %d, %v", method, n, err)
		}
	}
	if held := w.removals(all); len(held) != 2 || len(w.entries("")) != 0 {
		t.Errorf("%d removals are held", len(held))
	}
	// The first attempt came to carol alone.
	if n, err := w.ConfirmRemovals(ordering("ConfirmRemovals", "r1"), inspect.RemovalFilter{Inside: netip.PrefixFrom(carol, 32)}, one); n != 1 || err != nil {
		t.Errorf("the first: %d, %v", n, err)
	}
	if n, err := w.ConfirmRemovals(again("ConfirmRemovals", "r1"), all, one); n != 0 || !errors.Is(err, inspect.ErrConflict) {
		t.Errorf("the next attempt, with more: %d, %v", n, err)
	}
	if n, err := w.ConfirmRemovals(again("ConfirmRemovals", "r1"), all, two); n != 2 || err != nil {
		t.Errorf("the next attempt: %d, %v", n, err)
	}
	if held := w.removals(all); len(held) != 0 {
		t.Errorf("still held: %+v", held)
	}
}

// TestInterruptedRequests: after a crash between the change and its answer, another attempt
// with the same request_id has the answer of the first, and makes no second change.
func TestInterruptedRequests(t *testing.T) {
	w := newWorld(t, mappedGroup())
	w.send(subscriber.EventStart, alice, "a", "1")
	w.send(subscriber.EventStart, bob, "b", "2")
	w.awaitState(bob, nat.Active)
	made, err := w.CreateMapping(ordering("CreateMapping", "m1"), udpOf("a", 53), 0)
	w.must(err)
	deleted, err := w.Delete(ordering("DeleteSubscribers", "d1"), inspect.SubscriberFilter{UserName: "b"})
	if err != nil || len(deleted) != 1 {
		t.Fatal(deleted, err)
	}
	w.halt()
	w.boot()

	m, err := w.CreateMapping(again("CreateMapping", "m1"), udpOf("a", 53), 0)
	if err != nil || m.Outside != made.Outside || len(w.mappings()) != 1 {
		t.Errorf("a mapping made again: %+v, %v", m, err)
	}
	w.send(subscriber.EventStart, bob, "b", "3") // came back since
	w.awaitState(bob, nat.Active)
	if d, err := w.Delete(again("DeleteSubscribers", "d1"), inspect.SubscriberFilter{UserName: "b"}); err != nil || len(d) != 1 || d[0].Inside != bob {
		t.Errorf("deleted again: %v, %v", d, err)
	}
	back, err := w.Subscriber(t.Context(), subscriber.Key{Inside: bob})
	if err != nil {
		t.Fatalf("who came back was deleted by the repeated request: %v", err)
	}
	for range 2 { // the second comes as another attempt of the same request
		if r, err := w.DeleteVersion(again("DeleteSubscribers", "v1"), back.Key, back.Version); err != nil || r.Inside != bob {
			t.Errorf("deleted by version: %v, %v", r.Inside, err)
		}
	}
	if d, err := w.Delete(again("DeleteSubscribers", "another"), inspect.SubscriberFilter{UserName: "b"}); err != nil || len(d) != 0 {
		t.Errorf("of another request: %v, %v", d, err)
	}
	_, _, err = w.DeleteMapping(ordering("DeleteMapping", "e1"), "", made.Outside)
	w.must(err)
	if m, _, err := w.DeleteMapping(again("DeleteMapping", "e1"), "", made.Outside); err != nil || m.Outside != made.Outside || !m.Ended() {
		t.Errorf("a mapping deleted again: %+v, %v", m, err)
	}
	if _, _, err := w.DeleteMapping(ordering("DeleteMapping", "e2"), "", made.Outside); !errors.Is(err, inspect.ErrNotFound) {
		t.Errorf("deleted by another request: %v", err)
	}
	if n := len(w.entries("")); n != 4 {
		t.Errorf("%d entries", n)
	}
}
