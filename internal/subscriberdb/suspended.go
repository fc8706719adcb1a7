package subscriberdb

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/audit"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/trail"
	"github.com/sessiond/sessiond/internal/subscriberdb/txn"
)

// A removal that a guard suspends is stored in the record itself: the record names the
// reason and does not expire. So the suspension outlives every daemon, and all of them see
// it.

// suspensions suspends removals for the guards, and ends or restores the records.
type suspensions struct {
	*shared
	reader *recordReader
	writer *recordWriter
	guards *restartGuards
}

// SuspendRemovals writes back records that are missing, to remain until their removal is
// confirmed or refused, or an event of their session arrives. It skips a record that exists
// again, and one whose session is known to have ended or to be elsewhere.
func (su *suspensions) SuspendRemovals(ctx context.Context, endings []subscriber.Ending) error {
	txns := make([]*txn.Txn, len(endings))
	for i := range endings {
		g, err := su.group(endings[i].Record.Group)
		if err != nil {
			return err
		}
		txns[i] = suspendTxn(g, endings[i])
	}
	if err := su.writer.performAll(ctx, txns); err != nil {
		return fmt.Errorf("hold removal: %w", err)
	}
	return nil
}

func suspendTxn(g *Group, e subscriber.Ending) *txn.Txn {
	r := e.Record
	r.RemovalHeld, r.Version = e.Reason, ""
	r.Unconfirmed = r.Unconfirmed || r.StartedAt.IsZero() // only its binding is known
	r.StartedAt, r.UpdatedAt, r.ExpiresAt = r.StartedAt.UTC(), r.UpdatedAt.UTC(), time.Time{}
	tx := &txn.Txn{Group: g.txns, Inside: r.Inside.Unmap()}
	if r.NAS != "" && r.AcctSessionID != "" {
		tx.Session = r.SessionID
	}
	tx.Decider = txn.DecideFunc(func(v subscriber.View) subscriber.Decision {
		if v.Holder == nil && beside(&v.Session, &r) {
			twin := r
			twin.Leg = tx.Inside
			return subscriber.Decision{Put: &twin}
		}
		elsewhere := v.Session.Phase == subscriber.Open && v.Session.Inside != tx.Inside
		if v.Holder != nil || v.Session.Phase == subscriber.Closed || elsewhere {
			return subscriber.Decision{}
		}
		d := subscriber.Decision{Put: &r}
		if tx.Session != (subscriber.SessionID{}) && v.Session.Phase == subscriber.Unknown {
			open := subscriber.OpenState(&r)
			d.Session = &open
		}
		return d
	})
	return tx
}

// ConfirmRemovals ends the records of the keys whose removal is suspended, each for its
// stored reason, and returns them. On error some may have ended.
func (su *suspensions) ConfirmRemovals(ctx context.Context, keys []subscriber.Key) ([]subscriber.Record, error) {
	txns := make([]*txn.Txn, len(keys))
	for i, key := range keys {
		g, err := su.group(key.Group)
		if err != nil {
			return nil, err
		}
		txns[i] = confirmTxn(g, key, su.now().UTC())
	}
	ended, err := su.writer.endAll(ctx, txns)
	su.guards.decided(ended)
	return ended, err
}

func confirmTxn(g *Group, key subscriber.Key, at time.Time) *txn.Txn {
	decide := func(v subscriber.View) subscriber.Decision {
		if v.Holder == nil || v.Holder.RemovalHeld == subscriber.ReasonNone {
			return subscriber.Decision{}
		}
		return subscriber.Decision{Delete: []subscriber.Ending{subscriber.NewEnding(*v.Holder, v.Holder.RemovalHeld, at)}}
	}
	return &txn.Txn{Group: g.txns, Inside: key.Inside.Unmap(), Decider: txn.DecideFunc(decide)}
}

