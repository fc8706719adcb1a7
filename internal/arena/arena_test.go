package arena_test

import (
	"testing"

	"github.com/sessiond/sessiond/internal/arena"
)

func TestNumbers(t *testing.T) {
	for _, bits := range []uint8{0, 1, 3} {
		a := arena.New[int](bits)
		for range a.All() {
			t.Errorf("bits %d: an empty arena has a value", bits)
		}
		var places []*int
		for want := uint32(1); want <= 100; want++ {
			if got := a.Add(); got != want {
				t.Fatalf("bits %d: number %d, want %d", bits, got, want)
			}
			if *a.At(want) != 0 {
				t.Fatalf("bits %d: number %d is %d when it is new", bits, want, *a.At(want))
			}
			*a.At(want) = int(want)
			places = append(places, a.At(want))
		}
		if a.Len() != 100 {
			t.Errorf("bits %d: %d values", bits, a.Len())
		}
		seen := 0
		for i, v := range a.All() {
			if seen++; *v != int(i) || v != places[i-1] {
				t.Errorf("bits %d: number %d is %d, or was moved", bits, i, *v)
			}
			if i == 90 {
				break
			}
		}
		if seen != 90 {
			t.Errorf("bits %d: %d values were yielded", bits, seen)
		}
	}
}

// BenchmarkAt measures the access to values in a row.
func BenchmarkAt(b *testing.B) {
	a := arena.New[[5]uint64](12)
	for range 1 << 16 {
		a.Add()
	}
	sum := uint64(0)
	for i := uint32(1); b.Loop(); i++ {
		sum += a.At(1 + i&(1<<16-1))[0]
	}
	if sum != 0 {
		b.Error(sum)
	}
}
