package cpubarrier

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseCPUs(t *testing.T) {
	for text, want := range map[string]string{
		"0\n":       "[0] true",
		"0-3,8\n":   "[0 1 2 3 8] true",
		"":          "[] false",
		"3-1":       "[] false",
		"a":         "[] false",
		"0-9999999": "[] false",
	} {
		if cpus, ok := parseCPUs(text); fmt.Sprint(cpus, ok) != want {
			t.Errorf("%q: %v %t, want %s", text, cpus, ok, want)
		}
	}
}

// TestRunOnEveryCPU: every thread keeps its affinity and policy, and visit
// fails for processors that do not exist.
func TestRunOnEveryCPU(t *testing.T) {
	var before unix.CPUSet
	rank, err := unix.SchedGetAttr(0, 0)
	if err = errors.Join(err, unix.SchedGetaffinity(0, &before)); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		runOnEveryCPU()
	}
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, thread := range threads {
		var id int
		var now unix.CPUSet
		if _, err := fmt.Sscan(thread.Name(), &id); err != nil {
			t.Fatal(err)
		}
		if err := unix.SchedGetaffinity(id, &now); err == nil && now != before {
			t.Errorf("thread %d may run on %v, before on %v", id, now.Count(), before.Count())
		}
		if now, err := unix.SchedGetAttr(id, 0); err == nil && now.Policy != rank.Policy {
			t.Errorf("thread %d has policy %d, before %d", id, now.Policy, rank.Policy)
		}
	}
	if visit([]int{1 << 20}) || visit([]int{1023}) {
		t.Error("was on a processor that is not there")
	}
}

func BenchmarkWait(b *testing.B) {
	for b.Loop() {
		if err := Wait(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
