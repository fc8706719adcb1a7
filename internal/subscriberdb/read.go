package subscriberdb

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// scanCount is how many keys one SCAN or HSCAN looks at, and so about how many
// records a yield of Records gets. Each key is looked up, 2 to 5 µs (BenchmarkScale).
const scanCount = 500

// Get returns the record of a key, or ErrNotFound.
func (db *DB) Get(ctx context.Context, key subscriber.Key) (subscriber.Record, error) {
	if _, err := db.group(key.Group); err != nil {
		return subscriber.Record{}, err
	}
	key.Inside = key.Inside.Unmap()
	records, err := db.read(ctx, db.client, []subscriber.Key{key})
	if err != nil {
		return subscriber.Record{}, err
	}
	if len(records) == 0 {
		return subscriber.Record{}, fmt.Errorf("record %v in group %q: %w", key.Inside, key.Group, ErrNotFound)
	}
	return records[0], nil
}

// Records yields the records of all who are online in a group in batches, unordered, as
// the hash of online addresses names them: it is written in one step with each record,
// and to walk over it costs Redis a quarter of a walk over all keys. A record without
// an entry there, as somebody may make by hand, is left to Versions. One that is
// written meanwhile may be missed or yielded twice; the feed, read from where it stood
// before, tells what happened to it. An error of yield ends the walk.
func (db *DB) Records(ctx context.Context, group string, yield func([]subscriber.Record) error) error {
	if _, err := db.group(group); err != nil {
		return err
	}
	return readAhead(ctx, func(ctx context.Context, emit func([]subscriber.Record) error) error {
		return db.scanHash(ctx, onlineKey(group), func(fields []string) error {
			records, err := db.read(ctx, db.client, onlineAt(group, fields))
			if err != nil || len(records) == 0 {
				return err
			}
			return emit(records)
		})
	}, yield)
}

// onlineAt returns the keys that entries of the hash of online addresses name.
func onlineAt(group string, fields []string) []subscriber.Key {
	keys := make([]subscriber.Key, 0, len(fields)/2)
	for i := 0; i+1 < len(fields); i += 2 {
		if inside, err := netip.ParseAddr(fields[i]); err == nil {
			keys = append(keys, subscriber.Key{Group: group, Inside: inside})
		}
	}
	return keys
}

// scanRecords yields the keys of a group's records in batches, with the server
// that has them.
func (db *DB) scanRecords(ctx context.Context, group string, yield func(redis.UniversalClient, []subscriber.Key) error) error {
	if _, err := db.group(group); err != nil {
		return err
	}
	server, err := db.serverOf(ctx, markerKey(group))
	if err != nil {
		return fmt.Errorf("find server of group %q: %w", group, err)
	}
	for cursor := uint64(0); ; {
		names, next, err := server.ScanType(ctx, cursor, recordPattern(group), scanCount, "hash").Result()
		if err != nil {
			return fmt.Errorf("scan records of group %q: %w", group, err)
		}
		if keys := recordKeys(names); len(keys) > 0 {
			if err := yield(server, keys); err != nil {
				return err
			}
		}
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}

func recordKeys(names []string) []subscriber.Key {
	keys := make([]subscriber.Key, 0, len(names))
	for _, name := range names {
		if key, ok := parseRecordKey(name); ok {
			keys = append(keys, key)
		}
	}
	return keys
}

// read reads the records of the keys in one round trip, leaving out those that
// are not there.
func (db *DB) read(ctx context.Context, server redis.UniversalClient, keys []subscriber.Key) ([]subscriber.Record, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	pipe := server.Pipeline()
	hashes := make([]*redis.MapStringStringCmd, len(keys))
	ttls := make([]*redis.DurationCmd, len(keys))
	for i, key := range keys {
		name := recordKey(key.Group, key.Inside)
		hashes[i], ttls[i] = pipe.HGetAll(ctx, name), pipe.PTTL(ctx, name)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, fmt.Errorf("read records: %w", err)
	}
	now := db.now()
	records := make([]subscriber.Record, 0, len(keys))
	for i, key := range keys {
		if fields := hashes[i].Val(); len(fields) > 0 {
			r := parseRecord(key, fields)
			r.ExpiresAt = expiry(now, ttls[i].Val())
			records = append(records, r)
		}
	}
	return records, nil
}

// sessionFields are the fields that tell of which session a record is, and since when.
var sessionFields = [...]string{"client", "nas", "acct_session_id", "started_at", "updated_at", "version"}

// readSessions is read, of those fields only: half as dear, of Redis and of us.
func (db *DB) readSessions(ctx context.Context, keys []subscriber.Key) ([]subscriber.Record, error) {
	calls := make([]redis.Cmder, len(keys))
	for i, key := range keys {
		args := append(make([]any, 0, 2+len(sessionFields)), "hmget", recordKey(key.Group, key.Inside))
		for i := range sessionFields {
			args = append(args, &sessionFields[i])
		}
		calls[i] = redis.NewStringSliceCmd(ctx, args...)
	}
	if err := db.exchange(ctx, calls); err != nil {
		return nil, fmt.Errorf("read sessions of records: %w", err)
	}
	records := make([]subscriber.Record, 0, len(keys))
	for i, key := range keys {
		r := subscriber.Record{Key: key}
		for f, value := range calls[i].(*redis.StringSliceCmd).Val() {
			setField(&r, sessionFields[f], value)
		}
		if r.Version != "" || r.SessionID != (subscriber.SessionID{}) {
			fillRecord(&r)
			records = append(records, r)
		}
	}
	return records, nil
}

// expiry turns a PTTL into a time; negative means none.
func expiry(now time.Time, ttl time.Duration) time.Time {
	if ttl < 0 {
		return time.Time{}
	}
	return now.Add(ttl)
}
