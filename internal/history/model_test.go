package history

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/testenv"
)

// world is one group's NAT with its log, and a model of what a history of it can know. The
// model is a list of tenancies that is searched from its beginning to its end.
type world struct {
	rnd    *rand.Rand
	now    time.Time     // by no clock
	offset time.Duration // of the daemon's clock
	steady bool          // its clock is never set
	frozen bool          // an allocation is told at no time before the latest of the log (decision 0069)
	latest time.Time     // of all events
	held   map[nat.Block]*tenancy
	all    []*tenancy
	log    []Entry
	apply  [][]func() // what the history knows by each entry

	heard   time.Time // the latest time that the history was told
	through time.Time // to which it was told that the log was read
	gaps    []Gap
	first   time.Time
}

// tenancy is the time in which a user had a block, as it is told.
type tenancy struct {
	block    nat.Block
	user     int
	from, to time.Time
	begun    bool // the history knows that it began
	ended    bool // and its end
	lost     *Gap // in which the end was
}

var worldStart = time.Date(2026, 3, 1, 22, 0, 0, 0, time.UTC)

func newWorld(seed uint64) *world {
	w := &world{rnd: rand.New(rand.NewPCG(seed, 15)), now: worldStart, held: map[nat.Block]*tenancy{}, frozen: seed%2 == 1}
	w.first, w.latest, w.heard = w.now, w.now, w.now
	return w
}

func (w *world) clock() time.Time { return w.now.Add(w.offset).Truncate(time.Microsecond) }

func outsideOf(i int) netip.Addr { return netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}) }

func (w *world) block() nat.Block {
	first := nat.Port(1024 * (1 + w.rnd.IntN(4)))
	return nat.Block{Outside: outsideOf(w.rnd.IntN(3)), First: first, Last: first + 1023}
}

func identityOf(user int, at time.Time) nat.Identity {
	return nat.Identity{
		Inside:   netip.AddrFrom4([4]byte{100, 64, byte(user >> 8), byte(user)}),
		UserName: fmt.Sprintf("user%d@isp.example", user), Client: "bng", NAS: fmt.Sprintf("bng%d", user%4),
		NASAddress: netip.MustParseAddr("192.0.2.1"), AcctSessionID: fmt.Sprintf("%d-%x", user, at.UnixMicro()),
		CallingStationID: fmt.Sprintf("aa:bb:cc:00:%02x:%02x", user>>8&255, user&255),
		IPv6Prefixes:     []netip.Prefix{netip.MustParsePrefix("2001:db8:1::/56")},
	}
}

func (w *world) event(kind nat.EventKind, at time.Time, t *tenancy) nat.Event {
	e := nat.Event{Kind: kind, At: at, Group: "default", Block: t.block, Holder: identityOf(t.user, t.from)}
	if kind != nat.Allocated {
		e.Since = t.from
	}
	return e
}

// step lets time pass and something happen: an allocation, a release, both at once, a clock
// that is set.
func (w *world) step() {
	switch w.rnd.IntN(10) {
	case 0:
		w.now = w.now.Add(time.Duration(w.rnd.Int64N(int64(20 * time.Hour))))
	case 1, 2, 3:
		w.now = w.now.Add(time.Duration(w.rnd.Int64N(int64(time.Second))))
	default:
		w.now = w.now.Add(time.Duration(w.rnd.Int64N(int64(30 * time.Minute))))
	}
	if w.rnd.IntN(60) == 0 {
		w.setClock()
	}
	var e Entry
	var apply []func()
	tell := func(event nat.Event, know func()) {
		w.latest = latestTime(w.latest, event.At)
		e.Events = append(e.Events, event)
		apply = append(apply, func() { w.hear(event.At); know() })
	}
	for range 1 + w.rnd.IntN(2) {
		at := w.clock()
		if w.rnd.IntN(4) == 0 { // another writer looked at the clock earlier
			at = at.Add(-time.Duration(w.rnd.Int64N(900_000)) * time.Microsecond)
		}
		b := w.block()
		if old := w.held[b]; old != nil {
			if w.rnd.IntN(8) == 0 { // nothing new
				e.Events = append(e.Events, w.event(nat.Interim, at, old))
				continue
			}
			if w.frozen {
				at = latestTime(at, old.from)
			}
			old.to = latestTime(at, old.from.Add(time.Microsecond)) // no record is empty
			tell(w.event(nat.Released, at, old), func() { old.begun, old.ended = true, true })
			delete(w.held, b)
			if w.rnd.IntN(2) == 0 {
				continue
			}
		}
		if w.frozen {
			at = latestTime(at, w.latest)
		}
		t := &tenancy{block: b, user: w.rnd.IntN(40), from: at}
		w.held[b], w.all = t, append(w.all, t)
		tell(w.event(nat.Allocated, at, t), func() { t.begun = true })
	}
	e.Position = fmt.Sprintf("%d-1", len(w.log)+1)
	w.log, w.apply = append(w.log, e), append(w.apply, apply)
}

