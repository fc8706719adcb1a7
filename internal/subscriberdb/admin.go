package subscriberdb

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sessiond/sessiond/internal/audit"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/txn"
)

// recordWriter writes and deletes records without an accounting event.
type recordWriter struct {
	*shared
	txns   *txn.Engine
	feed   *changeFeed
	orders *callerOrders
}

// run runs transactions, with audit entries if a caller orders them.
func (w *recordWriter) run(ctx context.Context, txns []*txn.Txn) {
	if audit.From(ctx) == nil {
		w.txns.Run(ctx, txns)
		return
	}
	w.txns.RunRecorded(ctx, txns, w.orders)
}

// Put writes a record for an operator: it creates the record at its address, updates the
// same subscriber's, or takes the address over from another subscriber. StartedAt and
// UpdatedAt default to now. A record without an accounting session does not expire unless
// ExpiresAt is set. With a Version the record at the address must have that, else ErrStale. Put
// returns the record as stored, or ErrNoGroup.
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
	r.UpdatedAt, r.RemovalHeld = w.now().UTC(), subscriber.ReasonNone // an operator confirms it by writing it
	if r.StartedAt.IsZero() {
		r.StartedAt = r.UpdatedAt
	}
	version := r.Version
	tx := &txn.Txn{Group: g.txns, Inside: r.Inside, Decider: txn.DecideFunc(func(v subscriber.View) subscriber.Decision {
		if version != "" && (v.Holder == nil || v.Holder.Version != version) {
			return subscriber.Decision{}
		}
		return subscriber.DecidePut(v.Holder, r)
	})}
	w.run(ctx, []*txn.Txn{tx})
	switch {
	case tx.Err != nil:
		return r, fmt.Errorf("put record %v: %w", r.Inside, tx.Err)
	case tx.Decision.Put == nil:
		return r, fmt.Errorf("put record %v: %w", r.Inside, ErrStale)
	}
	return *tx.Decision.Put, nil
}

// ErrStale: the record has another version than the caller knows, and was not changed.
var ErrStale = errors.New("the record has changed, or ended, since it was read")

// DeleteVersion deletes the record of a key, if it still has the version, and returns it.
// ErrNotFound: there is none. ErrStale: it has another version.
func (w *recordWriter) DeleteVersion(ctx context.Context, key subscriber.Key, version string, why subscriber.Reason) (subscriber.Record, error) {
	g, err := w.group(key.Group)
	if err != nil {
		return subscriber.Record{}, err
	}
	there, same, at := false, false, w.now().UTC()
	tx := &txn.Txn{Group: g.txns, Inside: key.Inside.Unmap(), Decider: txn.DecideFunc(func(v subscriber.View) subscriber.Decision {
		there = v.Holder != nil
		if same = there && v.Holder.Version == version; !same {
			return subscriber.Decision{}
		}
		return subscriber.Decision{Delete: []subscriber.Ending{subscriber.NewEnding(*v.Holder, why, at)}}
	})}
	w.run(ctx, []*txn.Txn{tx})
	switch {
	case tx.Err != nil:
		return subscriber.Record{}, failed([]*txn.Txn{tx})
	case !there:
		return subscriber.Record{}, fmt.Errorf("delete record %v: %w", key.Inside, ErrNotFound)
	case !same:
		return subscriber.Record{}, fmt.Errorf("delete record %v: %w", key.Inside, ErrStale)
	}
	return tx.Decision.Delete[0].Record, nil
}

// Delete deletes the records of the keys for which meant still reports true when they are
// deleted, nil for all, and writes the tombstones of their sessions: an address may have gone
// to another subscriber since the keys were chosen. It returns the records that it deleted; a
// key without a record is no error. On error some may be deleted.
func (w *recordWriter) Delete(ctx context.Context, keys []subscriber.Key, why subscriber.Reason, meant func(*subscriber.Record) bool) ([]subscriber.Record, error) {
	if meant == nil {
		meant = func(*subscriber.Record) bool { return true }
	}
	txns := make([]*txn.Txn, 0, len(keys))
	for _, key := range keys {
		g, err := w.group(key.Group)
		if err != nil {
			return nil, err
		}
		tx := endTxn(g, key, meant, why, w.now().UTC())
		txns = append(txns, &tx)
	}
	return w.endAll(ctx, txns)
}

