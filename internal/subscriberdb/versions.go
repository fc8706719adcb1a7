package subscriberdb

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// Standing is a record that stands, in short.
type Standing struct {
	Inside  netip.Addr
	Version string
}

// Versions is Records for a reader who has most of them already: it yields which
// records stand, and in which version.
func (db *DB) Versions(ctx context.Context, group string, yield func([]Standing) error) error {
	return readAhead(ctx, func(ctx context.Context, emit func([]Standing) error) error {
		return db.scanVersions(ctx, group, emit)
	}, yield)
}

func (db *DB) scanVersions(ctx context.Context, group string, yield func([]Standing) error) error {
	return db.scanRecords(ctx, group, func(server redis.UniversalClient, keys []subscriber.Key) error {
		names, words := recordKeys(keys), make([]any, 0, 3*len(keys))
		cmds := make([]redis.Cmder, len(keys))
		for i := range names {
			words = append(words, "hget", &names[i], "version")
			cmds[i] = redis.NewStringCmd(ctx, words[len(words)-3:]...)
		}
		if err := pipeline(ctx, server, cmds); err != nil && !errors.Is(err, redis.Nil) {
			return fmt.Errorf("read versions: %w", err)
		}
		standing := make([]Standing, len(keys))
		for i, key := range keys {
			standing[i] = Standing{key.Inside, cmds[i].(*redis.StringCmd).Val()}
		}
		return yield(standing)
	})
}

// RecordsAt returns the records at some addresses of a group, in any order; where
// none stands there is none.
func (db *DB) RecordsAt(ctx context.Context, group string, inside []netip.Addr) ([]subscriber.Record, error) {
	if _, err := db.group(group); err != nil {
		return nil, err
	}
	keys := make([]subscriber.Key, len(inside))
	for i, a := range inside {
		keys[i] = subscriber.Key{Group: group, Inside: a}
	}
	return db.read(ctx, db.client, keys)
}
