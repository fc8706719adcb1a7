package faults

import (
	"slices"
	"testing"
)

// TestSameSeedSameRounds: the same seed draws the same rounds, so that they can be
// replayed.
func TestSameSeedSameRounds(t *testing.T) {
	history := func(seed uint64) []string {
		w := newPlan(seed)
		w.model.crowd(w.model.sparse())
		for number := range 50 {
			w.draw(number)
		}
		return w.history
	}
	if a, b := history(7), history(7); !slices.Equal(a, b) {
		t.Errorf("the same seed drew\n%q\nand\n%q", a, b)
	}
	if slices.Equal(history(7), history(8)) {
		t.Error("different seeds drew the same")
	}
}
