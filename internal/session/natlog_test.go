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

	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/nat/nattest"
	"github.com/sessiond/sessiond/internal/nftnat"
	"github.com/sessiond/sessiond/internal/nftnat/memnat"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb"
	"github.com/sessiond/sessiond/internal/testenv"
)

// loggedWorld is a world whose NAT is logged, with a reader of the log that checks it. Its daemon can be
// killed between any two of its steps in database and kernel.
type loggedWorld struct {
	*growingWorld
	steps  killableSteps
	mu     sync.Mutex
	proofs map[netip.Addr][]time.Time // that an address has no session left, or none in a block

	at    subscriberdb.LogPosition
	told  []nat.Event // of all databases so far
	times nattest.Intervals
	anew  int // logs that were begun
}

// killableSteps lets a daemon live for a number of steps.
type killableSteps struct {
	mu    sync.Mutex
	left  int // steps until the kill; negative: it lives
	after bool
	lose  float64 // probability that the answer of a step is lost, and the step is repeated
	dead  chan struct{}
}

var errAnswerLost = errors.New("the answer was lost")

// kill kills the daemon before or after one of its next steps.
func (k *killableSteps) kill(left int, after bool) (dead <-chan struct{}) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.left, k.after, k.dead = left, after, make(chan struct{})
	return k.dead
}

// loseAnswers sets the probability that the answer of a step is lost.
func (k *killableSteps) loseAnswers(share float64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.lose = share
}

func (k *killableSteps) revive() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.left = -1
}

// step runs a step, unless the daemon is dead: then it waits for the end of the context.
func (k *killableSteps) step(ctx context.Context, do func() error) error {
	k.mu.Lock()
	dies, runs := k.left == 0, k.left != 0
	if k.left == 1 {
		dies, runs = true, k.after
		close(k.dead)
	}
	k.left = max(k.left-1, min(k.left, 0))
	lost := k.left < 0 && rand.Float64() < k.lose
	k.mu.Unlock()
	var err error
	if runs {
		err = do()
	}
	if dies {
		<-ctx.Done()
		return ctx.Err()
	}
	if lost && err == nil {
		return errAnswerLost
	}
	return err
}

// steppingStore is a database whose steps kill the daemon.
type steppingStore struct {
	*subscriberdb.DB
	w *loggedWorld
}

func (s *steppingStore) SaveLogged(ctx context.Context, group string, list []subscriberdb.LoggedWrite) (anew bool, err error) {
	for i := range list {
		if x := &list[i]; !x.Remove && x.State == nat.Held {
			s.w.vacant(x.Binding)
		}
	}
	err = s.w.steps.step(ctx, func() error {
		anew, err = s.DB.SaveLogged(ctx, group, list)
		return err
	})
	return anew, err
}

// vacant checks that no session of a binding's holder is left in its blocks (LOG-07).
func (w *loggedWorld) vacant(b *nat.Binding) {
	_ = w.nat.Sessions(context.Background(), func(s nftnat.Session) error {
		if s.Inside.Addr() == b.Inside && b.Contains(s.Outside.Addr(), nat.Port(s.Outside.Port())) {
			w.t.Errorf("%v has session %v -> %v while its block is released", b.Inside, s.Inside, s.Outside)
		}
		return nil
	})
}

// steppingKernel is a kernel whose steps kill the daemon. It checks that no gate opens before the
// allocation is in the log, and keeps the times of proofs.
type steppingKernel struct {
	*memnat.NAT
	w *loggedWorld
}

func (k *steppingKernel) Apply(ctx context.Context, entries []nat.Entry) error {
	for _, e := range entries {
		if e.Gate == nat.GateOpen {
			k.w.mustBeLogged(e)
		}
	}
	return k.w.steps.step(ctx, func() error { return k.NAT.Apply(context.WithoutCancel(ctx), entries) })
}

