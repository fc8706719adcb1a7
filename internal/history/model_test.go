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
	latest time.Time     // by the clock, of the events since it was set back
	steady bool
	held   map[nat.Block]*tenancy
	all    []*tenancy
	log    []logged
	gaps   []Gap
	first  time.Time
}

// logged is an entry of the log, with its effect on the model once it is read.
type logged struct {
	Entry
	apply func()
}

// tenancy is the time in which a user had a block, by the clock; read are the parts of it that
// the history was told.
type tenancy struct {
	block     nat.Block
	user      int
	told      time.Time // the time of its allocation, as the daemon tells it
	allocated time.Time // not before the end of the one before
	released  time.Time // zero: still held
	begun     bool      // the history was told the beginning
	ended     bool      // and the end
	lost      *Gap      // in which the end was
}

var worldStart = time.Date(2026, 3, 1, 22, 0, 0, 0, time.UTC)

func newWorld(seed uint64) *world {
	w := &world{rnd: rand.New(rand.NewPCG(seed, 15)), now: worldStart, held: map[nat.Block]*tenancy{}}
	w.first, w.latest = w.now, w.now
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
	e := nat.Event{Kind: kind, At: at, Group: "default", Block: t.block, Holder: identityOf(t.user, t.allocated)}
	if kind != nat.Allocated {
		e.Since = t.told
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
	if w.rnd.IntN(60) == 0 && !w.steady {
		w.offset = time.Duration(w.rnd.Int64N(int64(6*time.Hour))) - 3*time.Hour
	}
	at := w.clock()
	if w.rnd.IntN(4) == 0 { // another writer looked at the clock earlier
		at = at.Add(-time.Duration(w.rnd.Int64N(900_000)) * time.Microsecond)
	}
	var events []nat.Event
	var effects []func()
	if at.Before(w.latest.Add(-time.Second)) {
		// The times from here to the latest come a second time.
		g := Gap{Group: "default", From: at.Add(-time.Second - time.Microsecond), To: w.latest.Add(time.Millisecond), Reason: "the clock was set back"}
		effects = append(effects, func() { w.gaps = append(w.gaps, g) })
		w.latest = at
	}
	w.latest = latestOf(w.latest, at)
	for range 1 + w.rnd.IntN(2) {
		b := w.block()
		if old := w.held[b]; old != nil {
			old.released = latestOf(at, old.allocated.Add(time.Microsecond))
			events = append(events, w.event(nat.Released, at, old))
			effects = append(effects, func() { old.begun, old.ended = true, true })
			delete(w.held, b)
			if w.rnd.IntN(2) == 0 {
				continue
			}
		}
		t := &tenancy{block: b, user: w.rnd.IntN(40), told: at, allocated: latestOf(at, w.endOf(b))}
		w.held[b], w.all = t, append(w.all, t)
		e := w.event(nat.Allocated, at, t)
		events = append(events, e)
		effects = append(effects, func() { t.begun = true })
	}
	w.log = append(w.log, logged{Entry{fmt.Sprintf("%d-1", len(w.log)+1), events}, func() {
		for _, f := range effects {
			f()
		}
	}})
}

// endOf returns the end of the newest tenancy of a block.
func (w *world) endOf(b nat.Block) (end time.Time) {
	for _, t := range w.all {
		if t.block == b {
			end = latestOf(end, t.released)
		}
	}
	return end
}

func latestOf(a, b time.Time) time.Time {
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
	var live *tenancy
	for _, t := range w.all {
		if t.begun && t.block.Contains(outside, port) && !t.allocated.After(at) && (w.end(t).IsZero() || at.Before(w.end(t))) {
			live = t
		}
	}
	for _, g := range w.gaps {
		if at.Before(g.From) || !at.Before(g.To) {
			continue
		}
		if live == nil || live.allocated.After(g.From) || !w.end(live).IsZero() && w.end(live).Before(g.To) {
			return Unknown, CauseGap, 0
		}
	}
	if live == nil {
		return Nobody, "", 0
	}
	return Held, "", live.user
}

func (w *world) setBack() bool {
	return slices.ContainsFunc(w.gaps, func(g Gap) bool { return g.Reason == "the clock was set back" })
}

func (w *world) inGap(at time.Time) bool {
	return slices.ContainsFunc(w.gaps, func(g Gap) bool { return !at.Before(g.From) && at.Before(g.To) })
}

// end returns the time until which a tenancy is certain, zero for one that is not known to
// have ended.
func (w *world) end(t *tenancy) time.Time {
	switch {
	case t.lost != nil:
		return latestOf(t.lost.From, t.allocated)
	case t.ended:
		return t.released
	}
	return time.Time{}
}

// walk is a walk of a store through a world, with faults.
type walk struct {
	*world
	t       *testing.T
	o       Options
	files   *faultyFiles
	store   *Store
	read    int // entries of the log that the store has
	through time.Time
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
	w.files = &faultyFiles{left: -1}
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
		w.log[w.read].apply()
	}
}

