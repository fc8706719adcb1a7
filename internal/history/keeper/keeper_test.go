package keeper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/history"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/natlog"
	"github.com/sessiond/sessiond/internal/subscriberdb/bindings"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// kept is a keeper in a folder of its own, with a clock.
type kept struct {
	*Keeper
	intake
	t         *testing.T
	now       time.Time
	groups    []string
	published []string
	refuse    error // of Publish
}

func newKept(t *testing.T) *kept {
	t.Helper()
	key, err := history.LoadKey(filepath.Join(t.TempDir(), "key"), "test")
	if err != nil {
		t.Fatal(err)
	}
	store, err := history.Open(history.Options{Path: filepath.Join(t.TempDir(), "history"), Key: key})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	k := &kept{t: t, now: noon, groups: []string{"default"}}
	k.Keeper = New(Options{
		Store: store, Reader: "history", Groups: func() []string { return k.groups }, Quarantine: func(string) time.Duration { return time.Minute },
		Interim: time.Hour, PublicKey: key.Public(), Now: func() time.Time { return k.now }, Logger: slog.New(slog.DiscardHandler),
		Publish: func(_ context.Context, group, note string) error {
			if k.refuse == nil {
				k.published = append(k.published, group+" "+note)
			}
			return k.refuse
		},
	})
	k.intake = intake{k.Keeper}
	return k
}

func (k *kept) must(err error) {
	k.t.Helper()
	if err != nil {
		k.t.Fatal(err)
	}
}

func positionOf(epoch string, n uint64) string {
	return bindings.LogPosition{Epoch: epoch, Entry: fmt.Sprintf("%d-0", n), Events: 3 * n}.String()
}

// event is an event of the block n of 64 ports.
func event(kind nat.EventKind, user string, n int, at, since time.Time) nat.Event {
	first := nat.Port(1024 + 64*n)
	return nat.Event{
		Kind: kind, At: at, Since: since, Group: "default",
		Block:  nat.Block{Outside: netip.MustParseAddr("198.51.100.1"), First: first, Last: first + 63},
		Holder: nat.Identity{UserName: user, Inside: netip.MustParseAddr("100.64.0.7")},
	}
}

func living(blocks ...nat.Event) natlog.Live {
	return func(yield func([]nat.Event) error) error {
		for _, b := range blocks { // each is told twice, as by SCAN
			if err := yield([]nat.Event{b, b}); err != nil {
				return err
			}
		}
		return nil
	}
}

// expect checks an answer about block n: a user, "nobody", "nobody in quarantine", or a cause.
func (k *kept) expect(n int, at time.Time, want string) {
	k.t.Helper()
	a, err := k.LookupOutside(history.Question{Outside: netip.MustParseAddr("198.51.100.1"), Port: nat.Port(1024 + 64*n + 5), At: at})
	k.must(err)
	got := string(a.Because)
	switch {
	case a.State == history.Held:
		got = a.Record.Holder.UserName
	case a.Quarantined:
		got = "nobody in quarantine"
	case a.State == history.Nobody:
		got = "nobody"
	}
	if got != want {
		k.t.Errorf("block %d at noon%+v: %s (%s), want %s", n, at.Sub(noon), got, a.Detail, want)
	}
}

// TestIntake_LOG06: what a follower hands over is answered exactly, and times of which events are
// missing are unknown.
func TestIntake_LOG06(t *testing.T) {
	k := newKept(t)
	if p, err := k.Position("default"); p != "" || err != nil {
		t.Fatalf("a history that has not begun is at %q, %v", p, err)
	}
	k.must(k.AtEnd("default", noon, living()))
	k.must(k.Begin("default", positionOf("one", 5), living(event(nat.Allocated, "alice", 1, noon.Add(-time.Hour), time.Time{}))))
	if p, err := k.Position("default"); p != positionOf("one", 5) || err != nil {
		t.Errorf("it begins at %q, %v", p, err)
	}
	k.must(k.intake.Append("default", positionOf("one", 6), []nat.Event{event(nat.Allocated, "bob", 2, noon.Add(time.Second), time.Time{})}))
	k.must(k.intake.Append("default", positionOf("one", 6), []nat.Event{event(nat.Allocated, "bob", 2, noon.Add(time.Second), time.Time{})})) // again
	k.must(k.AtEnd("default", noon.Add(10*time.Second), living()))
	k.expect(1, noon.Add(5*time.Second), "alice")
	k.expect(2, noon.Add(time.Second-time.Microsecond), "nobody")
	k.expect(2, noon.Add(time.Second), "bob")
	k.expect(2, noon.Add(9500*time.Millisecond), "NOT_READ") // an event of that time may still come
	k.must(k.intake.Append("default", positionOf("one", 7), []nat.Event{event(nat.Released, "bob", 2, noon.Add(11*time.Second), noon.Add(time.Second))}))
	k.must(k.AtEnd("default", noon.Add(20*time.Minute), living()))
	k.expect(2, noon.Add(11*time.Second), "nobody in quarantine")
	k.expect(2, noon.Add(2*time.Minute), "nobody")

	k.now = noon.Add(30 * time.Minute) // another database: alice is gone, carol came
	k.must(k.Begin("default", positionOf("two", 1), living(event(nat.Allocated, "carol", 3, noon.Add(25*time.Minute), time.Time{}))))
	k.must(k.AtEnd("default", noon.Add(31*time.Minute), living()))
	k.expect(1, noon.Add(19*time.Minute), "alice")
	k.expect(1, noon.Add(25*time.Minute), "GAP")
	k.expect(3, noon.Add(29*time.Minute), "GAP")
	k.expect(3, noon.Add(30*time.Minute), "carol")
	k.expect(1, noon.Add(30*time.Minute), "nobody in quarantine")

	k.now = noon.Add(40 * time.Minute) // the database went back in time
	k.must(k.Begin("default", positionOf("two", 0), living()))
	if p, err := k.Position("default"); p != positionOf("two", 0) || err != nil {
		t.Errorf("behind a database that went back it is at %q, %v", p, err)
	}
	k.must(k.AtEnd("default", noon.Add(41*time.Minute), living()))
	k.expect(3, noon.Add(35*time.Minute), "GAP")
	k.expect(3, noon.Add(40*time.Minute), "nobody in quarantine")

	missed := event(nat.Allocated, "dave", 4, noon.Add(50*time.Minute), time.Time{})
	k.must(k.AtEnd("default", noon.Add(60*time.Minute), living(missed)))
	k.expect(4, noon.Add(55*time.Minute), "nobody") // it is not compared yet
	k.must(k.AtEnd("default", noon.Add(80*time.Minute), living(missed)))
	k.expect(4, noon.Add(55*time.Minute), "dave")
	if p, _ := k.Position("default"); p != positionOf("two", 0) {
		t.Errorf("a comparison moved the position to %q", p)
	}
	if s := k.Stats(); s.Err != nil || s.Octets == 0 || s.Records["allocated"] != 2 || s.Records["released"] != 1 || s.Records["interim"] != 2 {
		t.Errorf("%+v", s)
	}
	if s := k.Stats(); s.Through["default"] != noon.Add(80*time.Minute-late) {
		t.Errorf("known until %v", s.Through)
	}
}

