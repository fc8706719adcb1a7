package subscriberdb

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/redistest"
	"github.com/sessiond/sessiond/internal/testenv"
)

// TestTwoInstances_SES02 sends the same shuffled and doubled history through two daemons at
// once, and compares the records, the replayed feed and the hash of online addresses with
// the expected sessions (I4).
func TestTwoInstances_SES02(t *testing.T) {
	server := testenv.StartRedis(t)
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			dbs := [2]*DB{newDB(t, redistest.Dial(t, server.URL)), newDB(t, redistest.Dial(t, server.URL))}
			if err := dbs[0].client.FlushAll(t.Context()).Err(); err != nil {
				t.Fatal(err)
			}
			rng := rand.New(rand.NewPCG(seed, 7))
			events, truth := history(rng, 6, 200)
			deliver(t, rng, dbs, events)
			compareOnline(t, dbs[0], truth)
			compareReplay(t, dbs[0], truth)
			compareOnlineEntries(t, dbs[0], truth)
		})
	}
}

// history returns a course of sessions on a few addresses, and the sessions online at its
// end.
func history(rng *rand.Rand, addresses, steps int) ([]subscriber.Event, map[netip.Addr]string) {
	truth := map[netip.Addr]string{}
	var events []subscriber.Event
	now := time.Duration(0)
	for i := range steps {
		now += time.Duration(10+rng.IntN(600)) * time.Second
		inside := netip.AddrFrom4([4]byte{100, 64, 0, byte(rng.IntN(addresses))})
		id, up := truth[inside]
		switch {
		case up && rng.IntN(3) > 0:
			events = append(events, interim(id, inside, now))
		case up:
			events = append(events, stop(id, inside, now))
			delete(truth, inside)
		default:
			truth[inside] = fmt.Sprint("s", i)
			events = append(events, start(truth[inside], inside, now))
		}
	}
	withSessionTimes(events)
	return events, truth
}

func withSessionTimes(events []subscriber.Event) {
	began := map[string]time.Time{}
	for i := range events {
		if ev := &events[i]; ev.Kind == subscriber.EventStart {
			began[ev.AcctSessionID] = ev.At
		} else {
			ev.SessionTime = ev.At.Sub(began[ev.AcctSessionID])
		}
	}
}

// deliver sends every event to one daemon or to both, in any order, in batches.
func deliver(t *testing.T, rng *rand.Rand, dbs [2]*DB, events []subscriber.Event) {
	t.Helper()
	var queues [2][]subscriber.Event
	for _, ev := range events {
		to := rng.IntN(3)
		for i := range queues {
			if to == i || to == 2 {
				queues[i] = append(queues[i], ev)
			}
		}
	}
	var wg sync.WaitGroup
	for i, queue := range queues {
		rng.Shuffle(len(queue), func(a, b int) { queue[a], queue[b] = queue[b], queue[a] })
		wg.Go(func() { recordInBatches(t, dbs[i], queue) })
	}
	wg.Wait()
}

func recordInBatches(t *testing.T, db *DB, queue []subscriber.Event) {
	for len(queue) > 0 {
		n := min(1+len(queue)%17, len(queue))
		for _, err := range db.Record(t.Context(), queue[:n]) {
			if err != nil {
				t.Error(err)
			}
		}
		queue = queue[n:]
	}
}

func compareOnline(t *testing.T, db *DB, truth map[netip.Addr]string) {
	t.Helper()
	seen := map[netip.Addr]string{}
	err := db.Records(t.Context(), "default", func(batch []subscriber.Record) error {
		for _, r := range batch {
			seen[r.Inside] = r.AcctSessionID
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	compareMaps(t, "online", seen, truth)
}

// compareReplay: a follower of the feed has the same sessions as the records, and never
// gets a new holder before the end of the old one.
func compareReplay(t *testing.T, db *DB, truth map[netip.Addr]string) {
	t.Helper()
	if differs := replay(t, db, truth); differs != "" {
		t.Fatal(differs)
	}
}

// replay returns the differences between the feed and the expected sessions, and
// contradictions within the feed.
func replay(t *testing.T, db *DB, truth map[netip.Addr]string) string {
	t.Helper()
	seen := map[netip.Addr]string{}
	for _, c := range changes(t, db, "default") {
		holder, held := seen[c.Record.Inside]
		switch {
		case c.Kind == subscriber.Created && held:
			return fmt.Sprintf("%s: created over %s", c.ID, holder)
		case c.Kind != subscriber.Created && holder != c.Record.AcctSessionID:
			return fmt.Sprintf("%s: %v of %s, but %q holds %v", c.ID, c.Kind, c.Record.AcctSessionID, holder, c.Record.Inside)
		case c.Kind == subscriber.Deleted:
			delete(seen, c.Record.Inside)
		default:
			seen[c.Record.Inside] = c.Record.AcctSessionID
		}
	}
	if fmt.Sprint(seen) != fmt.Sprint(truth) {
		return "replay: " + difference(seen, truth)
	}
	return ""
}

func compareOnlineEntries(t *testing.T, db *DB, truth map[netip.Addr]string) {
	t.Helper()
	entries, err := db.client.HGetAll(t.Context(), codec.OnlineKey("default")).Result()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[netip.Addr]string{}
	for inside, line := range entries {
		r, err := codec.ParseOnlineEntry(subscriber.Key{}, line)
		if err != nil {
			t.Fatal(err)
		}
		seen[netip.MustParseAddr(inside)] = r.AcctSessionID
	}
	compareMaps(t, "online entries", seen, truth)
}

func compareMaps(t *testing.T, what string, got, want map[netip.Addr]string) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s: %s", what, difference(got, want))
	}
}

// TestOneAddressContested_SES07: many sessions request one address at once, through two
// daemons; the newest gets it.
func TestOneAddressContested_SES07(t *testing.T) {
	server := testenv.StartRedis(t)
	dbs := [2]*DB{newDB(t, redistest.Dial(t, server.URL)), newDB(t, redistest.Dial(t, server.URL))}
	const sessions = 12
	var wg sync.WaitGroup
	for i := range sessions {
		wg.Go(func() {
			ev := start(fmt.Sprint(i), addr, time.Duration(i)*time.Minute)
			for _, err := range dbs[i%2].Record(t.Context(), []subscriber.Event{ev}) {
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if got := online(t, dbs[0], addr); got != fmt.Sprint(sessions-1) {
		t.Errorf("%s holds the address", got)
	}
	compareReplay(t, dbs[0], map[netip.Addr]string{addr: fmt.Sprint(sessions - 1)})
}

// difference lists some of the addresses at which two maps differ.
func difference(got, want map[netip.Addr]string) string {
	var lines []string
	for a, id := range want {
		if got[a] != id {
			lines = append(lines, fmt.Sprintf("%v is %q, want %q", a, got[a], id))
		}
	}
	for a, id := range got {
		if _, ok := want[a]; !ok {
			lines = append(lines, fmt.Sprintf("%v is %q, want nobody", a, id))
		}
	}
	return fmt.Sprintf("%d differences: %s", len(lines), strings.Join(lines[:min(len(lines), 10)], "; "))
}
