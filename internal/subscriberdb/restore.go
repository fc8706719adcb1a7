package subscriberdb

import (
	"context"
	"fmt"
	"time"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/txn"
)

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
