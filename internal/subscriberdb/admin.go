package subscriberdb

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/txn"
)

// recordWriter writes and deletes records that no event is about.
type recordWriter struct {
	*shared
	txns *txn.Engine
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
	tx := &txn.Txn{Group: g.txns, Inside: r.Inside, Decider: txn.DecideFunc(func(v subscriber.View) subscriber.Decision {
		return subscriber.DecidePut(v.Holder, r)
	})}
	w.txns.Run(ctx, []*txn.Txn{tx})
	if tx.Err != nil {
		return r, fmt.Errorf("put record %v: %w", r.Inside, tx.Err)
	}
	return *tx.Decision.Put, nil
}

// Delete deletes the records of the keys and remembers that their sessions
// ended. It returns the records that it deleted; a key without a record is no
// error. On error some may be deleted.
func (w *recordWriter) Delete(ctx context.Context, keys []subscriber.Key, why subscriber.Reason) ([]subscriber.Record, error) {
	txns := make([]*txn.Txn, 0, len(keys))
	for _, key := range keys {
		g, err := w.group(key.Group)
		if err != nil {
			return nil, err
		}
		tx := endTxn(g, key, func(*subscriber.Record) bool { return true }, why, w.now().UTC())
		txns = append(txns, &tx)
	}
	return w.endAll(ctx, txns)
}

// endStep deletes the record at a key if it is one of those meant.
func endTxn(g *Group, key subscriber.Key, meant func(*subscriber.Record) bool, why subscriber.Reason, at time.Time) txn.Txn {
	decide := func(v subscriber.View) subscriber.Decision {
		if v.Holder == nil || !meant(v.Holder) {
			return subscriber.Decision{}
		}
		return subscriber.Decision{Delete: []subscriber.Ending{subscriber.NewEnding(*v.Holder, why, at)}}
	}
	return txn.Txn{Group: g.txns, Inside: key.Inside.Unmap(), Decider: txn.DecideFunc(decide)}
}

// endBatch bounds the deletions of one pipeline, so that accounting gets its turn, and
// so do readers of the feed that are behind.
const endBatch = 512

// endWorkers is how many batches are on their way: while Redis carries out one, the
// records of the other are looked at.
const endWorkers = txn.MaxTrips

// endAll performs the transactions, independent of each other, and returns the records that
// they ended. On error some may have ended.
func (w *recordWriter) endAll(ctx context.Context, txns []*txn.Txn) ([]subscriber.Record, error) {
	workers, ctx := errgroup.WithContext(ctx)
	workers.SetLimit(endWorkers)
	for batch := range slices.Chunk(txns, endBatch) {
		workers.Go(func() error { return w.endInTurn(ctx, batch) })
	}
	err := workers.Wait()
	n := 0
	for range endingsOf(txns) {
		n++
	}
	ended := make([]subscriber.Record, 0, n)
	for e := range endingsOf(txns) {
		ended = append(ended, e.Record)
	}
	return ended, err
}

// endingsOf yields the records that the transactions have ended.
func endingsOf(txns []*txn.Txn) iter.Seq[*subscriber.Ending] {
	return func(yield func(*subscriber.Ending) bool) {
		for _, tx := range txns {
			if tx.Err != nil {
				continue
			}
			for i := range tx.Decision.Delete {
				if !yield(&tx.Decision.Delete[i]) {
					return
				}
			}
		}
	}
}

// endInTurn performs transactions of one group, once the readers of its feed are not too far
// behind.
func (w *recordWriter) endInTurn(ctx context.Context, txns []*txn.Txn) error {
	w.feed.awaitReaders(ctx, txns[0].Group.Name)
	if ctx.Err() != nil { // a batch before this one failed
		return ctx.Err()
	}
	w.txns.Run(ctx, txns)
	return failed(txns)
}

// failed returns the first error of the transactions.
func failed(txns []*txn.Txn) error {
	for _, tx := range txns {
		if tx.Err != nil {
			return fmt.Errorf("delete record %v: %w", tx.Inside, tx.Err)
		}
	}
	return nil
}

// performAll performs transactions in batches, and returns the first error.
func (w *recordWriter) performAll(ctx context.Context, txns []*txn.Txn) error {
	for len(txns) > 0 {
		batch := txns[:min(endBatch, len(txns))]
		txns = txns[len(batch):]
		w.txns.Run(ctx, batch)
		for _, tx := range batch {
			if tx.Err != nil {
				return fmt.Errorf("record %v: %w", tx.Inside, tx.Err)
			}
		}
	}
	return nil
}
