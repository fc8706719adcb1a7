package txn

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
)

// tripLog records the trips of a committer, each of which lasts until the test releases it.
type tripLog struct {
	mu    sync.Mutex
	sizes []int
	ctxs  []context.Context
	letGo chan struct{}
}

func (tr *tripLog) trip(ctx context.Context, txns []*Txn) {
	tr.mu.Lock()
	tr.sizes, tr.ctxs = append(tr.sizes, len(txns)), append(tr.ctxs, ctx)
	tr.mu.Unlock()
	<-tr.letGo
}

// submitters starts one caller after the other with the given numbers of transactions, and
// returns a wait group for them.
func submitters(ctx context.Context, c *committer, sizes ...int) *sync.WaitGroup {
	var done sync.WaitGroup
	for _, n := range sizes {
		done.Go(func() { c.submit(ctx, make([]*Txn, n)) })
		synctest.Wait()
	}
	return &done
}

// TestGroupCommit: while the allowed trips are under way, callers wait, and then share one;
// only a single caller's own transactions may exceed the limit of a trip.
func TestGroupCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := tripLog{letGo: make(chan struct{})}
		c := committer{trip: tr.trip}
		done := submitters(t.Context(), &c, 1, 2, 3, 4, 5, tripLimit, tripLimit+1, 6)
		if len(tr.sizes) != MaxTrips {
			t.Fatalf("%d trips at once, want %d", len(tr.sizes), MaxTrips)
		}
		close(tr.letGo)
		done.Wait()
		want := []int{1, 2, 3 + 4 + 5, tripLimit, tripLimit + 1, 6}
		if len(tr.sizes) != len(want) {
			t.Fatalf("trips %v, want %v", tr.sizes, want)
		}
		left := map[int]int{}
		for i := range want {
			left[want[i]]++
			left[tr.sizes[i]]--
		}
		for size, n := range left {
			if n != 0 {
				t.Errorf("trips %v, want %v: %d", tr.sizes, want, size)
			}
		}
		if c.running != 0 || len(c.waiting) != 0 {
			t.Errorf("%d run, %d wait", c.running, len(c.waiting))
		}
	})
}

// TestSharedTripHeedsNobody: a caller whose context ends does not end a shared trip, but
// does end a trip of its own.
func TestSharedTripHeedsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := tripLog{letGo: make(chan struct{})}
		c := committer{trip: tr.trip}
		ctx, cancel := context.WithCancel(t.Context())
		done := submitters(ctx, &c, 1, 2, 3, 4)
		tr.letGo <- struct{}{}
		synctest.Wait()
		cancel()
		if tr.ctxs[0].Err() == nil {
			t.Error("its own trip goes on")
		}
		if tr.sizes[2] != 3+4 || tr.ctxs[2].Err() != nil {
			t.Errorf("the trip with %d transactions ended with one of its callers", tr.sizes[2])
		}
		close(tr.letGo)
		done.Wait()
	})
}
