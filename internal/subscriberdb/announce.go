package subscriberdb

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/redisconn"
	"github.com/sessiond/sessiond/internal/subscriberdb/txn"
)

// AnnounceDeleted announces the end of records that other programs removed from Redis, or
// that expired there. Each gets one Deleted change, however often and by however many
// daemons this is called. It skips a record that exists and one whose end is already
// announced. ReasonNone means unknown: a record whose TTL may have run out is announced as
// ReasonExpired, any other as ReasonRemovedInDatabase. AnnounceDeleted returns ErrSuspect,
// and announces nothing more, when the marker is missing.
func (ab *absences) AnnounceDeleted(ctx context.Context, keys []subscriber.Key, why subscriber.Reason) error {
	for len(keys) > 0 {
		batch := keys[:min(endBatch, len(keys))]
		keys = keys[len(batch):]
		if err := ab.announceBatch(ctx, batch, why); err != nil {
			return fmt.Errorf("announce deleted records: %w", err)
		}
	}
	return nil
}

func (ab *absences) announceBatch(ctx context.Context, keys []subscriber.Key, why subscriber.Reason) error {
	known := make([]subscriber.Record, len(keys))
	for i, key := range keys {
		known[i].Key = key
	}
	absent, err := ab.gather(ctx, known, why)
	if err != nil {
		return err
	}
	if absent, err = ab.unannounced(ctx, absent); err != nil {
		return err
	}
	calls := make([]redis.Cmder, len(absent))
	for i, g := range absent {
		calls[i] = g.call(ctx, ab)
	}
	if err := ab.client.Exchange(ctx, calls); err != nil {
		return err
	}
	for _, c := range calls {
		if done, _ := c.(*redis.Cmd).Val().(int64); done < 0 {
			return ErrSuspect
		}
	}
	return nil
}

// absentRecord is a record that is not in Redis, with its traces there.
type absentRecord struct {
	group   *Group
	record  subscriber.Record
	id      subscriber.SessionID // the identity of its tombstone
	entry   string               // entry in the hash of online addresses; "" for none
	session string               // state line of the record's session; "" for none
	reason  subscriber.Reason
}

// gather reads the traces of the records. A record with an online entry is taken from that
// entry; of any other the session is the one that the caller knows.
func (ab *absences) gather(ctx context.Context, known []subscriber.Record, why subscriber.Reason) ([]*absentRecord, error) {
	absent := make([]*absentRecord, len(known))
	calls := make([]*redis.StringCmd, len(known))
	pipe := ab.client.Pipeline()
	for i := range known {
		r := subscriber.Record{Key: known[i].Key, SessionID: known[i].SessionID}
		r.Inside = r.Inside.Unmap()
		g, err := ab.group(r.Group)
		if err != nil {
			return nil, err
		}
		absent[i] = &absentRecord{group: g, record: r, id: txn.RememberedAs(&r), reason: why}
		calls[i] = pipe.HGet(ctx, codec.OnlineKey(g.Name), r.Inside.String())
	}
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return nil, err
	}
	for i, g := range absent {
		g.identify(ab, calls[i].Val())
	}
	return absent, ab.addSessions(ctx, absent)
}

// identify sets the record from its online entry.
func (g *absentRecord) identify(ab *absences, entry string) {
	if g.entry = entry; entry == "" {
		return
	}
	record, err := codec.ParseOnlineEntry(g.record.Key, entry)
	if err != nil {
		ab.logger.Error("online entry cannot be read", "group", g.group.Name, "error", err)
		return
	}
	g.record, g.id = record, record.SessionID
}

// addSessions reads the states of the records' sessions.
func (ab *absences) addSessions(ctx context.Context, absent []*absentRecord) error {
	pipe := ab.client.Pipeline()
	lines, ttls := make([]*redis.StringCmd, len(absent)), make([]*redis.DurationCmd, len(absent))
	for i, g := range absent {
		key := codec.SessionKey(g.group.Name, g.id)
		lines[i], ttls[i] = pipe.Get(ctx, key), pipe.PTTL(ctx, key)
	}
	cmds, err := pipe.Exec(ctx)
	if err := redisconn.Failure(cmds, err); err != nil {
		return err
	}
	for i, g := range absent {
		if redisconn.IsWrongType(lines[i].Err()) {
			ab.found(g.group.Name, codec.GarbageSession, codec.SessionKey(g.group.Name, g.id))
		}
		g.session = lines[i].Val()
		if g.reason != subscriber.ReasonNone {
			continue
		}
		left := time.Duration(-1)
		if g.entry != "" {
			left = ttls[i].Val()
		}
		g.reason = ab.reckonReason(g, left)
	}
	return nil
}

