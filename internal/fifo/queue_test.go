package fifo_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/sessiond/sessiond/internal/fifo"
)

// TestRandomWalk compares a queue with a slice.
func TestRandomWalk(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 0))
		q := fifo.From([]int{-1, -2})
		model := []int{-1, -2}
		for step := range 2000 {
			switch n := r.IntN(100); {
			case n < 45+int(seed)/2:
				q.Push(step)
				model = append(model, step)
			case n < 97 && len(model) > 0:
				if front := *q.Front(); front != model[0] {
					t.Fatalf("seed %d, step %d: %d is in front, want %d", seed, step, front, model[0])
				}
				if got := q.Pop(); got != model[0] {
					t.Fatalf("seed %d, step %d: %d came, want %d", seed, step, got, model[0])
				}
				model = model[1:]
			case n == 99:
				odd := func(x int) bool { return x%2 != 0 }
				q.DeleteFunc(odd)
				model = slices.DeleteFunc(model, odd)
			}
			if !slices.Equal(q.All(), model) || q.Len() != len(model) {
				t.Fatalf("seed %d, step %d: %v, want %v", seed, step, q.All(), model)
			}
		}
	}
}

func TestNoGarbage(t *testing.T) {
	var q fifo.Queue[*int]
	for range 100 {
		q.Push(new(int))
	}
	if n := testing.AllocsPerRun(1000, func() { q.Push(q.Pop()) }); n != 0 {
		t.Errorf("%v allocations an item that comes and goes", n)
	}
}
