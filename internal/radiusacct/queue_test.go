package radiusacct

import (
	"math/rand/v2"
	"sync"
	"testing"
)

func TestFifoWalk(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var f fifo[int]
	var model []int
	for i := range 10_000 {
		if r.IntN(100) < 55 && len(model) < 1000 {
			f.push(i)
			model = append(model, i)
		} else if len(model) > 0 {
			if got := f.pop(); got != model[0] {
				t.Fatalf("popped %d, want %d", got, model[0])
			}
			model = model[1:]
		}
		if f.count != len(model) {
			t.Fatalf("count %d, want %d", f.count, len(model))
		}
	}
}

func TestQueueTakesTurns(t *testing.T) {
	q := newQueue(100)
	storm, calm := &peer{name: "storm", lanes: make([]lane, 1)}, &peer{name: "calm", lanes: make([]lane, 1)}
	for range 50 {
		q.put(&storm.lanes[0], &request{peer: storm}, false)
	}
	q.put(&calm.lanes[0], &request{peer: calm}, false)
	q.put(&calm.lanes[0], &request{peer: calm}, false)
	batch := q.take(make([]*request, 0, 4))
	var names []string
	for _, r := range batch {
		names = append(names, r.peer.name)
	}
	if len(names) != 4 || names[1] != "calm" || names[3] != "calm" {
		t.Errorf("batch is %v, want turns", names)
	}
}

func TestQueueBoundsEachClient(t *testing.T) {
	q := newQueue(3)
	lanes := make([]lane, 2)
	for i := range 5 {
		if ok := q.put(&lanes[0], &request{}, false); ok != (i < 3) {
			t.Errorf("put %d: %v", i, ok)
		}
	}
	if !q.put(&lanes[1], &request{}, false) {
		t.Error("one client's lane closed another's")
	}
}

// TestQueueKeepsOrder has several senders against one taker.
func TestQueueKeepsOrder(t *testing.T) {
	const senders, each = 4, 2000
	q := newQueue(each)
	lanes := make([]lane, senders)
	var sending sync.WaitGroup
	for s := range senders {
		sending.Go(func() {
			for i := range each {
				q.put(&lanes[s], &request{way: way{socket: s}, event: eventNumber(i)}, false)
			}
		})
	}
	go func() { sending.Wait(); q.close() }()

	next := make([]uint64, senders)
	for batch := q.take(make([]*request, 0, 64)); len(batch) > 0; batch = q.take(batch[:0]) {
		for _, r := range batch {
			if r.event.InputOctets != next[r.way.socket] {
				t.Fatalf("sender %d: request %d, want %d", r.way.socket, r.event.InputOctets, next[r.way.socket])
			}
			next[r.way.socket]++
		}
	}
	for s, n := range next {
		if n != each {
			t.Errorf("sender %d: %d requests taken, want %d", s, n, each)
		}
	}
}
