package speed

import (
	"context"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"layeh.com/radius/rfc2866"

	"github.com/sessiond/sessiond/internal/acctload"
	"github.com/sessiond/sessiond/internal/rig"
)

// BenchmarkFirstPacket_SES24 measures the time from the answer to a subscriber's Start
// until its first packet reaches the internet, while 1,000 others a second start too.
func BenchmarkFirstPacket_SES24(b *testing.B) {
	w := start(b)
	var delays []time.Duration
	for b.Loop() {
		delays = w.firstPackets(b)
	}
	report(b, delays)
}

func (w *world) firstPackets(b *testing.B) []time.Duration {
	ctx := within(b, time.Minute)
	tasks, working := errgroup.WithContext(ctx)
	crowded, over := context.WithCancel(working)
	tasks.Go(func() error { return w.crowd(crowded) })
	var mu sync.Mutex
	var delays []time.Duration
	for i := range sampled {
		tasks.Go(func() error {
			d, err := w.firstPacket(working, i)
			mu.Lock()
			defer mu.Unlock()
			delays = append(delays, d)
			if len(delays) == sampled {
				over()
			}
			return err
		})
	}
	if err := tasks.Wait(); err != nil {
		b.Fatal(err)
	}
	over()
	return delays
}

// crowd starts other subscribers until ctx ends.
func (w *world) crowd(ctx context.Context) error {
	_, err := acctload.Run(ctx, acctload.Options{
		Server: netip.MustParseAddrPort(w.Daemon.RADIUS), Secret: []byte(rig.Secret), NAS: "crowd",
		Scenario: acctload.Start, Inside: netip.MustParsePrefix("100.65.0.0/16"), Rate: 1000, Duration: time.Minute,
	})
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// firstPacket starts the subscriber at a time of its own, and measures.
func (w *world) firstPacket(ctx context.Context, i int) (time.Duration, error) {
	select {
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-time.After(time.Second + time.Duration(i)*10*time.Millisecond):
	}
	speaking, hush := context.WithCancel(ctx)
	defer hush()
	voice := make(chan error, 1)
	go func() { voice <- w.speak(speaking, i, time.Millisecond) }()
	if err := w.Report(ctx, rfc2866.AcctStatusType_Value_Start, sessionOf(i)); err != nil {
		return 0, err
	}
	answered := time.Now()
	if err := w.ears.await(ctx, i); err != nil {
		return 0, err
	}
	hush()
	return max(0, w.ears.of(i).first.Sub(answered)), <-voice
}
