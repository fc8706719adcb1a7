package radiusacct

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sessiond/sessiond/internal/subscriber"
)

func eventNumber(i int) subscriber.Event {
	return subscriber.Event{Counters: subscriber.Counters{InputOctets: uint64(i)}}
}

func room(n int) *batch { return &batch{requests: make([]*request, 0, n)} }

// newRealmOfOne makes a client with one clientQueue.
func newRealmOfOne(name string) *realm {
	p := &realm{name: name, queues: make([]clientQueue, 1)}
	p.queues[0].realm = p
	return p
}

func fill(q *queue, p *realm, n int) {
	var all []*request
	for i := range n {
		all = append(all, &request{realm: p, event: eventNumber(i)})
	}
	q.putAll(all, 0)
}

func names(b *batch) (all []string) {
	for _, r := range b.requests {
		all = append(all, r.realm.name)
	}
	return all
}

// TestCalmClientsPassStorms_ACCT26 has a calm client behind two storms.
func TestCalmClientsPassStorms_ACCT26(t *testing.T) {
	q := newQueue(1000)
	one, two, calm := newRealmOfOne("one"), newRealmOfOne("two"), newRealmOfOne("calm")
	fill(q, one, 500)
	fill(q, two, 100)
	fill(q, calm, 2)
	first, storms := room(256), room(4)
	q.dequeueCalm(first)
	q.dequeueStorms(storms)
	if got := names(first); !slices.Equal(got, []string{"calm", "calm"}) {
		t.Errorf("first are %v, want the calm client's", got)
	}
	if got := names(storms); !slices.Equal(got, []string{"one", "two", "one", "two"}) {
		t.Errorf("storms are %v, want turns", got)
	}
	// During the storms' batch the calm client sends again.
	q.done(first)
	fill(q, calm, 1)
	if q.dequeueCalm(first); len(first.requests) != 1 {
		t.Errorf("%d requests, want the calm client's", len(first.requests))
	}
}

// TestStormEnds has a client whose storm is served bit by bit.
func TestStormEnds(t *testing.T) {
	q := newQueue(1000)
	p := newRealmOfOne("p")
	fill(q, p, stormLength+5)
	calm, storms := room(256), room(5)
	fill(q, newRealmOfOne("other"), 1)
	q.dequeueCalm(calm) // and finds that the first clientQueue has grown
	q.done(calm)
	q.dequeueStorms(storms)
	q.done(storms)
	if q.dequeueCalm(calm); len(calm.requests) != stormLength {
		t.Errorf("%d requests are left, want %d", len(calm.requests), stormLength)
	}
}

func TestQueueBoundsEachClient(t *testing.T) {
	q := newQueue(3)
	one, other := newRealmOfOne("one"), newRealmOfOne("other")
	var all []*request
	for range 5 {
		all = append(all, &request{realm: one})
	}
	if refused := q.putAll(append(all, &request{realm: other}), 0); !slices.Equal(refused, all[3:]) {
		t.Errorf("%d requests refused, want the last two of the client with five", len(refused))
	}
	q.dequeueCalm(room(1))
	if refused := q.putAll(all[3:], 0); len(refused) != 1 {
		t.Errorf("%d requests refused, want one for there was room for one", len(refused))
	}
	if one.waiting.Load() != 3 || other.waiting.Load() != 1 {
		t.Errorf("%d and %d are said to wait, want 3 and 1", one.waiting.Load(), other.waiting.Load())
	}
}

// TestQueueKeepsOrder has several senders against both workers.
func TestQueueKeepsOrder(t *testing.T) {
	const senders, each = 4, 2000
	q := newQueue(each)
	var sending, working sync.WaitGroup
	next := make(map[*realm]uint64)
	for range senders {
		p := newRealmOfOne("sender")
		next[p] = 0
		sending.Go(func() {
			for i := range each {
				q.put(&p.queues[0], &request{realm: p, event: eventNumber(i)})
			}
		})
	}
	var mu sync.Mutex // guards next; a batch is checked before done
	work := func(take func(*batch) bool) {
		for b := room(64); take(b); q.done(b) {
			mu.Lock()
			for _, r := range b.requests {
				if r.event.InputOctets != next[r.realm] {
					t.Errorf("request %d, want %d", r.event.InputOctets, next[r.realm])
				}
				next[r.realm]++
			}
			mu.Unlock()
		}
	}
	working.Go(func() { work(q.dequeueCalm) })
	working.Go(func() { work(q.dequeueStorms) })
	sending.Wait()
	q.close()
	working.Wait()
	for _, n := range next {
		if n != each {
			t.Errorf("%d requests taken, want %d", n, each)
		}
	}
}

func TestCompanyIsRemembered(t *testing.T) {
	var c fairness
	now := time.Unix(1_700_000_000, 0)
	storm, one, two := &realm{}, &realm{}, &realm{}
	if c.hasOther(storm, now) {
		t.Error("somebody is calm before anybody came")
	}
	c.note(storm, now)
	if c.hasOther(storm, now) {
		t.Error("a client has itself beside it")
	}
	storm.storm(now)
	another := &realm{}
	another.storm(now.Add(-quietTime / 2))
	c.note(another, now)
	if c.hasOther(storm, now) {
		t.Error("two storms hold each other back")
	}
	c.note(one, now)
	c.note(storm, now)
	if !c.hasOther(storm, now) || !c.hasOther(two, now) {
		t.Error("a calm client was forgotten at once")
	}
	if c.hasOther(storm, now.Add(quietTime)) {
		t.Error("a calm client that fell silent is still remembered")
	}
}

// TestStormsMakeWay_ACCT26 has storms that would otherwise work without a pause.
func TestStormsMakeWay_ACCT26(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c fairness
		began := time.Now()
		work := func() { time.Sleep(2 * time.Millisecond) } // the synctest bubble's time
		for range 10 {
			c.yieldToQuiet(context.Background(), work)
		}
		if took := time.Since(began); took != 40*time.Millisecond {
			t.Errorf("20 ms of work took %v, want as much again for others", took)
		}
		c.yieldToQuiet(context.Background(), func() { time.Sleep(time.Hour) })
		if took := time.Since(began) - 40*time.Millisecond; took != time.Hour+longestPause {
			t.Errorf("an hour of work took %v", took)
		}
	})
}
