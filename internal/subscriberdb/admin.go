package subscriberdb

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// recordWriter writes and deletes records that no event is about.
type recordWriter struct {
	*shared
	txns *txnEngine
	feed *changeFeed
}

// Put writes a record by hand: it creates the record at its address, updates
// the same subscriber's, or takes the address over from another. StartedAt and
// UpdatedAt default to now. A record without an accounting session does not
// expire unless ExpiresAt says so. It returns the record as it now stands, or
// ErrNoGroup.
func (w *recordWriter) Put(ctx context.Context, r subscriber.Record) (subscriber.Record, error) {
	g, err := w.group(r.Group)
	if err != nil {
		return r, err
	}
	r.Inside = r.Inside.Unmap()
	r.StartedAt, r.ExpiresAt = r.StartedAt.UTC(), r.ExpiresAt.UTC()
	if at := w.inForce().of(r.Inside); at == nil || at.Name != g.Name {
		return r, fmt.Errorf("address %v is not of group %q: %w", r.Inside, g.Name, ErrNoGroup)
	}
	r.UpdatedAt, r.RemovalHeld = w.now().UTC(), subscriber.ReasonNone // a person vouches for it
	if r.StartedAt.IsZero() {
		r.StartedAt = r.UpdatedAt
	}
	s := &step{group: g, inside: r.Inside, decider: decideFunc(func(v subscriber.View) subscriber.Decision {
		return subscriber.DecidePut(v.Holder, r)
	})}
	w.txns.perform(ctx, []*step{s})
	if s.err != nil {
		return r, fmt.Errorf("put record %v: %w", r.Inside, s.err)
	}
	return *s.decision.Put, nil
}

// Delete deletes the records of the keys and remembers that their sessions
// ended. It returns the records that it deleted; a key without a record is no
// error. On error some may be deleted.
func (w *recordWriter) Delete(ctx context.Context, keys []subscriber.Key, why subscriber.Reason) ([]subscriber.Record, error) {
	steps := make([]*step, 0, len(keys))
	for _, key := range keys {
		g, err := w.group(key.Group)
		if err != nil {
			return nil, err
		}
		s := endStep(g, key, func(*subscriber.Record) bool { return true }, why, w.now().UTC())
		steps = append(steps, &s)
	}
	return w.endAll(ctx, steps)
}

// endStep deletes the record at a key if it is one of those meant.
func endStep(g *Group, key subscriber.Key, meant func(*subscriber.Record) bool, why subscriber.Reason, at time.Time) step {
	decide := func(v subscriber.View) subscriber.Decision {
		if v.Holder == nil || !meant(v.Holder) {
			return subscriber.Decision{}
		}
		return subscriber.Decision{Delete: []subscriber.Ending{subscriber.NewEnding(*v.Holder, why, at)}}
	}
	return step{group: g, inside: key.Inside.Unmap(), decider: decideFunc(decide)}
}

// endBatch bounds the deletions of one pipeline, so that accounting gets its turn, and
// so do readers of the feed that are behind.
const endBatch = 512

// endWorkers is how many batches are on their way: while Redis carries out one, the
// records of the other are looked at.
const endWorkers = maxTrips

// endAll performs the steps, independent of each other, and returns the records that
// they ended. On error some may have ended.
func (w *recordWriter) endAll(ctx context.Context, steps []*step) ([]subscriber.Record, error) {
	workers, ctx := errgroup.WithContext(ctx)
	workers.SetLimit(endWorkers)
	for batch := range slices.Chunk(steps, endBatch) {
		workers.Go(func() error { return w.endInTurn(ctx, batch) })
	}
	err := workers.Wait()
	n := 0
	for range endingsOf(steps) {
		n++
	}
	ended := make([]subscriber.Record, 0, n)
	for e := range endingsOf(steps) {
		ended = append(ended, e.Record)
	}
	return ended, err
}

// endingsOf yields what the steps that were performed have ended.
func endingsOf(steps []*step) iter.Seq[*subscriber.Ending] {
	return func(yield func(*subscriber.Ending) bool) {
		for _, s := range steps {
			if s.err != nil {
				continue
			}
			for i := range s.decision.Delete {
				if !yield(&s.decision.Delete[i]) {
					return
				}
			}
		}
	}
}

// endInTurn performs steps of one group, once the readers of its feed are not too far
// behind.
func (w *recordWriter) endInTurn(ctx context.Context, steps []*step) error {
	w.feed.awaitReaders(ctx, steps[0].group.Name)
	if ctx.Err() != nil { // a batch before this one failed
		return ctx.Err()
	}
	w.txns.perform(ctx, steps)
	return failed(steps)
}

// failed returns the first error of the steps.
func failed(steps []*step) error {
	for _, s := range steps {
		if s.err != nil {
			return fmt.Errorf("delete record %v: %w", s.inside, s.err)
		}
	}
	return nil
}

// performAll performs steps in batches, and returns the first error.
func (w *recordWriter) performAll(ctx context.Context, steps []*step) error {
	for len(steps) > 0 {
		batch := steps[:min(endBatch, len(steps))]
		steps = steps[len(batch):]
		w.txns.perform(ctx, batch)
		for _, s := range batch {
			if s.err != nil {
				return fmt.Errorf("record %v: %w", s.inside, s.err)
			}
		}
	}
	return nil
}
