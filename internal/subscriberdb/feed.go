package subscriberdb

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// beginning is the identifier before every entry.
const beginning = "0-0"

// Names of the kinds of feed entries that tell of one record in full. There is
// one more, nas_restart, which stands in the feed for its place in the
// order and is no change of a record.
var (
	kindNames = [...]string{subscriber.Created: "created", subscriber.Updated: "updated", subscriber.Deleted: "deleted"}
	kinds     = map[string]subscriber.ChangeKind{
		"created": subscriber.Created, "updated": subscriber.Updated, "deleted": subscriber.Deleted,
	}
)

// Tail returns the identifier of the last entry of a group's feed, "0-0" for none.
func (db *DB) Tail(ctx context.Context, group string) (string, error) {
	entries, err := db.client.XRevRangeN(ctx, feedKey(group), "+", "-", 1).Result()
	if err != nil {
		return "", fmt.Errorf("tail of feed %q: %w", group, err)
	}
	if len(entries) == 0 {
		return beginning, nil
	}
	return entries[0].ID, nil
}

// Rewound reports whether a group's feed has lost an entry that stood in it while
// older ones are still there. Trimming takes the oldest first, so the database has
// gone back in time, whatever was added to it since.
func (db *DB) Rewound(ctx context.Context, group, entry string) (bool, error) {
	newest, err := db.client.XRevRangeN(ctx, feedKey(group), entry, "-", 1).Result()
	if err != nil {
		return false, fmt.Errorf("look back in feed %q: %w", group, err)
	}
	return len(newest) > 0 && newest[0].ID != entry, nil
}

// Feed returns the changes that the entries after a given one tell of, at most
// max entries, and the identifier to go on from. One entry may tell of changes of
// several records. If there are none it waits up to block (0: not at all), and then
// returns none. It returns ErrFeedGap if the entry is no longer there, because
// the feed was cut, emptied or rolled back: changes may be missing. The context
// bounds it through its deadline; keep block short where it may be cancelled.
func (db *DB) Feed(ctx context.Context, group, after string, max int, block time.Duration) ([]subscriber.Change, string, error) {
	if block <= 0 {
		block = -1 // do not wait
	}
	streams, err := db.client.XRead(ctx, &redis.XReadArgs{
		Streams: []string{feedKey(group), after}, Count: int64(max), Block: block,
	}).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, after, fmt.Errorf("read feed %q: %w", group, err)
	}
	// The entry is looked for after the read: what was there then was there before.
	if err := db.checkFeed(ctx, group, after); err != nil {
		return nil, after, err
	}
	var changes []subscriber.Change
	last := after
	for _, stream := range streams {
		for _, entry := range stream.Messages {
			last = entry.ID
			changes = appendChanges(changes, group, entry)
		}
	}
	return changes, last, nil
}

// checkFeed makes sure that nothing after the given entry was lost.
func (db *DB) checkFeed(ctx context.Context, group, after string) error {
	if after == beginning {
		return db.checkWhole(ctx, group)
	}
	found, err := db.client.XRangeN(ctx, feedKey(group), after, after, 1).Result()
	if err != nil {
		return fmt.Errorf("check feed %q: %w", group, err)
	}
	if len(found) == 0 {
		return fmt.Errorf("feed %q after %s: %w", group, after, ErrFeedGap)
	}
	return nil
}

// checkWhole makes sure that a feed has never been cut.
func (db *DB) checkWhole(ctx context.Context, group string) error {
	n, err := db.client.XLen(ctx, feedKey(group)).Result()
	if err != nil {
		return fmt.Errorf("check feed %q: %w", group, err)
	}
	if n >= db.feedLength {
		return fmt.Errorf("feed %q from its beginning: %w", group, ErrFeedGap)
	}
	return nil
}

// appendChanges reads a feed entry; one that is no change of a record adds
// nothing.
func appendChanges(list []subscriber.Change, group string, entry redis.XMessage) []subscriber.Change {
	if lines, ok := entry.Values["list"].(string); ok {
		return appendLines(list, group, entry, lines)
	}
	c := subscriber.Change{ID: entry.ID, Kind: kinds[text(entry, "kind")]}
	inside, err := netip.ParseAddr(text(entry, "inside"))
	if err != nil || c.Kind == 0 {
		return list
	}
	c.Reason, _ = subscriber.ParseReason(text(entry, "reason"))
	cause, _ := strconv.ParseUint(text(entry, "cause"), 10, 32)
	c.Cause = uint32(cause)
	c.Record = parseRecordText(subscriber.Key{Group: group, Inside: inside}, text(entry, "record"))
	if c.Kind != subscriber.Deleted {
		c.Record.Version = entry.ID
		c.Record.ExpiresAt = entryExpiry(entry.ID, text(entry, "ttl"))
	}
	return append(list, c)
}

func text(entry redis.XMessage, field string) string {
	s, _ := entry.Values[field].(string)
	return s
}

// entryExpiry is when a record expires that was written with the entry, by
// Redis's clock.
func entryExpiry(id, ttl string) time.Time {
	ms, err := strconv.ParseInt(ttl, 10, 64)
	if err != nil || ms == 0 {
		return time.Time{}
	}
	millis, _, _ := strings.Cut(id, "-")
	written, err := strconv.ParseInt(millis, 10, 64)
	if err != nil {
		return time.Time{}
	}
	return time.UnixMilli(written + ms)
}
