package acctload

import (
	"context"
	"time"

	"github.com/sessiond/sessiond/internal/clock"
)

// floodSlice is the least time between two bursts of a flood.
const floodSlice = time.Millisecond

// flood sends requests at the pace, from a time on, and ignores replies. Its
// effect is measured elsewhere, on a client that behaves.
func (l *lane) flood(ctx context.Context, i int, from time.Duration) error {
	l.tally.began = from + l.options.Warmup
	l.tally.ends = l.tally.began + l.options.Duration
	l.pace, l.stop = paceOf(l.options, i, from, l.random), l.tally.ends
	everybody := rounds{population: l.population, kind: KindStart, count: len(l.population.subscribers)}
	for {
		now := l.now()
		due := l.pace.due(now, 0)
		for n := 0; n < identifiers && due <= now && due < l.stop; n++ {
			l.hurl(&everybody, due, now)
			l.pace.took()
			due = l.pace.due(now, 0)
		}
		if err := l.flush(); err != nil {
			return err
		}
		if due >= l.stop {
			return nil
		}
		if err := sleep(ctx, due-l.now()); err != nil {
			return err
		}
	}
}

// hurl sends one request and forgets it.
func (l *lane) hurl(everybody *rounds, due, now time.Duration) {
	kind, subscriber, _ := everybody.next(turn{})
	l.window.release(l.begin(kind, subscriber, due, now))
	l.population.settle(kind, subscriber, true)
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	return clock.Sleep(ctx, max(d, floodSlice))
}
