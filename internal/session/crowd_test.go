package session

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/guard"
	"github.com/sessiond/sessiond/internal/lifecycle"
	"github.com/sessiond/sessiond/internal/lsn"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/testenv"
)

// crowdGroup has blocks for a million subscribers and more.
var crowdGroup = lsn.GroupConfig{
	Name:      "default",
	Inside:    []netip.Prefix{netip.MustParsePrefix("100.64.0.0/10")},
	Outside:   []netip.Prefix{netip.MustParsePrefix("198.18.0.0/21")},
	FirstPort: 1024, LastPort: 65535, BlockSize: 64, Hold: time.Hour,
}

// usualGuard has a group's default limits.
var usualGuard = guard.Limits{Minimum: 100, Removed: 0.10, Expired: 0.20, NASRestart: 1, Window: 15 * time.Minute}

// newMultitude returns a world with n subscribers of one NAS online, in a
// database with an append-only file.
func newMultitude(t testing.TB, n int, change ...func(*world)) *world {
	w := newWorld(t, crowdGroup, append([]func(*world){func(w *world) {
		w.guard, w.ttl = usualGuard, time.Hour
		w.server = testenv.StartRedis(t, "--appendonly", "yes")
	}}, change...)...)
	w.crowd(n)
	return w
}

// crowded returns the address of subscriber i.
func crowded(i int) netip.Addr {
	var inside [4]byte
	binary.BigEndian.PutUint32(inside[:], 100<<24|64<<16+uint32(i)+1)
	return netip.AddrFrom4(inside)
}

// crowd brings n subscribers of one NAS online.
func (w *world) crowd(n int) {
	w.t.Helper()
	at := time.Now().Add(-time.Minute)
	const most = 2048
	events := make([]subscriber.Event, 0, most)
	for i := range n {
		events = append(events, subscriber.Event{
			Kind: subscriber.EventStart, Inside: crowded(i), UserName: fmt.Sprintf("user-%d@example.net", i),
			At: at, SessionTime: -1, CallingStationID: "02:00:00:00:00:01",
			SessionID: subscriber.SessionID{Client: "bng1", NAS: "bng-1", AcctSessionID: fmt.Sprintf("%016x", i)},
		})
		if len(events) < most && i < n-1 {
			continue
		}
		for _, err := range w.db.Record(context.Background(), events) {
			if err != nil {
				w.t.Fatal(err)
			}
		}
		events = events[:0]
	}
	w.within(minutes, "everybody to be online", func() bool { return w.opened() == n })
}

// endOfNAS records an Accounting-Off of the crowd's NAS.
func (w *world) endOfNAS() {
	w.t.Helper()
	ev := subscriber.Event{
		Kind: subscriber.EventAccountingOff, At: time.Now(), SessionTime: -1,
		SessionID: subscriber.SessionID{Client: "bng1", NAS: "bng-1"},
	}
	for _, err := range w.db.Record(context.Background(), []subscriber.Event{ev}) {
		if err != nil {
			w.t.Fatal(err)
		}
	}
}

// opened counts the subscribers whose gate is open.
func (w *world) opened() int {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.groups[w.group.Name].In(lifecycle.Open)
}

// left counts the records and the slots that are not torn down.
func (w *world) left() int {
	w.mu.RLock()
	defer w.mu.RUnlock()
	s := w.groupStatusLocked(w.groups[w.group.Name])
	return s.Subscribers + s.Active + s.Draining + s.Cut + w.life.Writes().Len()
}

// onlyRestarted requires n removals, all for the restart of their NAS, and none
// suspended by a guard at any time.
func (w *world) onlyRestarted(n int) {
	w.t.Helper()
	w.seen.mu.Lock()
	defer w.seen.mu.Unlock()
	if got := w.seen.removed[subscriber.ReasonNASRestart]; got != n || len(w.seen.removed) > 1 {
		w.t.Errorf("removed %v, want %d for the restart", w.seen.removed, n)
	}
	w.nobodyHeld()
}

// nobodyHeld requires that the guards suspend no removal, and never did.
func (w *world) nobodyHeld() {
	w.t.Helper()
	w.mu.RLock()
	defer w.mu.RUnlock()
	g := w.groups[w.group.Name]
	for why, n := range g.Held() {
		if n > 0 {
			w.t.Errorf("%d removals are held, for %s", n, why)
		}
	}
	if a := g.Guard.Ask(subscriber.ReasonRemovedInDatabase, w.guard.Minimum, 0, w.now()); a.Passed != w.guard.Minimum {
		w.t.Errorf("the guard counted removals by others: %+v of %d pass", a, w.guard.Minimum)
	}
}

// awaitNothingLeft waits until no record and no slot is left.
func (w *world) awaitNothingLeft() {
	w.t.Helper()
	w.within(minutes, "nothing to be left", func() bool { return w.left() == 0 })
}

// minutes is the time limit for a multitude, also on a busy machine.
const minutes = 10 * time.Minute
