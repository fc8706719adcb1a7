package session

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/guard"
	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// crowd is the number of online subscribers in the tests of guards.
const crowd = 20

// quarter lets a quarter of the crowd be removed.
var quarter = guard.Limits{Minimum: 2, Removed: 0.25, Expired: 0.25, NASRestart: 0.25, Window: time.Hour}

func member(i int) netip.Addr { return netip.AddrFrom4([4]byte{100, 64, 1, byte(i)}) }

func (w *world) member(kind subscriber.EventKind, i int) {
	w.t.Helper()
	w.send(kind, member(i), fmt.Sprint("u", i), fmt.Sprint("s", i))
}

// newCrowd returns a world with the crowd online, each with a session, and a
// guard.
func newCrowd(t *testing.T, change ...func(*world)) *world {
	t.Helper()
	w := newWorld(t, testGroup, append([]func(*world){func(w *world) { w.guard = quarter }}, change...)...)
	for i := range crowd {
		w.member(subscriber.EventStart, i)
	}
	for i := range crowd {
		w.awaitState(member(i), nat.Active)
		w.flow(member(i), 4000)
	}
	return w
}

func (w *world) recordKey(i int) string { return "sessiond:{default}:sub:" + member(i).String() }

// loseRecords deletes the records of the whole crowd, and nothing else.
func (w *world) loseRecords() {
	w.t.Helper()
	var keys []string
	for i := range crowd {
		keys = append(keys, w.recordKey(i))
	}
	if err := w.client.Del(context.Background(), keys...).Err(); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) removals(f inspect.RemovalFilter) []inspect.Removal {
	w.t.Helper()
	list, _, err := w.Removals(context.Background(), f, inspect.RemovalKey{}, 1000)
	if err != nil {
		w.t.Fatal(err)
	}
	return list
}

// awaitHeld waits for n suspended removals, and returns their addresses.
func (w *world) awaitHeld(n int, why subscriber.Reason) []netip.Addr {
	w.t.Helper()
	w.until(fmt.Sprintf("%d removals to be held", n), func() bool { return len(w.removals(inspect.RemovalFilter{})) == n })
	var held []netip.Addr
	for _, r := range w.removals(inspect.RemovalFilter{}) {
		if r.Kind != inspect.RemovalHeld || r.Reason != why || time.Since(r.Since) > time.Minute || r.Sessions != 1 {
			w.t.Errorf("removal %+v, want one held for %v with a session", r, why)
		}
		held = append(held, r.Record.Inside)
	}
	return held
}

// served requires of each address an open gate and its session.
func (w *world) served(addrs ...netip.Addr) {
	w.t.Helper()
	for _, a := range addrs {
		if w.entry(a).Gate != nat.GateOpen || w.nat.SessionCount(a) != 1 {
			w.t.Errorf("%s: gate %v, %d sessions, want it untouched", a, w.entry(a).Gate, w.nat.SessionCount(a))
		}
	}
}

func (w *world) ttlOf(inside netip.Addr) time.Duration {
	w.t.Helper()
	ttl, err := w.client.PTTL(context.Background(), "sessiond:{default}:sub:"+inside.String()).Result()
	if err != nil {
		w.t.Fatal(err)
	}
	return ttl
}

func one(a netip.Addr) inspect.RemovalFilter {
	return inspect.RemovalFilter{Inside: netip.PrefixFrom(a, 32)}
}

// awaitRemoved waits until n of the crowd were removed for the reason.
func (w *world) awaitRemoved(n int, why subscriber.Reason) {
	w.t.Helper()
	w.until(fmt.Sprintf("%d removals for %v", n, why), func() bool { return w.seen.of(why) >= n })
	if got := w.seen.of(why); got != n {
		w.t.Errorf("%d removals for %v, want %d", got, why, n)
	}
}

// awaitStored waits until all bindings are stored in their present state.
func (w *world) awaitStored() {
	w.t.Helper()
	w.until("the bindings to be stored", func() bool {
		w.mu.RLock()
		defer w.mu.RUnlock()
		return w.life.Writes().Len() == 0
	})
}

