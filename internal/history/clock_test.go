package history

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/nat"
)

// quiet is a history in which little happens.
type quiet struct {
	*Store
	t *testing.T
	o Options
	n int
}

// newQuiet returns a history that begins at a time, at which user 1 gets a block.
func newQuiet(t *testing.T, begin time.Time) *quiet {
	t.Helper()
	q := &quiet{t: t, o: Options{Path: t.TempDir(), Key: testKey(t)}}
	s, err := Open(q.o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = q.Close() })
	q.Store = s
	q.must(s.Resume(Restart{Group: "default", Epoch: "e", Position: "0-1", To: begin}))
	q.read(begin, q.event(nat.Allocated, 1, begin, time.Time{}))
	return q
}

func (q *quiet) must(err error) {
	q.t.Helper()
	if err != nil {
		q.t.Fatal(err)
	}
}

func (q *quiet) event(kind nat.EventKind, user int, at, since time.Time) nat.Event {
	return nat.Event{
		Kind: kind, At: at, Since: since, Group: "default", Holder: identityOf(user, at),
		Block: nat.Block{Outside: outsideOf(1), First: 1024, Last: 2047},
	}
}

// read appends events, behind which the log was read to a time.
func (q *quiet) read(through time.Time, events ...nat.Event) {
	q.t.Helper()
	b := Batch{Group: "default", Epoch: "e", Through: through}
	if len(events) > 0 {
		q.n++
		b.Entries = []Entry{{fmt.Sprintf("%d-1", q.n), events}}
	}
	q.must(q.Append(b))
}

// expect checks who had the block: a user, "nobody", or a cause.
func (q *quiet) expect(at time.Time, want string) {
	q.t.Helper()
	a, err := q.LookupOutside(Question{Outside: outsideOf(1), Port: 1100, At: at})
	q.must(err)
	got := string(a.Because)
	switch a.State {
	case Held:
		got, _, _ = strings.Cut(a.Record.Holder.UserName, "@")
	case Nobody:
		got = "nobody"
	}
	if got != want {
		q.t.Errorf("at %s: %s (%s), want %s", at, got, a.Detail, want)
	}
}

// TestQuietClock_LOG08: where nothing happens, the times to which the log was read show that the
// clock was set back.
func TestQuietClock_LOG08(t *testing.T) {
	ten := time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	at := func(hours, minutes int) time.Time {
		return ten.Add(time.Duration(hours-10)*time.Hour + time.Duration(minutes)*time.Minute)
	}
	q := newQuiet(t, ten)
	q.read(at(13, 0))
	q.expect(at(12, 30), "user1")
	q.read(at(12, 15), q.event(nat.Released, 1, at(12, 10), ten)) // the second time at 12
	q.read(at(12, 25), q.event(nat.Allocated, 2, at(12, 20), time.Time{}))
	q.read(at(14, 0))
	q.expect(at(12, 0), "user1")
	q.expect(at(12, 15), "GAP")
	q.expect(at(12, 30), "GAP")
	q.expect(at(13, 1), "user2")

	q = newQuiet(t, ten)
	q.read(at(13, 0))
	q.must(q.Resume(Restart{Group: "default", Epoch: "f", Position: "1-1", From: at(13, 0), To: at(12, 30), Reason: "a test"}))
	q.expect(at(12, 0), "user1")
	q.expect(at(12, 45), "GAP")
}

// TestLateAtMidnight_LOG08: a release that is told some seconds late is of its day, though nothing
// else happened when the day was over.
func TestLateAtMidnight_LOG08(t *testing.T) {
	midnight := time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
	ten := midnight.Add(-2 * time.Hour)
	q := newQuiet(t, ten)
	q.read(midnight.Add(30 * time.Second))
	q.must(q.Maintain(midnight))
	q.read(midnight.Add(31*time.Second), q.event(nat.Released, 1, midnight.Add(-10*time.Second), ten))
	q.read(midnight.Add(time.Hour))
	q.must(q.Maintain(midnight))
	q.expect(midnight.Add(-11*time.Second), "user1")
	q.expect(midnight.Add(-5*time.Second), "nobody")
	q.expect(midnight.Add(time.Minute), "nobody")
}