// setClock sets the daemon's clock to anywhere within three hours of the time.
func (w *world) setClock() {
	if !w.steady {
		w.offset = time.Duration(w.rnd.Int64N(int64(6*time.Hour))) - 3*time.Hour
	}
}

// hear lets the history know the time of an event. One that is earlier than another before it
// by over a second, or than the time to which the log was read by over a minute, makes a gap, which
// begins before all that may follow, and ends behind all that came.
func (w *world) hear(at time.Time) {
	if w.early(at) {
		w.gaps = append(w.gaps, Gap{From: at.Add(-time.Second - time.Microsecond), To: latestTime(w.heard, w.through).Add(time.Microsecond)})
	}
	w.heard = latestTime(w.heard, at)
}

func (w *world) early(at time.Time) bool {
	return at.Before(w.heard.Add(-time.Second)) || at.Before(w.through.Add(-time.Minute))
}

func latestTime(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// expected answers a question as the model does.
func (w *world) expected(outside netip.Addr, port nat.Port, at, through time.Time) (State, Cause, int) {
	switch {
	case at.Before(w.first):
		return Unknown, CauseBefore, 0
	case at.After(through):
		return Unknown, CauseNotRead, 0
	}
	var live []*tenancy
	for _, t := range w.all {
		if end := w.end(t); t.begun && t.block.Contains(outside, port) && !t.from.After(at) && (end.IsZero() || at.Before(end)) {
			live = append(live, t)
		}
	}
	for _, g := range w.gaps {
		if at.Before(g.From) || !at.Before(g.To) {
			continue
		}
		if len(live) != 1 || live[0].from.After(g.From) || !w.end(live[0]).IsZero() && w.end(live[0]).Before(g.To) {
			return Unknown, CauseGap, 0
		}
	}
	switch len(live) {
	case 0:
		return Nobody, "", 0
	case 1:
		return Held, "", live[0].user
	}
	return Unknown, CauseConflict, 0
}

func (w *world) inGap(at time.Time) bool {
	return slices.ContainsFunc(w.gaps, func(g Gap) bool { return !at.Before(g.From) && at.Before(g.To) })
}

// end returns the time until which a tenancy is certain, zero for one that is not known to
// have ended.
func (w *world) end(t *tenancy) time.Time {
	switch {
	case t.lost != nil:
		return latestTime(t.lost.From, t.from)
	case t.ended:
		return t.to
	}
	return time.Time{}
}

// walk is a walk of a store through a world, with faults.
type walk struct {
	*world
	t     *testing.T
	o     Options
	files *faultyFiles
	store *Store
	read  int // entries of the log that the store has
}

func testKey(t testing.TB) *Key {
	t.Helper()
	k, err := LoadKey(t.TempDir()+"/key", "cgn1")
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newWalk(t *testing.T, seed uint64, key *Key) *walk {
	w := &walk{world: newWorld(seed), t: t, o: Options{Path: t.TempDir(), Key: key, FileRecords: 60}}
	w.open()
	w.through = w.first
	if err := w.store.Resume(Restart{Group: "default", Epoch: "e", Position: "0-1", To: w.first, Reason: "the history begins"}); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *walk) open() {
	w.files = &faultyFiles{left: -1, rnd: w.rnd}
	w.o.files = w.files
	var err error
	if w.store, err = Open(w.o); err != nil {
		w.t.Fatal(err)
	}
}

// kill abandons the store, as kill -9 does, and opens it again.
func (w *walk) kill() {
	w.files.mu.Lock()
	w.files.dead = true
	w.files.mu.Unlock()
	w.files.closeAll()
	_ = w.store.lock.Close()
	w.open()
	w.agree()
}

// agree learns from the position how much the store has, and lets the model know as much.
func (w *walk) agree() {
	p, ok := w.store.Progress("default")
	if !ok {
		w.t.Fatal("the group is not there any more")
	}
	var n int
	if _, err := fmt.Sscanf(p.Position, "%d-1", &n); err != nil || n < w.read || n > len(w.log) {
		w.t.Fatalf("position %s behind %d of %d: %v", p.Position, w.read, len(w.log), err)
	}
	w.know(n)
	w.through = p.Through
}

// know lets the model know the first n entries.
func (w *walk) know(n int) {
	for ; w.read < n; w.read++ {
		for _, know := range w.apply[w.read] {
			know()
		}
	}
}

// feed tells the store what happened, some of it again, until it has it.
func (w *walk) feed() {
	from := max(0, w.read-w.rnd.IntN(4))
	b := Batch{Group: "default", Epoch: "e", Through: w.clock()}
	b.Entries = w.log[from:]
	switch w.rnd.IntN(8) {
	case 0:
		w.files.set(w.rnd.IntN(12), 0)
	case 1:
		w.files.set(w.rnd.IntN(12), 1+w.rnd.IntN(5))
	}
	for range 20 {
		err := w.store.Append(b)
		if err == nil {
			err = w.maintain()
		}
		switch {
		case err == nil:
			w.agree()
			if w.read != len(w.log) {
				w.t.Fatalf("%d of %d entries are stored", w.read, len(w.log))
			}
			w.files.set(-1, 0)
			return
		case errors.Is(err, errKilled):
			w.kill()
		case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EIO):
			w.agree()
			w.ask(5)
		default:
			w.t.Fatal(err)
		}
	}
	w.t.Fatal("the batch cannot be stored")
}

func (w *walk) maintain() error {
	if w.rnd.IntN(3) > 0 {
		return nil
	}
	return w.store.Maintain(w.clock())
}

// lose lets the reader miss some entries, and go on with the state of the NAT.
func (w *walk) lose() {
	g := Gap{From: w.heard.Add(-time.Second)}
	steady := w.steady
	w.steady = true // a clock that is set back, and runs on to where it was, shows nowhere
	for range 1 + w.rnd.IntN(5) {
		w.step()
	}
	w.steady = steady
	if w.rnd.IntN(3) == 0 {
		w.setClock()
	}
	now := w.clock()
	r := Restart{Group: "default", Epoch: "e", Position: w.log[len(w.log)-1].Position, From: g.From, To: now, Reason: "the reader was away"}
	w.heard = latestTime(w.heard, now)
	for _, t := range w.held {
		r.Live = append(r.Live, w.event(nat.Interim, now, t))
		w.heard = latestTime(w.heard, t.from)
	}
	if err := w.store.Resume(r); err != nil {
		w.t.Fatal(err)
	}
	if g.To = now; g.To.Before(g.From) {
		g.From = g.To
	}
	if before := now.Add(-time.Second - time.Microsecond); w.early(now) {
		g.To = latestTime(w.heard, w.through).Add(time.Microsecond)
		if before.Before(g.From) {
			g.From = before
		}
	}
	w.gaps = append(w.gaps, g)
	w.read = len(w.log)
	for _, t := range w.all {
		switch {
		case w.held[t.block] == t:
			t.begun = true
		case t.begun && !t.ended && t.lost == nil:
			t.lost = &g
		}
	}
	w.agree()
}

// ask compares answers with the model's.
func (w *walk) ask(n int) {
	w.t.Helper()
	for range n {
		at := w.now.Add(w.offset).Add(-time.Duration(w.rnd.Int64N(int64(w.now.Sub(w.first)) + int64(time.Hour)))).Truncate(time.Microsecond)
		if len(w.all) > 0 && w.rnd.IntN(2) == 0 { // at an edge
			t := w.all[w.rnd.IntN(len(w.all))]
			at = t.from
			if w.rnd.IntN(2) == 0 && !t.to.IsZero() {
				at = t.to
			}
			at = at.Add(time.Duration(w.rnd.IntN(3)-1) * time.Microsecond)
		}
		outside, port := outsideOf(w.rnd.IntN(3)), nat.Port(w.rnd.IntN(6*1024))
		a, err := w.store.LookupOutside(Question{Outside: outside, Port: port, At: at})
		if err != nil {
			w.t.Fatal(err)
		}
		state, cause, user := w.expected(outside, port, at, w.through)
		if a.State != state || a.Because != cause || state == Held && a.Record.Holder.UserName != fmt.Sprintf("user%d@isp.example", user) {
			w.t.Fatalf("%s:%d at %s: %+v, want state %d, %q, user %d", outside, port, at, a, state, cause, user)
		}
	}
}

// run walks so many steps.
func (w *walk) run(steps, questions int) {
	for range steps {
		for range 1 + w.rnd.IntN(12) {
			w.step()
		}
		w.feed()
		if w.rnd.IntN(25) == 0 {
			w.lose()
		}
		if w.rnd.IntN(12) == 0 {
			w.kill()
		}
		w.ask(questions)
	}
	if err := w.store.Maintain(w.clock()); err != nil {
		w.t.Fatal(err)
	}
	w.check(10 * questions)
}

// check asks so many questions, verifies the store and closes it.
func (w *walk) check(questions int) {
	w.ask(questions)
	list, err := w.store.Verify(w.t.Context(), "")
	if err != nil || len(list) != 1 || list[0].Flaw != nil {
		w.t.Fatalf("verify: %+v, %v", list, err)
	}
	if err := w.store.Close(); err != nil {
		w.t.Fatal(err)
	}
}

// TestRandomHistories_LOG06_LOG08: whatever happens to process, disk, clock and log, each
// question is answered as a simple model answers it.
func TestRandomHistories_LOG06_LOG08(t *testing.T) {
	histories, steps, questions := uint64(8), 30, 8
	if testenv.Soak() {
		histories, steps, questions = 1000, 60, 10
	}
	key := testKey(t)
	for seed := range histories {
		if !t.Run(fmt.Sprint(seed), func(t *testing.T) { newWalk(t, seed, key).run(steps, questions) }) {
			return
		}
	}
}
