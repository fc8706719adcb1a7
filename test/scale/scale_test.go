package scale

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/rig"
	"github.com/sessiond/sessiond/internal/testenv"
)

// sizesVariable names the sizes, separated by spaces; the smallest comes first.
const (
	sizesVariable = "SCALE"
	usualSizes    = "100000 1000000"
)

const needs = testenv.Root | testenv.Redis | testenv.Nft | testenv.Conntrack

var programs *rig.Programs

func TestMain(m *testing.M) {
	// The prober must not wait for a P of Go's scheduler while load is generated.
	runtime.GOMAXPROCS(max(8, runtime.GOMAXPROCS(0)))
	os.Exit(rig.Main(m, &programs))
}

// BenchmarkScale prints the costs of each size, and the growth from the smallest to the
// largest. It fails on errors; a missed limit is only printed.
func BenchmarkScale(b *testing.B) {
	testenv.Require(b, needs)
	sizes, err := sizesOf(os.Getenv(sizesVariable))
	if err != nil {
		b.Fatal(err)
	}
	var results []*result
	for b.Loop() {
		results = nil
		for _, n := range sizes {
			results = append(results, run(b.Context(), n, time.Minute, os.Stdout))
		}
	}
	fmt.Print(tableOf(results))
	for _, r := range results {
		for _, fault := range r.faults() {
			b.Error(fault)
		}
	}
}

// TestSmall runs all phases of the benchmark, with few subscribers.
func TestSmall(t *testing.T) {
	testenv.Require(t, needs)
	r := run(t.Context(), 2000, 100*time.Millisecond, t.Output())
	for _, fault := range r.faults() {
		t.Error(fault)
	}
	for _, row := range rows {
		if _, ok := r.costs[row.cost]; !ok {
			t.Errorf("no figure for %q", row.cost)
		}
	}
	t.Log("\n" + tableOf([]*result{r}))
}

func sizesOf(text string) ([]int, error) {
	if text == "" {
		text = usualSizes
	}
	var sizes []int
	for word := range strings.FieldsSeq(text) {
		n, err := strconv.Atoi(word)
		if err != nil || n < fewest || n > most {
			return nil, fmt.Errorf("%s: %q is no number from %d to %d", sizesVariable, word, fewest, most)
		}
		sizes = append(sizes, n)
	}
	return sizes, nil
}
