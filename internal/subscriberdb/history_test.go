package subscriberdb

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/redistest"
	"github.com/sessiond/sessiond/internal/testenv"
)

// Size of TestHistories. The histories of one round share a Redis and a group, and batches
// mix them; each has its own addresses and NAS.
const (
	allHistories   = 10_000
	shortHistories = 500
	perRound       = 250
	perHistory     = 4 // addresses
)

// TestHistories_I4_SES02_SES11_SES15 compares the sessions online by the times of the
// events with the database, after every event came to one of two daemons or to both, once
// or more often, in any order.
func TestHistories_I4_SES02_SES11_SES15(t *testing.T) {
	server := testenv.StartRedis(t)
	group := []Group{{Name: "default", Inside: []netip.Prefix{netip.MustParsePrefix("100.64.0.0/16")}, RecordTTL: testTTL}}
	grouped := func(o *Options) { o.Groups = group }
	dbs := [2]*DB{newDB(t, redistest.Dial(t, server.URL), grouped), newDB(t, redistest.Dial(t, server.URL), grouped)}
	total := allHistories
	switch {
	case testing.Short():
		total = shortHistories
	case !testenv.Soak():
		total /= 2
	}
	for first := 0; first < total; first += perRound {
		if err := dbs[0].client.FlushAll(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		rng := rand.New(rand.NewPCG(uint64(first), 11))
		truth := map[netip.Addr]string{}
		var events []subscriber.Event
		for i := range perRound {
			c := course{rng: rng, number: first + i, slot: i, online: truth, now: t0}
			c.run(4 + rng.IntN(20))
			events = append(events, c.events...)
		}
		deliverAll(t, rng, dbs, events)
		if err := dbs[0].sweepAll(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		compareOnline(t, dbs[0], truth)
		compareOnlineEntries(t, dbs[0], truth)
		if t.Failed() {
			t.Fatalf("histories %d to %d", first, first+perRound-1)
		}
	}
}

// course is one history of the subscribers of one NAS.
type course struct {
	rng          *rand.Rand
	number, slot int
	now          time.Time
	online       map[netip.Addr]string // sessions online by address; of all courses
	began        map[string]time.Time
	events       []subscriber.Event
	sessions     int
}

func (c *course) run(steps int) {
	c.began = map[string]time.Time{}
	for range steps {
		c.now = c.now.Add(time.Duration(10+c.rng.IntN(900)) * time.Second)
		inside := c.address(c.rng.IntN(perHistory - 1))
		id, up := c.online[inside]
		switch dice := c.rng.IntN(20); {
		case dice == 0:
			c.restart()
		case !up:
			c.start(inside)
		case dice < 9:
			c.tell(subscriber.EventInterim, id, inside)
		case dice < 11:
			c.tell(subscriber.EventStop, id, inside)
			c.start(inside) // in the same second
		case dice == 11:
			c.move(id, inside)
		default:
			c.tell(subscriber.EventStop, id, inside)
			delete(c.online, inside)
		}
	}
}

func (c *course) address(i int) netip.Addr {
	n := c.slot*perHistory + i
	return netip.AddrFrom4([4]byte{100, 64, byte(n >> 8), byte(n)})
}

// start begins a session; sometimes its Start is lost, and an Interim is its first event.
func (c *course) start(inside netip.Addr) {
	c.sessions++
	id := fmt.Sprintf("h%d.%d", c.number, c.sessions)
	c.began[id] = c.now
	c.online[inside] = id
	kind := subscriber.EventStart
	if c.rng.IntN(10) == 0 {
		c.now = c.now.Add(time.Minute)
		kind = subscriber.EventInterim
	}
	c.tell(kind, id, inside)
}

// move changes the session's address to the history's spare one, if that is free (SES-09).
func (c *course) move(id string, inside netip.Addr) {
	spare := c.address(perHistory - 1)
	if _, taken := c.online[spare]; taken {
		return
	}
	delete(c.online, inside)
	c.online[spare] = id
	c.tell(subscriber.EventInterim, id, spare)
	c.now = c.now.Add(time.Second)
}

// restart ends all sessions of the NAS; no new one begins in the same second.
func (c *course) restart() {
	for i := range perHistory {
		delete(c.online, c.address(i))
	}
	ev := c.event(subscriber.EventAccountingOn)
	c.events = append(c.events, ev)
}

func (c *course) tell(kind subscriber.EventKind, id string, inside netip.Addr) {
	ev := c.event(kind)
	ev.AcctSessionID, ev.UserName, ev.Inside = id, "user-"+id, inside
	if kind != subscriber.EventStart {
		ev.SessionTime = c.now.Sub(c.began[id])
	}
	c.events = append(c.events, ev)
}

func (c *course) event(kind subscriber.EventKind) subscriber.Event {
	return subscriber.Event{
		Kind: kind, At: c.now, Stamp: c.now, SessionTime: -1,
		SessionID: subscriber.SessionID{Client: "bng1", NAS: fmt.Sprint("nas", c.number)},
	}
}

// deliverAll sends each event one to three times, to either daemon, with any delay, in
// batches of all sizes.
func deliverAll(t *testing.T, rng *rand.Rand, dbs [2]*DB, events []subscriber.Event) {
	t.Helper()
	var queues [2][]subscriber.Event
	for _, ev := range events {
		for range 1 + max(0, rng.IntN(6)-3) {
			to := rng.IntN(2)
			queues[to] = append(queues[to], ev)
		}
	}
	var wg sync.WaitGroup
	for i, queue := range queues {
		rng.Shuffle(len(queue), func(a, b int) { queue[a], queue[b] = queue[b], queue[a] })
		sizes := rand.New(rand.NewPCG(rng.Uint64(), 12))
		wg.Go(func() { recordSizes(t, dbs[i], queue, sizes) })
	}
	wg.Wait()
}

func recordSizes(t *testing.T, db *DB, queue []subscriber.Event, sizes *rand.Rand) {
	for len(queue) > 0 {
		n := min(1+sizes.IntN(400), len(queue))
		for _, err := range db.Record(t.Context(), queue[:n]) {
			if err != nil {
				t.Error(err)
				return
			}
		}
		queue = queue[n:]
	}
}