func (k *steppingKernel) Reap(ctx context.Context, inside []netip.Addr) (proofs []nat.Reaped, err error) {
	err = k.w.steps.step(ctx, func() error {
		proofs, err = k.NAT.Reap(context.WithoutCancel(ctx), inside)
		for i := range proofs {
			proofs[i].At = k.w.shifted()
			k.w.prove(proofs[i].Inside, proofs[i].At)
		}
		return err
	})
	return proofs, err
}

func (k *steppingKernel) Vacant(ctx context.Context, inside netip.Addr, b nat.Block) (bool, error) {
	vacant, err := k.NAT.Vacant(ctx, inside, b)
	if vacant {
		k.w.prove(inside, k.w.shifted())
	}
	return vacant, err
}

func (w *loggedWorld) prove(inside netip.Addr, at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.proofs[inside] = append(w.proofs[inside], at)
}

// mustBeLogged checks that the log has the range of an entry, unless it has just lost everything.
func (w *loggedWorld) mustBeLogged(e nat.Entry) {
	ctx := context.Background()
	ports := map[nat.Port]bool{}
	_, err := w.db.NATLive(ctx, "default", func(list []nat.Event) error {
		for _, x := range list {
			for p := int(x.First); x.Outside == e.Outside && x.Holder.Inside == e.Inside && p <= int(x.Last); p++ {
				ports[nat.Port(p)] = true
			}
		}
		return nil
	})
	for p := int(e.First); err == nil && p <= int(e.Last); p++ {
		if !ports[nat.Port(p)] {
			w.t.Errorf("the gate of %v opens, and port %d is not allocated in the log (LOG-07)", e.Inside, p)
			return
		}
	}
}

func newLoggedWorld(t *testing.T) *loggedWorld {
	t.Helper()
	w := &loggedWorld{proofs: map[netip.Addr][]time.Time{}}
	w.steps.left = -1
	w.growingWorld = newGrowingWorldOf(t, 64, 8, 3)
	w.halt()
	w.logNAT = true
	w.group.Hold = 50 * time.Millisecond
	w.kernel = &steppingKernel{w.world.nat, w}
	w.store = func(db *subscriberdb.DB) Store { return &steppingStore{db, w} }
	w.boot()
	return w
}

// read reads the log to its end, and checks it.
func (w *loggedWorld) read() {
	w.t.Helper()
	ctx := context.Background()
	for {
		list, next, err := w.db.NATLog(ctx, "default", w.at, 50, 0)
		if errors.Is(err, subscriberdb.ErrLogGap) {
			end, err := w.db.NATLogEnd(ctx, "default")
			w.must(err)
			if end.Epoch == "" {
				return
			}
			if end.Epoch == w.at.Epoch {
				w.t.Fatalf("events are lost behind %v", w.at)
			}
			w.at, w.times = subscriberdb.LogPosition{Epoch: end.Epoch, Entry: "0-0"}, nattest.Intervals{}
			w.anew++
			w.must(w.db.TellLogPosition(ctx, "default", "test", w.at))
			continue
		}
		w.must(err)
		if next == w.at {
			return
		}
		w.at = next
		w.must(w.db.TellLogPosition(ctx, "default", "test", w.at))
		for i := range list {
			if err := w.times.Add(&list[i]); err != nil {
				w.t.Fatal(err)
			}
		}
		w.told = append(w.told, list...)
	}
}

// agree waits until the log has the bindings in force, and nothing else, in service.
func (w *loggedWorld) agree() {
	w.t.Helper()
	w.until("the log to be whole", func() bool {
		end, err := w.db.NATLogEnd(context.Background(), "default")
		return err == nil && end.Whole && w.Quiet(context.Background()) == nil
	})
	w.until("the log to agree", func() bool {
		w.read()
		live := map[nat.Block]netip.Addr{}
		w.Manager.mu.RLock()
		w.life.Engine().Bindings("default", func(b nat.Binding) bool {
			for x := range b.All() {
				if b.State != nat.Held {
					live[x] = b.Inside
				}
			}
			return true
		})
		w.Manager.mu.RUnlock()
		logged := map[nat.Block]netip.Addr{}
		for b, e := range w.times.Open() {
			logged[b] = e.Holder.Inside
		}
		listed := map[nat.Block]netip.Addr{}
		_, err := w.db.NATLive(context.Background(), "default", func(list []nat.Event) error {
			for _, e := range list {
				listed[e.Block] = e.Holder.Inside
			}
			return nil
		})
		return err == nil && maps.Equal(live, logged) && maps.Equal(live, listed)
	})
}