// TestFailing: a history that cannot be written says so, until it can.
func TestFailing(t *testing.T) {
	k := newKept(t)
	k.must(k.Begin("default", positionOf("one", 5), living()))
	bad := event(nat.Allocated, "bob", 2, noon.Add(time.Second), time.Time{})
	bad.Outside = netip.Addr{}
	if err := k.intake.Append("default", positionOf("one", 6), []nat.Event{bad}); err == nil || k.Stats().Err == nil {
		t.Fatalf("%v, %v", err, k.Stats().Err)
	}
	k.must(k.intake.Append("default", positionOf("one", 6), nil))
	if err := k.Stats().Err; err != nil {
		t.Error(err)
	}
	away := errors.New("the database is away")
	err := k.Begin("default", positionOf("two", 6), func(func([]nat.Event) error) error { return away })
	if !errors.Is(err, away) || k.Stats().Err != nil {
		t.Errorf("%v; the history itself: %v", err, k.Stats().Err)
	}
}

// TestCheckpoints: each group has a checkpoint a day, and one that nobody took is offered again.
func TestCheckpoints(t *testing.T) {
	k := newKept(t)
	s := newSignatures()
	k.must(k.sign(t.Context(), s)) // nothing has begun
	k.must(k.Begin("default", positionOf("one", 5), living()))
	k.refuse = errors.New("no audit trail")
	if err := k.sign(t.Context(), s); !errors.Is(err, k.refuse) {
		t.Error(err)
	}
	k.refuse = nil
	for range 3 {
		k.must(k.sign(t.Context(), s))
	}
	k.now = noon.Add(12 * time.Hour)
	for range 3 {
		k.must(k.sign(t.Context(), s))
	}
	if len(k.published) != 2 || !strings.HasPrefix(k.published[0], "default "+history.CheckpointPrefix) || k.published[0] == k.published[1] {
		t.Fatalf("%q", k.published)
	}
	_, note, _ := strings.Cut(k.published[0], " ")
	if list, err := k.Verify(t.Context(), "default", note); err != nil || list[0].Flaw != nil {
		t.Errorf("%+v, %v", list, err)
	}
}

// TestCheckpointsOfDays: the checkpoint of each completed file is published, also where a stop came
// between, and a file that the key signs anew is found by it.
func TestCheckpointsOfDays(t *testing.T) {
	k := newKept(t)
	s := newSignatures()
	k.must(k.Begin("default", positionOf("one", 5), living(event(nat.Allocated, "alice", 1, noon, time.Time{}))))
	for day := range 3 {
		k.now = noon.AddDate(0, 0, day+1)
		k.must(k.AtEnd("default", k.now, living()))
		k.must(k.Maintain(k.now))
		k.refuse = errors.New("no audit trail")
		if err := k.sign(t.Context(), s); !errors.Is(err, k.refuse) {
			t.Error(err)
		}
		k.refuse = nil
		for range 2 {
			k.must(k.sign(t.Context(), s))
		}
	}
	k.must(k.sign(t.Context(), newSignatures())) // as after a start
	count := map[string]int{}
	for _, p := range k.published {
		if strings.HasPrefix(p, "default "+history.CheckpointPrefix+"day/") {
			count[p]++
		}
	}
	list, err := k.Verify(t.Context(), "default")
	if err != nil || len(list[0].Checkpoints) != 3 {
		t.Fatalf("%+v, %v", list, err)
	}
	for _, note := range list[0].Checkpoints {
		if n := count["default "+note]; n != 2 {
			t.Errorf("published %d times, want 2: once, and after the start\n%s", n, note)
		}
	}
}

// TestNotBegun: "nobody" is not certain while a group that is served has no history.
func TestNotBegun(t *testing.T) {
	k := newKept(t)
	k.must(k.Begin("default", positionOf("one", 5), living(event(nat.Allocated, "alice", 1, noon, time.Time{}))))
	k.must(k.AtEnd("default", noon.Add(time.Minute), living()))
	k.groups = append(k.groups, "other")
	k.expect(1, noon.Add(time.Second), "alice")
	k.expect(2, noon.Add(time.Second), "NO_GROUP")
	k.groups = k.groups[:1]
	k.expect(2, noon.Add(time.Second), "nobody")
}
