package subscriberdb

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/testenv"
)

// TestAckedIsDurable_I2 kills Redis (appendfsync always) with SIGKILL at random moments
// under load, again and again: afterwards every acknowledged Start exists, every
// acknowledged Stop took effect, and the feed agrees.
func TestAckedIsDurable_I2(t *testing.T) {
	server := testenv.StartRedis(t, "--appendonly", "yes", "--appendfsync", "always")
	kills := 40
	if testing.Short() {
		kills = 4
	}
	rng := rand.New(rand.NewPCG(1, 13))
	whole := func(o *Options) { o.FeedLength = 1_000_000 } // the test replays it from its beginning
	dbs := []*DB{newDB(t, impatient(t, server.URL), whole), newDB(t, impatient(t, server.URL), whole)}
	var clients []*nas
	for i := range 4 {
		clients = append(clients, &nas{db: dbs[i%2], number: i, rng: rand.New(rand.NewPCG(uint64(i), 14)), fate: map[netip.Addr]fate{}})
	}
	for range kills {
		killUnderLoad(t, rng, server, clients)
		server.Start(t)
		answers(t, dbs...)
		there := everyone(t, dbs[0])
		for _, c := range clients {
			c.check(t, there)
		}
		if t.Failed() {
			return
		}
	}
	// If Redis 7.0 is killed while it writes a transaction that it did not acknowledge, it
	// may execute the beginning of it at the start after the next.
	differs := replay(t, dbs[0], everyone(t, dbs[0]))
	server.Kill()
	if differs != "" && !server.Printed("Truncating the AOF") {
		t.Error(differs)
	}
}

// impatient returns a client that does not retry.
func impatient(t *testing.T, url string) redis.UniversalClient {
	t.Helper()
	o, err := redis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	o.MaxRetries, o.DialerRetries = -1, 1
	client := redis.NewClient(o)
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// killUnderLoad runs the clients until a random number of events was acknowledged, kills
// Redis, and waits for the clients to give up.
func killUnderLoad(t *testing.T, rng *rand.Rand, server *testenv.RedisServer, clients []*nas) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var acked atomic.Int64
	enough := make(chan struct{})
	target := int64(1 + rng.IntN(400))
	var wg sync.WaitGroup
	var once sync.Once
	for _, c := range clients {
		wg.Go(func() {
			for c.batch(ctx, &acked) {
				if acked.Load() >= target {
					once.Do(func() { close(enough) })
				}
			}
		})
	}
	select {
	case <-enough:
	case <-ctx.Done():
		t.Error("the load does not get through")
	}
	server.Kill()
	wg.Wait()
}

// fate is the expected state of an address's session.
type fate struct {
	id      string
	online  bool // by the last event that was acknowledged
	unknown bool // an event since then was not acknowledged
}

// nas starts and stops sessions on its own addresses.
type nas struct {
	db     *DB
	number int
	rng    *rand.Rand
	fate   map[netip.Addr]fate
	events int
}

// batch records a batch, and reports whether Redis acknowledged any of it.
func (n *nas) batch(ctx context.Context, acked *atomic.Int64) bool {
	events := make([]subscriber.Event, 0, 12)
	for range cap(events) {
		n.events++
		a := netip.AddrFrom4([4]byte{100, 64, byte(n.number), byte(n.rng.IntN(200))})
		f := n.fate[a]
		after := time.Duration(n.events) * time.Minute
		if f.id == "" || !f.online || f.unknown {
			f = fate{id: fmt.Sprintf("%d.%d", n.number, n.events)}
			events = append(events, start(f.id, a, after))
		} else {
			events = append(events, stop(f.id, a, after))
		}
		f.unknown = true
		n.fate[a] = f
	}
	took := false
	for i, err := range n.db.Record(ctx, events) {
		ev := &events[i]
		if err == nil {
			took = true
			acked.Add(1)
		}
		if f := n.fate[ev.Inside]; f.id == ev.AcctSessionID {
			n.fate[ev.Inside] = fate{id: f.id, online: ev.Kind == subscriber.EventStart, unknown: err != nil}
		}
	}
	return took && ctx.Err() == nil
}

func (n *nas) check(t *testing.T, there map[netip.Addr]string) {
	t.Helper()
	for a, f := range n.fate {
		if f.unknown {
			continue
		}
		if online := there[a] == f.id; online != f.online {
			t.Errorf("%v: session %s: online %v, acknowledged %v; there is %q", a, f.id, online, f.online, there[a])
		}
	}
}

func everyone(t *testing.T, db *DB) map[netip.Addr]string {
	t.Helper()
	there := map[netip.Addr]string{}
	err := db.Records(t.Context(), "default", func(batch []subscriber.Record) error {
		for _, r := range batch {
			there[r.Inside] = r.AcctSessionID
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return there
}