// feed tells the store what happened, some of it again, until it has it.
func (w *walk) feed() {
	from := max(0, w.read-w.rnd.IntN(4))
	b := Batch{Group: "default", Epoch: "e", Through: w.clock()}
	for _, e := range w.log[from:] {
		b.Entries = append(b.Entries, e.Entry)
	}
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
		case errors.Is(err, syscall.ENOSPC):
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
	from := w.latest.Add(-time.Second)
	w.steady = true // no reader can tell how the clock was set while it was away
	for range 1 + w.rnd.IntN(5) {
		w.step()
	}
	w.steady = false
	r := Restart{Group: "default", Epoch: "e", Position: w.log[len(w.log)-1].Position, From: from, To: latestOf(w.clock(), w.latest), Reason: "the reader was away"}
	for _, t := range w.held {
		r.Live = append(r.Live, w.event(nat.Interim, w.clock(), t))
	}
	if err := w.store.Resume(r); err != nil {
		w.t.Fatal(err)
	}
	g := w.lastGap()
	w.read = len(w.log)
	for _, t := range w.all {
		now := w.held[t.block] == t
		switch {
		case now:
			t.begun = true
		case t.begun && !t.ended && t.lost == nil:
			t.lost = &g
		}
	}
	w.gaps = append(w.gaps, g)
	w.latest = g.To
	w.agree()
}

func (w *walk) lastGap() Gap {
	p, _ := w.store.Progress("default")
	return p.Gaps[len(p.Gaps)-1]
}

// ask compares answers with the model's.
func (w *walk) ask(n int) {
	w.t.Helper()
	for range n {
		at := w.now.Add(w.offset).Add(-time.Duration(w.rnd.Int64N(int64(w.now.Sub(w.first)) + int64(time.Hour)))).Truncate(time.Microsecond)
		if len(w.all) > 0 && w.rnd.IntN(2) == 0 { // at an edge
			t := w.all[w.rnd.IntN(len(w.all))]
			at = t.allocated
			if w.rnd.IntN(2) == 0 && !t.released.IsZero() {
				at = t.released
			}
			at = at.Add(time.Duration(w.rnd.IntN(3)-1) * time.Microsecond)
		}
		outside, port := outsideOf(w.rnd.IntN(3)), nat.Port(w.rnd.IntN(6*1024))
		a, err := w.store.LookupOutside(Question{Outside: outside, Port: port, At: at})
		if err != nil {
			w.t.Fatal(err)
		}
		state, cause, user := w.expected(outside, port, at, w.through)
		if a.Because == CauseGap && state == Held && w.inGap(at) {
			continue // it may know less in a gap, but for sure not another name
		}
		if a.Because == CauseConflict && state == Held && w.setBack() {
			continue // a beginning that was moved, and told again as it was: no name rather than a wrong one
		}
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
	w.ask(10 * questions)
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