// proved checks that each release follows a proof that no session was left since the allocation (LOG-07).
func (w *loggedWorld) proved() {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.told {
		if e.Kind == nat.Released && !slices.ContainsFunc(w.proofs[e.Holder.Inside], func(at time.Time) bool {
			return !at.Before(e.Since) && !at.After(e.At)
		}) {
			w.t.Errorf("%+v without a proof before, of %v", e, w.proofs[e.Holder.Inside])
		}
	}
}

// TestNATLogOfLives_LOG06_LOG07: the ways in which a block leaves service give one release each, with the
// identity of its holder.
func TestNATLogOfLives_LOG06_LOG07(t *testing.T) {
	w := newLoggedWorld(t)
	ev := w.event(subscriber.EventStart, alice, "a\x00\n\"]", "1")
	ev.CallingStationID, ev.NASAddress = "00:11", netip.MustParseAddr("192.0.2.9")
	ev.DelegatedPrefixes = []netip.Prefix{netip.MustParsePrefix("2001:db8::/48")}
	w.sendAll(ev)
	b := w.awaitState(alice, nat.Active)
	w.agree()
	want := nat.Identity{
		Inside: alice, UserName: "a\x00\n\"]", Client: "bng1", NAS: "bng-1", NASAddress: ev.NASAddress, AcctSessionID: "1",
		CallingStationID: "00:11", IPv6Prefixes: ev.DelegatedPrefixes,
	}
	if e := w.told[0]; fmt.Sprint(e.Holder) != fmt.Sprint(want) || !e.At.Equal(b.AllocatedAt) || e.Block != b.Block {
		t.Errorf("allocated %+v, want %+v", e, want)
	}
	ends := map[string]func(id string){
		"superseded":       func(id string) { w.send(subscriber.EventStart, alice, "z", "z"+id) },
		"deleted in Redis": func(string) { w.client.Del(t.Context(), "sessiond:{default}:sub:"+alice.String()) },
		"stopped":          func(id string) { w.send(subscriber.EventStop, alice, "x", id) },
	}
	for i, how := range []string{"superseded", "deleted in Redis", "stopped"} {
		id := fmt.Sprint("x", i)
		if i > 0 {
			w.send(subscriber.EventStart, alice, "x", id)
			w.until("the next binding", func() bool { return w.bindings(alice)[nat.Active].UserName == "x" })
		}
		w.agree()
		before := len(w.told)
		ends[how](id)
		w.until(how+" to be told", func() bool {
			w.read()
			return slices.ContainsFunc(w.told[before:], func(e nat.Event) bool { return e.Kind == nat.Released && e.Holder.Inside == alice })
		})
		w.agree()
	}
	w.proved()
}

// TestNATLogIsSwitchedOn: a daemon that logs for the first time allocates the blocks in force, with their times; one
// that does not log ends the log.
func TestNATLogIsSwitchedOn(t *testing.T) {
	w := newLoggedWorld(t)
	w.halt()
	w.logNAT = false
	w.boot()
	w.start(alice)
	bound := w.start(bob)
	if keys := w.client.Keys(t.Context(), "*natlog*").Val(); len(keys) > 0 {
		t.Errorf("without a log there are %v", keys)
	}
	w.halt()
	w.logNAT = true
	w.boot()
	w.agree()
	if open := w.times.Open(); len(open) != 2 || !open[bound.Block].At.Equal(bound.AllocatedAt) || open[bound.Block].Holder.NAS != "bng-1" {
		t.Errorf("in service are %+v, bob has %+v", open, bound)
	}
}

