package queue

import (
	"math/rand/v2"
	"testing"
)

// TestQueueKeepsOrder: with batches of any size, each item is taken once, in
// the order of Push.
func TestQueueKeepsOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for range 100 {
		q := New[int](1 + r.IntN(9))
		var batch []int
		pushed, taken := 0, 0
		for range 200 {
			for range r.IntN(12) {
				pushed++
				q.Push(pushed)
			}
			if pushed == taken {
				continue
			}
			var err error
			if batch, err = q.Dequeue(t.Context(), batch); err != nil {
				t.Fatal(err)
			}
			if len(batch) > q.most {
				t.Fatalf("%d taken at once, at most %d may be", len(batch), q.most)
			}
			for _, x := range batch {
				if taken++; x != taken {
					t.Fatalf("%d is taken as the %d.", x, taken)
				}
			}
		}
	}
}