// RefuseRemovals cancels the suspended removals of the keys' records, as if an event had
// just refreshed them, and returns the records as they were suspended. It also deletes the
// NAS restarts that would end them again.
func (su *suspensions) RefuseRemovals(ctx context.Context, keys []subscriber.Key) ([]subscriber.Record, error) {
	for rest := keys; len(rest) > 0; {
		batch := rest[:min(endBatch, len(rest))]
		rest = rest[len(batch):]
		if err := su.forgetRestarts(ctx, batch); err != nil {
			return nil, fmt.Errorf("take back restart: %w", err)
		}
	}
	txns := make([]*txn.Txn, len(keys))
	for i, key := range keys {
		g, err := su.group(key.Group)
		if err != nil {
			return nil, err
		}
		txns[i] = &txn.Txn{Group: g.txns, Inside: key.Inside.Unmap(), Decider: txn.DecideFunc(refuseRemoval)}
	}
	var err error
	for batch := range slices.Chunk(txns, endBatch) {
		su.writer.feed.awaitReaders(ctx, batch[0].Group.Name)
		if err = su.writer.performAll(ctx, batch); err != nil {
			break
		}
	}
	var kept []subscriber.Record
	for _, tx := range txns {
		if tx.Decision.Put != nil && tx.Err == nil {
			kept = append(kept, *tx.Holder())
		}
	}
	su.guards.decided(kept)
	if err != nil {
		return kept, fmt.Errorf("refuse removal: %w", err)
	}
	return kept, nil
}

func refuseRemoval(v subscriber.View) subscriber.Decision {
	if v.Holder == nil || v.Holder.RemovalHeld == subscriber.ReasonNone {
		return subscriber.Decision{}
	}
	r := *v.Holder
	r.RemovalHeld, r.ExpiresAt = subscriber.ReasonNone, time.Time{}
	return subscriber.Decision{Put: &r}
}

// forgetRestarts deletes the restarts for which the removals of the keys' records are
// suspended. It keeps a restart that came after a record was suspended: that is another
// one.
func (su *suspensions) forgetRestarts(ctx context.Context, keys []subscriber.Key) error {
	records, err := su.reader.read(ctx, su.client, keys)
	if err != nil {
		return err
	}
	newest := map[groupNAS]string{} // version of the record that was held last, by NAS
	for i := range records {
		r := &records[i]
		nas := groupNASOf(r.Group, r.SessionID)
		if r.RemovalHeld == subscriber.ReasonNASRestart && subscriber.CompareVersions(r.Version, newest[nas]) > 0 {
			newest[nas] = r.Version
		}
	}
	for nas, held := range newest {
		if err := su.forgetRestart(ctx, nas, held); err != nil {
			return err
		}
	}
	return nil
}

func (su *suspensions) forgetRestart(ctx context.Context, nas groupNAS, held string) error {
	line, err := su.client.Get(ctx, codec.RestartKey(nas.group, nas.nas.Session())).Result()
	if errors.Is(err, redis.Nil) {
		return nil
	}
	if err != nil || subscriber.CompareVersions(codec.ParseRestart(line).ID, held) > 0 {
		return err
	}
	keys := []string{codec.RestartKey(nas.group, nas.nas.Session()), codec.RestartsKey(nas.group)}
	if err := su.callForget(ctx, nas, keys, line); err != nil {
		return err
	}
	su.writer.txns.SetRestart(nas.group, nas.nas.Session(), "")
	su.logger.Warn("restart of a NAS taken back, its sessions go on",
		"group", nas.group, "client", nas.nas.Client, "nas", nas.nas.Name, "restart", line)
	return nil
}

// callForget deletes a NAS's restart, with an audit entry if a caller orders it.
func (su *suspensions) callForget(ctx context.Context, nas groupNAS, keys []string, line string) error {
	ref := codec.NASRef(nas.nas.Session())
	e, ordered, err := audit.EntryFor(ctx)
	if err != nil {
		return err
	}
	if !ordered {
		_, err := su.client.Call(ctx, forgetScript.Plain(), keys, line, ref)
		return err
	}
	e.Group, e.Keys, e.Old = nas.group, []string{"nas:" + ref}, line
	list := []any{"evalsha", forgetScript.Plain().Hash(), len(keys), keys[0], keys[1], line, ref}
	_, _, err = su.writer.orders.trails.Append(ctx, nas.group, e, forgetScript, list)
	return err
}

// forgetScript deletes a NAS's restart, unless the NAS restarted again.
//
// KEYS and ARGV as of sweptScript. Returns 1 when it is done, 0 when there is
// another restart.
var forgetScript = trail.NewScript(`
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then
  if whole then return false, {1} end
  return 0
end
record()
redis.call('DEL', KEYS[1])
redis.call('SREM', KEYS[2], ARGV[2])
return 1
`)
