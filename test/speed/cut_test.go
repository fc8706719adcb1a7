package speed

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/conntrack"
	"github.com/sessiond/sessiond/internal/conntrack/conntracktest"
)

// silence is the time without a packet after which a flow counts as stopped.
const silence = 100 * time.Millisecond

// BenchmarkCut measures the time from the deletion of a subscriber's record until its last
// packet reaches the internet, by size of the conntrack table. The deletion counts from
// when it is sent.
func BenchmarkCut(b *testing.B) {
	for _, entries := range []int{0, 500_000} {
		for _, way := range []string{"stop", "del"} {
			b.Run(fmt.Sprintf("%s/entries=%d", way, entries), func(b *testing.B) {
				w := start(b)
				w.fill(b, entries)
				var delays []time.Duration
				for b.Loop() {
					delays = w.cuts(b, way)
				}
				report(b, delays)
			})
		}
	}
}

// fill makes conntrack entries of other subscribers.
func (w *world) fill(b *testing.B, entries int) {
	makeRoom(b, entries)
	remote := netip.MustParseAddr("203.0.113.20")
	for s := range entries / 100 {
		inside := netip.AddrFrom4([4]byte{100, 66, byte(s >> 8), byte(s)})
		outside := netip.AddrFrom4([4]byte{198, 18, byte(s >> 8), byte(s)})
		batch := make([]conntrack.Entry, 100)
		for i := range batch {
			batch[i] = conntracktest.Outbound(
				netip.AddrPortFrom(inside, uint16(2000+i)), netip.AddrPortFrom(outside, uint16(2000+i)), netip.AddrPortFrom(remote, 443))
		}
		conntracktest.Inject(b, w.Lab.CGN.Path(), batch)
	}
}

// makeRoom lets tables have so many entries and some more, until the benchmark is over. All
// namespaces share the limit.
func makeRoom(b *testing.B, entries int) {
	const limit = "/proc/sys/net/netfilter/nf_conntrack_max"
	text, err := os.ReadFile(limit)
	if err != nil {
		b.Fatal(err)
	}
	before, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		b.Fatal(err)
	}
	need := entries + 100_000
	if before == 0 || before >= need { // 0: no limit
		return
	}
	if err := os.WriteFile(limit, []byte(strconv.Itoa(need)), 0o644); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := os.WriteFile(limit, text, 0o644); err != nil {
			b.Error(err)
		}
	})
}

// cuts ends one subscriber after the other.
func (w *world) cuts(b *testing.B, way string) []time.Duration {
	client := redis.NewClient(&redis.Options{Network: "unix", Addr: w.Redis.Socket})
	defer client.Close()
	ctx := within(b, 5*time.Minute)
	delays := make([]time.Duration, sampled)
	for i := range delays {
		var err error
		if delays[i], err = w.cut(ctx, i, func() error {
			if way == "stop" {
				return w.Offline(ctx, sessionOf(i))
			}
			return client.Del(ctx, "sessiond:{default}:sub:"+subscriber(i).String()).Err()
		}); err != nil {
			b.Fatal(err)
		}
	}
	return delays
}

// cut brings a subscriber online, has it send, ends it, and measures the time until its
// last packet.
func (w *world) cut(ctx context.Context, i int, end func() error) (time.Duration, error) {
	if _, err := w.Online(ctx, sessionOf(i)); err != nil {
		return 0, err
	}
	speaking, hush := context.WithCancel(ctx)
	defer hush()
	voice := make(chan error, 1)
	go func() { voice <- w.speak(speaking, i, 250*time.Microsecond) }()
	if err := w.ears.await(ctx, i); err != nil {
		return 0, err
	}
	began := time.Now()
	if err := end(); err != nil {
		return 0, err
	}
	if err := w.quiet(ctx, i); err != nil {
		return 0, err
	}
	hush()
	return max(0, w.ears.of(i).last.Sub(began)), <-voice
}

// quiet waits until a subscriber has not been heard for the time silence.
func (w *world) quiet(ctx context.Context, i int) error {
	return w.Until(ctx, "the flow to stop", func() (bool, error) {
		return time.Since(w.ears.of(i).last) > silence, nil
	})
}
