package acctload

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// Run executes a scenario and returns its measurements. It first brings the
// scenario's initial subscribers online, then takes the warm-up and the
// duration, and then waits for outstanding requests. If ctx ends first, it
// returns the context's error; if the server answers nothing, ErrSilent.
func Run(ctx context.Context, o Options) (*Result, error) {
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("acctload: %w", err)
	}
	sockets, err := dialAll(ctx, &o)
	if err != nil {
		return nil, err
	}
	result, err := runLanes(ctx, &o, sockets)
	return result, errors.Join(err, closeAll(sockets))
}

func dialAll(ctx context.Context, o *Options) ([]*socket, error) {
	var sockets []*socket
	for range o.Sockets {
		s, err := dial(ctx, o.Server, o.Source)
		if err != nil {
			return nil, errors.Join(err, closeAll(sockets))
		}
		sockets = append(sockets, s)
	}
	return sockets, nil
}

func closeAll(sockets []*socket) error {
	var errs []error
	for _, s := range sockets {
		errs = append(errs, s.close())
	}
	return errors.Join(errs...)
}

// runLanes prepares every lane, and then starts all at the same moment.
func runLanes(ctx context.Context, o *Options, sockets []*socket) (*Result, error) {
	var (
		epoch = time.Now()
		run   = rand.Uint32()
		heard atomic.Bool
		tasks *errgroup.Group
		line  = newStartLine(len(sockets), epoch)
	)
	tallies := make([]*tally, len(sockets))
	tasks, ctx = errgroup.WithContext(ctx)
	for i, s := range sockets {
		l := newLane(o, i, run, epoch, s, &heard)
		tallies[i] = &l.tally
		tasks.Go(func() error {
			return l.perform(ctx, i, line)
		})
	}
	if err := tasks.Wait(); err != nil {
		return nil, err
	}
	return merge(tallies), nil
}

// perform executes the scenario of one lane.
func (l *lane) perform(ctx context.Context, i int, line *startLine) error {
	if l.options.Scenario != Flood {
		if err := l.prepare(ctx); err != nil {
			return err
		}
	}
	from, err := line.await(ctx)
	switch {
	case err != nil:
		return err
	case l.options.Scenario == Flood:
		return l.flood(ctx, i, from)
	}
	return l.measure(ctx, i, from)
}

// A startLine lets lanes begin together.
type startLine struct {
	epoch time.Time
	open  chan struct{}

	mu      sync.Mutex
	missing int
	from    time.Duration // set before open is closed
}

func newStartLine(lanes int, epoch time.Time) *startLine {
	return &startLine{epoch: epoch, open: make(chan struct{}), missing: lanes}
}

// await returns the common start time once all lanes have called it.
func (s *startLine) await(ctx context.Context) (time.Duration, error) {
	s.mu.Lock()
	if s.missing--; s.missing == 0 {
		s.from = time.Since(s.epoch)
		close(s.open)
	}
	s.mu.Unlock()
	select {
	case <-s.open:
		return s.from, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}