// TestMassDeletion_DEL13: all records are deleted with the marker intact. A
// quarter is removed. The rest is written back, and waits for a decision, a
// Stop or an Interim, also across a restart.
func TestMassDeletion_DEL13(t *testing.T) {
	w := newCrowd(t)
	w.loseRecords()
	held := w.awaitHeld(crowd*3/4, subscriber.ReasonRemovedInDatabase)
	w.awaitRemoved(crowd/4, subscriber.ReasonRemovedInDatabase)
	w.served(held...)
	for _, a := range held {
		if ttl := w.ttlOf(a); ttl != -1 {
			t.Errorf("%s expires in %v, want never", a, ttl)
		}
	}
	w.check()

	w.awaitStored() // or the removed ones would be removed again
	w.halt()
	w.boot()
	if again := w.awaitHeld(len(held), subscriber.ReasonRemovedInDatabase); len(again) != len(held) {
		t.Errorf("after the restart %v are held, before %v", again, held)
	}
	w.served(held...)

	interim, stopped, confirmed, refused := held[0], held[1], held[2], held[3:]
	w.member(subscriber.EventInterim, int(interim.As4()[3]))
	w.until("the Interim to clear the hold", func() bool { return len(w.removals(one(interim))) == 0 })
	if ttl := w.ttlOf(interim); ttl <= 0 {
		t.Errorf("its time to live is %v after an Interim", ttl)
	}
	w.member(subscriber.EventStop, int(stopped.As4()[3]))
	w.nothingLeft(stopped)
	w.awaitRemoved(1, subscriber.ReasonStop)
	if n, err := w.ConfirmRemovals(t.Context(), one(confirmed), ""); n != 1 || err != nil {
		t.Fatalf("confirmed %d, %v", n, err)
	}
	w.nothingLeft(confirmed)
	w.awaitRemoved(1, subscriber.ReasonRemovedInDatabase)

	events := w.events(inspect.Watch{})
	if n, err := w.RefuseRemovals(t.Context(), inspect.RemovalFilter{NAS: "bng-1"}, ""); n != len(refused) || err != nil {
		t.Fatalf("refused %d, %v, want %d", n, err, len(refused))
	}
	told := 0
	for e, err := range events {
		if err != nil {
			t.Fatal(err)
		}
		if e.Kind == inspect.EventRemovalRefused && e.Reason == subscriber.ReasonRemovedInDatabase {
			if told++; told == len(refused) {
				break
			}
		}
	}
	w.served(append(refused, interim)...)
	if ttl := w.ttlOf(refused[0]); ttl <= 0 || ttl > time.Minute {
		t.Errorf("its time to live is %v after a refusal", ttl)
	}
	w.awaitHeld(0, subscriber.ReasonNone)
	w.check()
}

// TestDecisionEndsTheWave_DEL13: after a decision the guard counts from zero.
func TestDecisionEndsTheWave_DEL13(t *testing.T) {
	w := newCrowd(t)
	events := w.events(inspect.Watch{})
	w.loseRecords()
	held := w.awaitHeld(crowd*3/4, subscriber.ReasonRemovedInDatabase)
	told := 0
	for e := range events {
		if e.Kind == inspect.EventRemovalHeld && e.Reason == subscriber.ReasonRemovedInDatabase {
			if told++; told == len(held) {
				break
			}
		}
	}
	if n, err := w.RefuseRemovals(t.Context(), inspect.RemovalFilter{Reason: subscriber.ReasonRemovedInDatabase}, ""); n != len(held) || err != nil {
		t.Fatalf("refused %d, %v", n, err)
	}
	w.awaitHeld(0, subscriber.ReasonNone)
	w.loseRecords()
	w.awaitHeld(len(held)-len(held)/4, subscriber.ReasonRemovedInDatabase)
	w.awaitRemoved(crowd/4+len(held)/4, subscriber.ReasonRemovedInDatabase)
	w.check()
}

