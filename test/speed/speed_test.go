// Package speed measures the whole of sessiond from the subscribers' view: real program,
// Redis, kernel and packets, and clocks outside the daemon. It has benchmarks only; `make
// bench` compares them with their limits.
package speed

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/rig"
	"github.com/sessiond/sessiond/internal/testenv"
)

// sampled is the number of subscribers that a benchmark measures.
const sampled = 200

var programs *rig.Programs

func TestMain(m *testing.M) {
	os.Exit(rig.Main(m, &programs))
}

// world is a rig whose subscriber host has an address for each measured subscriber, and
// whose internet host records when it hears of each.
type world struct {
	*rig.Rig
	ears *ears
}

func start(b *testing.B) *world {
	b.Helper()
	testenv.Require(b, testenv.Root|testenv.Redis|testenv.Nft|testenv.Conntrack)
	o := rig.Options{
		Sessiond: programs.Sessiond, Sessionctl: programs.Sessionctl, BlockSize: 64,
		Guard: "removed: 100%", // the benchmark ends subscribers one after the other
		Lab:   netlab.Options{Pool: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}},
	}
	for i := range sampled {
		o.Lab.Subscribers = append(o.Lab.Subscribers, subscriber(i))
	}
	r, err := rig.Start(b.Context(), o)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := r.Close(); err != nil {
			b.Error(err)
		}
	})
	w := &world{Rig: r}
	if w.ears, err = listen(r.Lab); err != nil {
		b.Fatal(err)
	}
	r.Lab.Own(w.ears)
	return w
}

func subscriber(i int) netip.Addr { return netip.AddrFrom4([4]byte{100, 64, 1, byte(i)}) }

func sessionOf(i int) rig.Session {
	return rig.Session{ID: fmt.Sprintf("speed-%d", i), User: fmt.Sprintf("user-%d", i), Inside: subscriber(i)}
}

// report reports the 50th and 99th percentiles of the samples.
func report(b *testing.B, samples []time.Duration) {
	slices.Sort(samples)
	for _, p := range []int{50, 99} {
		i := min(len(samples)*p/100, len(samples)-1)
		b.ReportMetric(float64(samples[i].Microseconds())/1000, fmt.Sprintf("p%d-ms", p))
	}
}

func within(b *testing.B, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(b.Context(), d)
	b.Cleanup(cancel)
	return ctx
}