// endTxn returns the transaction that deletes the record at a key if meant reports true for
// it.
func endTxn(g *Group, key subscriber.Key, meant func(*subscriber.Record) bool, why subscriber.Reason, at time.Time) txn.Txn {
	decide := func(v subscriber.View) subscriber.Decision {
		if v.Holder == nil || !meant(v.Holder) {
			return subscriber.Decision{}
		}
		return subscriber.Decision{Delete: []subscriber.Ending{subscriber.NewEnding(*v.Holder, why, at)}}
	}
	return txn.Txn{Group: g.txns, Inside: key.Inside.Unmap(), Decider: txn.DecideFunc(decide)}
}

// endBatch bounds the deletions of one pipeline, so that accounting is not delayed and slow
// readers of the feed can catch up.
const endBatch = 512

// endWorkers is the number of batches at once: the records of one are decided while Redis
// executes another.
const endWorkers = txn.MaxTrips

// endAll runs transactions that do not depend on each other, and returns the records that
// they ended. On error some may have ended.
func (w *recordWriter) endAll(ctx context.Context, txns []*txn.Txn) ([]subscriber.Record, error) {
	workers, ctx := errgroup.WithContext(ctx)
	workers.SetLimit(endWorkers)
	if audit.From(ctx) != nil { // the entries of an order follow each other
		workers.SetLimit(1)
	}
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

// endInTurn runs transactions of one group, after waiting for readers of its feed that are
// far behind.
func (w *recordWriter) endInTurn(ctx context.Context, txns []*txn.Txn) error {
	w.feed.awaitReaders(ctx, txns[0].Group.Name)
	if ctx.Err() != nil { // a batch before this one failed
		return ctx.Err()
	}
	w.run(ctx, txns)
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

// performAll runs transactions in batches, and returns the first error.
func (w *recordWriter) performAll(ctx context.Context, txns []*txn.Txn) error {
	for len(txns) > 0 {
		batch := txns[:min(endBatch, len(txns))]
		txns = txns[len(batch):]
		w.run(ctx, batch)
		for _, tx := range batch {
			if tx.Err != nil {
				return fmt.Errorf("record %v: %w", tx.Inside, tx.Err)
			}
		}
	}
	return nil
}

// Restore writes back records that the database lost, as Unconfirmed. It writes only where
// there is no record, or one of an earlier session that came back with an old database, and
// not if the session is known to have ended. Restored records live for the group's
// RecordTTL, and are announced as Created.
func (w *recordWriter) Restore(ctx context.Context, lost []subscriber.Record) error {
	for len(lost) > 0 {
		batch := lost[:min(endBatch, len(lost))]
		lost = lost[len(batch):]
		txns := make([]*txn.Txn, len(batch))
		for i := range batch {
			g, err := w.group(batch[i].Group)
			if err != nil {
				return err
			}
			txns[i] = restoreTxn(g, batch[i])
		}
		w.txns.Run(ctx, txns)
		for _, tx := range txns {
			if tx.Err != nil {
				return fmt.Errorf("restore record %v: %w", tx.Inside, tx.Err)
			}
		}
	}
	return nil
}

// beside reports whether a record and the session state under its identifier are of
// different sessions: of other users at other addresses, as pppd makes them (see
// subscriber.Identify). Such a session is identified by its address too.
func beside(state *subscriber.SessionState, r *subscriber.Record) bool {
	return state.Phase == subscriber.Open && state.Inside.IsValid() && state.Inside != r.Inside.Unmap() &&
		state.UserName != "" && r.UserName != "" && state.UserName != r.UserName
}

func restoreTxn(g *Group, r subscriber.Record) *txn.Txn {
	r.Unconfirmed, r.Version, r.ExpiresAt = true, "", time.Time{}
	r.StartedAt, r.UpdatedAt = r.StartedAt.UTC(), r.UpdatedAt.UTC()
	tx := &txn.Txn{Group: g.txns, Inside: r.Inside.Unmap()}
	if r.NAS != "" && r.AcctSessionID != "" {
		tx.Session = r.SessionID
	}
	tx.Decider = txn.DecideFunc(func(v subscriber.View) subscriber.Decision {
		taken := v.Holder != nil && !r.Follows(v.Holder)
		if taken {
			return subscriber.Decision{}
		}
		if beside(&v.Session, &r) {
			twin := r
			twin.Leg = tx.Inside
			return subscriber.Decision{Put: &twin, Created: true}
		}
		if v.Session.Phase == subscriber.Closed || v.Current != nil {
			return subscriber.Decision{}
		}
		d := subscriber.Decision{Put: &r, Created: true}
		if tx.Session != (subscriber.SessionID{}) {
			open := subscriber.OpenState(&r)
			d.Session = &open
		}
		return d
	})
	return tx
}