// TestOutageLongerThanRecords_DEL13: Redis is down until all records have
// expired, and loses them when it returns.
func TestOutageLongerThanRecords_DEL13(t *testing.T) {
	w := newCrowd(t, func(w *world) { w.ttl = 3 * time.Second })
	ctx := context.Background()
	if err := w.client.Do(ctx, "CLIENT", "PAUSE", "4000", "ALL").Err(); err != nil {
		t.Fatal(err)
	}
	held := w.awaitHeld(crowd*3/4, subscriber.ReasonExpired)
	w.served(held...)
	w.awaitRemoved(crowd/4, subscriber.ReasonExpired)
	w.check()
}

// TestLossWhileDown_DEL13: records vanish while no daemon runs: deleted, or
// together with their session states as in an old backup; with the kernel's
// state, or after a reboot. Nothing is cut before the guard has decided.
func TestLossWhileDown_DEL13(t *testing.T) {
	for _, tt := range []struct {
		name               string
		forgotten, reboots bool
	}{{"deleted", false, false}, {"old backup", true, false}, {"deleted, reboot", false, true}, {"old backup, reboot", true, true}} {
		t.Run(tt.name, func(t *testing.T) {
			w := newCrowd(t)
			w.halt()
			w.loseRecords()
			if tt.forgotten {
				w.forget()
			}
			if tt.reboots {
				w.reboot()
			}
			w.boot()
			w.until("the held removals", func() bool { return len(w.removals(inspect.RemovalFilter{})) == crowd*3/4 })
			w.awaitRemoved(crowd/4, subscriber.ReasonRemovedInDatabase)
			for _, r := range w.removals(inspect.RemovalFilter{}) {
				if w.entry(r.Record.Inside).Gate != nat.GateOpen || !tt.reboots && r.Sessions != 1 {
					t.Errorf("%+v is not served", r)
				}
				if knows := r.Record.Client == "bng1"; knows == tt.forgotten || r.Record.UserName == "" {
					t.Errorf("%+v: written back with its session %t", r.Record, knows)
				}
			}
			w.check()
			for i := range crowd { // the sessions go on regardless
				w.member(subscriber.EventInterim, i)
			}
			w.awaitHeld(0, subscriber.ReasonNone)
			w.until("all to be served", func() bool {
				for i := range crowd {
					if w.entry(member(i)).Gate != nat.GateOpen {
						return false
					}
				}
				return true
			})
			w.check()
		})
	}
}

// forget deletes the crowd's session states, besides the records.
func (w *world) forget() {
	w.t.Helper()
	ctx := context.Background()
	for _, pattern := range []string{"sessiond:{default}:sess:*", "sessiond:{default}:online"} {
		keys, err := w.client.Keys(ctx, pattern).Result()
		if err != nil {
			w.t.Fatal(err)
		}
		if err := w.client.Del(ctx, keys...).Err(); err != nil {
			w.t.Fatal(err)
		}
	}
}

// reboot empties the kernel's twin.
func (w *world) reboot() {
	w.t.Helper()
	ctx := context.Background()
	var closed []nat.Entry
	var inside []netip.Addr
	for i := range crowd {
		closed, inside = append(closed, nat.Entry{Inside: member(i)}), append(inside, member(i))
	}
	if err := w.nat.Apply(ctx, closed); err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.nat.Reap(ctx, inside); err != nil {
		w.t.Fatal(err)
	}
}

// TestEndsWhileDown_DEL13: ends by NASes and by persons while no daemon ran are
// not suspended, however many, even if only the feed shows them.
func TestEndsWhileDown_DEL13(t *testing.T) {
	w := newCrowd(t)
	w.halt()
	for i := range crowd {
		w.member(subscriber.EventStop, i)
	}
	w.boot()
	for i := range crowd {
		w.nothingLeft(member(i))
	}
	w.awaitRemoved(crowd, subscriber.ReasonStop)
	w.check()
}

