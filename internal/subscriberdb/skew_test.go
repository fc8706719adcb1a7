package subscriberdb

import (
	"cmp"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/redistest"
	"github.com/sessiond/sessiond/internal/testenv"
)

// TestSkewedHistories_SES02_SES06_SES13 compares expected sessions with the database where
// no clock is right: each NAS has an offset of hours, a drift, and some a step in the
// middle; some send no delay, some no time at all. Events come to one of two daemons in the
// order of their arrival: without delay, repeated unchanged or with an increased delay, and
// delayed by a relay for hours.
//
// No session ever has another session's address, and after one more Interim of each session
// exactly the expected sessions are online.
func TestSkewedHistories_SES02_SES06_SES13(t *testing.T) {
	server := testenv.StartRedis(t)
	grouped := func(o *Options) {
		o.Groups = []Group{{Name: "default", Inside: []netip.Prefix{netip.MustParsePrefix("100.64.0.0/16")}, RecordTTL: testTTL}}
	}
	total := allHistories
	if testing.Short() {
		total = shortHistories
	}
	mended := 0
	for first := 0; first < total; first += perRound {
		dbs := [2]*DB{newDB(t, redistest.Dial(t, server.URL), grouped), newDB(t, redistest.Dial(t, server.URL), grouped)}
		if err := dbs[0].client.FlushAll(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		mended += skewedRound(t, dbs, first)
		if t.Failed() {
			t.Fatalf("histories %d to %d", first, first+perRound-1)
		}
	}
	t.Logf("%d sessions of %d histories were away until their next Interim", mended, total)
}

// skewedRound runs some histories, and returns the number of sessions that were offline
// until their next Interim.
func skewedRound(t *testing.T, dbs [2]*DB, first int) int {
	rng := rand.New(rand.NewPCG(uint64(first), 13))
	truth, stepped := map[netip.Addr]string{}, map[string]bool{}
	var events, last []subscriber.Event
	for i := range perRound {
		c := course{rng: rng, number: first + i, slot: i, online: truth, now: t0}
		c.run(4 + rng.IntN(20))
		w := newWatch(rng, c.now)
		for j := range c.events {
			events = append(events, w.copies(rng, c.events[j], j == 0)...)
		}
		stepped[c.event(0).NAS] = w.step < 0
		last = append(last, c.lastInterims(w)...)
	}
	playSkewed(t, rng, dbs, events)
	away := checkNobodyElse(t, dbs[0], truth, stepped)
	playSkewed(t, rng, dbs, last)
	compareOnline(t, dbs[0], truth)
	return away
}

// lastInterims returns one more Interim of each session that is online.
func (c *course) lastInterims(w watch) []subscriber.Event {
	sent := len(c.events)
	c.now = c.now.Add(15 * time.Minute)
	for i := range perHistory {
		if inside := c.address(i); c.online[inside] != "" {
			c.tell(subscriber.EventInterim, c.online[inside], inside)
		}
	}
	var last []subscriber.Event
	for _, ev := range c.events[sent:] {
		last = append(last, w.prompt(c.rng, ev))
	}
	return last
}

// watch is the clock of a NAS, and the time attributes in its packets.
type watch struct {
	offset  time.Duration
	drift   float64
	stepAt  time.Time // zero: never
	step    time.Duration
	stamps  bool // Event-Timestamp is sent
	delayed bool // Acct-Delay-Time is sent in every packet
}

func newWatch(rng *rand.Rand, end time.Time) watch {
	w := watch{
		offset: time.Duration(rng.IntN(24*3600)-12*3600) * time.Second,
		drift:  (rng.Float64() - 0.5) / 10_000,
		stamps: rng.IntN(5) > 0, delayed: rng.IntN(2) == 0,
	}
	if rng.IntN(3) == 0 {
		w.stepAt = t0.Add(time.Duration(rng.Int64N(int64(end.Sub(t0)))))
		w.step = time.Duration(rng.IntN(4*3600)-2*3600) * time.Second
	}
	return w
}

// stamp returns the clock's reading at a time; zero if it is not sent.
func (w *watch) stamp(at time.Time) time.Time {
	if !w.stamps {
		return time.Time{}
	}
	shown := at.Add(w.offset + time.Duration(float64(at.Sub(t0))*w.drift))
	if !w.stepAt.IsZero() && at.After(w.stepAt) {
		shown = shown.Add(w.step)
	}
	return shown.Truncate(time.Second)
}

// prompt returns the packet as it is sent first.
func (w *watch) prompt(rng *rand.Rand, ev subscriber.Event) subscriber.Event {
	ev.Arrival = ev.At.Add(time.Duration(rng.IntN(1000)) * time.Millisecond)
	ev.Stamp, ev.Delay = w.stamp(ev.At), -1
	if w.delayed {
		ev.Delay = 0
	}
	if isRestart(&ev) && !ev.Stamp.IsZero() && rng.IntN(2) == 0 {
		ev.Stamp = ev.Stamp.Add(time.Duration(rng.IntN(600)) * time.Second) // before NTP
	}
	ev.At = time.Time{}
	return ev
}

// copies returns the packets with one event. The first one may be lost, but not the first
// of the NAS, from which its clock is learned.
func (w *watch) copies(rng *rand.Rand, ev subscriber.Event, first bool) []subscriber.Event {
	packet := w.prompt(rng, ev)
	list := []subscriber.Event{packet}
	again := func(after time.Duration, delay time.Duration) {
		another := packet
		another.Arrival, another.Delay = ev.At.Add(after), delay
		list = append(list, another)
	}
	seconds := func(from, upto int) time.Duration {
		return time.Duration(from+rng.IntN(upto-from)) * time.Second
	}
	switch dice := rng.IntN(12); {
	case dice < 2: // repeated unchanged: its answer was lost
		again(seconds(3, 60), packet.Delay)
	case dice < 4: // repeated, with an increased delay
		after := seconds(3, 300)
		again(after, after)
	case dice < 6: // delayed by a relay too, which sends the delay
		after := seconds(300, 6*3600)
		again(after, after)
	case dice == 6 && !first: // delayed by that relay only
		after := seconds(3, 9)
		again(after, after)
		list = list[1:]
	}
	return list
}

// playSkewed sends the events to the daemons in the order of their arrival, in batches of
// all sizes.
func playSkewed(t *testing.T, rng *rand.Rand, dbs [2]*DB, events []subscriber.Event) {
	t.Helper()
	slices.SortStableFunc(events, func(a, b subscriber.Event) int {
		return cmp.Compare(a.Arrival.UnixNano(), b.Arrival.UnixNano())
	})
	for len(events) > 0 {
		n := min(1+rng.IntN(100), len(events))
		db := dbs[rng.IntN(2)]
		for _, err := range db.Record(t.Context(), events[:n]) {
			if err != nil {
				t.Fatal(err)
			}
		}
		events = events[n:]
		if err := dbs[0].sweepAll(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
	}
}

// checkNobodyElse: no record has another session than the address's expected one, or the
// last one there. It returns the number of sessions without a record.
func checkNobodyElse(t *testing.T, db *DB, truth map[netip.Addr]string, stepped map[string]bool) int {
	t.Helper()
	away := len(truth)
	err := db.Records(t.Context(), "default", func(batch []subscriber.Record) error {
		for _, r := range batch {
			switch id, taken := truth[r.Inside]; {
			case taken && r.AcctSessionID == id:
				away--
			case taken:
				t.Errorf("%v is %s, truly %s", r.Inside, r.AcctSessionID, id)
			case !stepped[r.NAS]:
				t.Errorf("%v is %s, truly nobody", r.Inside, r.AcctSessionID)
			default:
				truth[r.Inside] = r.AcctSessionID
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return away
}