// clockSkew is the assumed difference between Redis's clock and ours, for the decision
// between expired and removed.
const clockSkew = time.Second

// reckonReason returns ReasonExpired for a record whose TTL may have run out, else
// ReasonRemovedInDatabase. The remaining TTL of the session state shows when the state was
// last written; the record lived for its own TTL since then, at least.
func (ab *absences) reckonReason(g *absentRecord, left time.Duration) subscriber.Reason {
	earliest, record := g.record.ExpiresAt, g.group.txns.TTL(g.record.Client)
	if left >= 0 && record > 0 {
		sinceStored := ab.txns.OpenTTL(record) - left
		earliest = ab.now().Add(record - sinceStored)
	}
	if earliest.IsZero() || ab.now().Add(clockSkew).Before(earliest) {
		return subscriber.ReasonRemovedInDatabase
	}
	return subscriber.ReasonExpired
}

// unannounced leaves out the records without an online entry whose end is already in the
// feed: the announcement removed the entry. Where the entry was lost in another way, the
// end still has to be announced.
func (ab *absences) unannounced(ctx context.Context, absent []*absentRecord) ([]*absentRecord, error) {
	told := make(map[string]map[netip.Addr]subscriber.ChangeKind) // the last change, by group and address
	var left []*absentRecord
	for _, g := range absent {
		group := g.group.Name
		if g.entry == "" && told[group] == nil {
			var err error
			if told[group], err = ab.feed.lastChanges(ctx, group); err != nil {
				return nil, err
			}
		}
		if g.entry != "" || told[group][g.record.Inside] != subscriber.Deleted {
			left = append(left, g)
		}
	}
	return left, nil
}

func (g *absentRecord) call(ctx context.Context, ab *absences) *redis.Cmd {
	r := &g.record
	keys := []string{
		codec.RecordKey(r.Group, r.Inside), codec.MarkerKey(r.Group), codec.OnlineKey(r.Group), codec.FeedKey(r.Group),
		codec.SessionKey(r.Group, r.SessionID),
	}
	tombstone := g.tombstone(ab.now().UTC())
	args := []any{
		r.Inside.String(), g.entry, ab.feed.limit, g.session, tombstone, ab.tombstoneTTL.Milliseconds(),
		g.reason.String(), codec.RecordText(r),
	}
	return redisconn.NewCall(ctx, announceScript, keys, args...)
}

// tombstone returns the tombstone of the session that was open at the address. An expired
// record's last event was one TTL before; the state may have a later one, from an Interim.
func (g *absentRecord) tombstone(now time.Time) string {
	state, err := codec.ParseState(g.session)
	if err != nil || state.Phase != subscriber.Open || state.Inside != g.record.Inside {
		return ""
	}
	g.record.StartedAt = state.Start
	state.Phase, state.Reason, state.End = subscriber.Closed, g.reason, now
	if g.reason == subscriber.ReasonExpired {
		state.End = now.Add(-g.group.txns.TTL(g.record.Client))
	}
	if state.End.Before(state.Start) {
		state.End = state.Start
	}
	return codec.FormatState(&state)
}

// announceScript announces the end of a record that others removed.
//
// KEYS
//
//	1 record, 2 marker, 3 hash of online addresses, 4 feed, 5 session state
//
// ARGV
//
//	1 inside address, 2 its value in the hash of online addresses ("" for none),
//	3 most entries of the feed, 4 session state now, 5 tombstone ("" for none),
//	6 its ttl in milliseconds, 7 reason, 8 the record in the form of the feed
//
// Returns 1 when it was announced; 0 when the record exists or its entry in the
// hash of online addresses is another; -1 when the marker is missing.
var announceScript = redis.NewScript(`
if redis.call('EXISTS', KEYS[2]) == 0 then return -1 end
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
local entry = redis.call('HGET', KEYS[3], ARGV[1]) or ''
if entry ~= ARGV[2] then return 0 end
redis.call('HDEL', KEYS[3], '') -- first, for a Redis that is full
redis.call('XADD', KEYS[4], 'MAXLEN', '~', ARGV[3], '*', 'kind', 'deleted',
  'inside', ARGV[1], 'reason', ARGV[7], 'record', ARGV[8])
redis.call('HDEL', KEYS[3], ARGV[1])
if ARGV[5] ~= '' and (redis.call('GET', KEYS[5]) or '') == ARGV[4] then
  redis.call('SET', KEYS[5], ARGV[5], 'PX', ARGV[6])
end
return 1
`)