// TestNeverHeld_DEL13: Stops, takeovers and deletions by a person are never
// suspended, however many.
func TestNeverHeld_DEL13(t *testing.T) {
	for name, end := range map[string]func(w *world){
		"stops": func(w *world) {
			for i := range crowd {
				w.member(subscriber.EventStop, i)
			}
			w.awaitRemoved(crowd, subscriber.ReasonStop)
		},
		"admin": func(w *world) {
			if deleted, err := w.Delete(context.Background(), inspect.SubscriberFilter{NAS: "bng-1"}); err != nil || len(deleted) != crowd {
				w.t.Fatalf("deleted %d, %v", len(deleted), err)
			}
			w.awaitRemoved(crowd, subscriber.ReasonAdmin)
		},
		"takeovers": func(w *world) {
			for i := range crowd {
				w.send(subscriber.EventStart, member(i), fmt.Sprint("v", i), fmt.Sprint("t", i))
			}
			w.awaitRemoved(crowd, subscriber.ReasonSuperseded)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newCrowd(t)
			end(w)
			w.awaitHeld(0, subscriber.ReasonNone)
			w.check()
		})
	}
}

func (w *world) restartNAS() {
	w.t.Helper()
	ev := subscriber.Event{
		Kind: subscriber.EventAccountingOn, At: time.Now().Add(10 * time.Second),
		SessionID: subscriber.SessionID{Client: "bng1", NAS: "bng-1"}, SessionTime: -1,
	}
	for _, err := range w.db.Record(context.Background(), []subscriber.Event{ev}) {
		if err != nil {
			w.t.Fatal(err)
		}
	}
}

// TestNASRestartHeld_DEL13_SES16: an Accounting-On that would end all sessions
// is suspended as a whole. Refused, it has no effect; confirmed, it ends its
// sessions.
func TestNASRestartHeld_DEL13_SES16(t *testing.T) {
	w := newCrowd(t)
	w.restartNAS()
	held := w.awaitHeld(crowd, subscriber.ReasonNASRestart)
	w.served(held...)
	if n, err := w.RefuseRemovals(t.Context(), inspect.RemovalFilter{Group: "default"}, ""); n != crowd || err != nil {
		t.Fatalf("refused %d, %v", n, err)
	}
	w.awaitHeld(0, subscriber.ReasonNone)
	marker, err := w.client.Get(t.Context(), "sessiond:{default}:nas:bng1/bng-1").Result()
	if err != redis.Nil {
		t.Errorf("the restart %q, %v stands", marker, err)
	}
	w.member(subscriber.EventInterim, 0)
	w.until("the Interim to count", func() bool {
		s, err := w.Subscriber(context.Background(), subscriber.Key{Inside: member(0)})
		return err == nil && s.UpdatedAt.After(s.StartedAt)
	})
	w.restartNAS()
	w.awaitHeld(crowd, subscriber.ReasonNASRestart)
	if n, err := w.ConfirmRemovals(t.Context(), inspect.RemovalFilter{Reason: subscriber.ReasonNASRestart}, ""); n != crowd || err != nil {
		t.Fatalf("confirmed %d, %v", n, err)
	}
	w.awaitRemoved(crowd, subscriber.ReasonNASRestart)
	for i := range crowd {
		w.nothingLeft(member(i))
	}
	w.check()
}

// TestStopIsNotHeld_DEL13: a session that stopped after its record vanished is
// over, even if a guard would suspend the removal.
func TestStopIsNotHeld_DEL13(t *testing.T) {
	w := newCrowd(t)
	w.halt()
	w.loseRecords()
	for i := range crowd {
		w.member(subscriber.EventStop, i)
	}
	w.boot()
	for i := range crowd {
		w.nothingLeft(member(i))
	}
	w.awaitHeld(0, subscriber.ReasonNone)
	w.check()
	w.mu.Lock()
	defer w.mu.Unlock()
	g := w.groups["default"]
	if a := g.Guard.Ask(subscriber.ReasonRemovedInDatabase, quarter.Minimum, 0, w.now()); a.Passed != quarter.Minimum {
		t.Errorf("the guard counted them: %+v of %d pass", a, quarter.Minimum)
	}
}

// TestLimitsChange_DEL13: a reload's limits apply at once.
func TestLimitsChange_DEL13(t *testing.T) {
	w := newCrowd(t)
	w.SetGuards(map[string]guard.Limits{"default": {}})
	w.loseRecords()
	w.awaitRemoved(crowd, subscriber.ReasonRemovedInDatabase)
}