// TestNATLogOfAnEmptiedDatabase_LOG06: a database that was emptied gets a log with another epoch, and the
// blocks in force with the times that they have.
func TestNATLogOfAnEmptiedDatabase_LOG06(t *testing.T) {
	w := newLoggedWorld(t)
	bound := w.start(alice)
	w.agree()
	w.must(w.client.FlushAll(t.Context()).Err())
	w.until("another epoch", func() bool { w.read(); return w.anew == 2 })
	w.agree()
	if e := w.times.Open()[bound.Block]; !e.At.Equal(bound.AllocatedAt) || e.Holder.UserName != bound.UserName {
		t.Errorf("in service since %+v, is %+v", e, bound)
	}
	w.login(bob)
	w.awaitState(bob, nat.Active)
	w.logout(bob)
	w.agree()
}

// TestRandomNATLog_LOG06_LOG07_LOG08: over random lives of subscribers, growth, restarts of the NAS, deletions in
// the database, lost answers, kills between any two steps, emptied databases and a clock that steps, the log
// gives each port one owner at a time, allocates before gates open, and releases after the proof.
func TestRandomNATLog_LOG06_LOG07_LOG08(t *testing.T) {
	histories, steps := 3, 60
	if testenv.Soak() {
		histories, steps = 12, 200
	}
	for seed := range uint64(histories) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			randomNATLog(t, rand.New(rand.NewPCG(seed, 15)), steps, seed%2 == 1)
		})
	}
}

func randomNATLog(t *testing.T, random *rand.Rand, steps int, clockSteps bool) {
	w := newLoggedWorld(t)
	w.steps.loseAnswers(0.05)
	people := []netip.Addr{alice, bob, netip.MustParseAddr("100.64.0.30"), netip.MustParseAddr("100.64.0.31"), netip.MustParseAddr("100.64.0.32")}
	kills, emptied := 0, 0
	for n := range steps {
		inside := people[random.IntN(len(people))]
		switch random.IntN(16) {
		case 0, 1, 2, 3:
			w.login(inside)
		case 4, 5:
			w.logout(inside)
		case 6:
			w.send(subscriber.EventStart, inside, fmt.Sprint("other", n), fmt.Sprint("o", n))
		case 7:
			w.client.Del(t.Context(), "sessiond:{default}:sub:"+inside.String())
		case 8:
			w.restartNAS()
		case 9:
			w.mode([]inspect.RemovalMode{inspect.RemovalOn, inspect.RemovalOff}[random.IntN(2)])
		case 10, 11:
			for range random.IntN(70) {
				w.port++
				_, _ = w.nat.Send(unix.IPPROTO_UDP, netip.AddrPortFrom(inside, w.port), remote)
			}
		case 12:
			w.pass(2 * time.Minute) // blocks that are not needed go back
			_, _ = w.nat.Reap(t.Context(), []netip.Addr{inside})
		case 13, 14:
			kills++
			dead := w.steps.kill(1+random.IntN(6), random.IntN(2) == 0)
			w.login(inside)
			select {
			case <-dead:
			case <-time.After(200 * time.Millisecond): // it had less to do
			}
			w.halt()
			w.steps.revive()
			if random.IntN(6) == 0 {
				emptied++
				w.must(w.client.FlushAll(t.Context()).Err())
			}
			w.boot()
		case 15:
			if clockSteps {
				w.pass(time.Duration(random.IntN(7200)-3600) * time.Second)
			} else if random.IntN(3) == 0 {
				emptied++
				w.must(w.client.FlushAll(t.Context()).Err())
			}
		}
		if random.IntN(4) == 0 {
			_ = w.Quiet(t.Context())
		}
		w.read()
	}
	w.agree()
	w.check()
	w.agree()
	if !clockSteps {
		w.proved()
	}
	kinds := map[nat.EventKind]int{}
	for _, e := range w.told {
		kinds[e.Kind]++
	}
	t.Logf("%d kills, %d times emptied, %d logs, events: %v", kills, emptied, w.anew, kinds)
	if kinds[nat.Released] == 0 || !strings.Contains(fmt.Sprint(kinds), "allocated") {
		t.Error("hardly anything has happened")
	}
}
