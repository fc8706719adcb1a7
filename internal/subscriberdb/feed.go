package subscriberdb

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
)

// beginning is the identifier that precedes every entry.
const beginning = "0-0"

// changeFeed reads the feeds of all groups, stores the positions of their readers, and
// trims the feeds as far as these positions allow.
type changeFeed struct {
	*shared
	probe  *prober
	length int64 // entries that are kept for readers that look back
	limit  int64 // entries that are kept for readers that are behind
	octets int64 // most memory of Redis for these
	states feedStates
}

// Tail returns the identifier of the last entry of a group's feed, "0-0" for none.
func (f *changeFeed) Tail(ctx context.Context, group string) (string, error) {
	entries, err := f.client.XRevRangeN(ctx, codec.FeedKey(group), "+", "-", 1).Result()
	if err != nil {
		return "", fmt.Errorf("tail of feed %q: %w", group, err)
	}
	if len(entries) == 0 {
		return beginning, nil
	}
	return entries[0].ID, nil
}

// Unread returns the first entry behind the given one in a group's feed, and its age by
// Redis's clock; "" and 0 if there is none.
func (f *changeFeed) Unread(ctx context.Context, group, after string) (entry string, age time.Duration, err error) {
	pipe := f.client.Pipeline()
	next := pipe.XRangeN(ctx, codec.FeedKey(group), "("+after, "+", 1)
	now := pipe.Time(ctx)
	if _, err := pipe.Exec(ctx); err != nil {
		return "", 0, fmt.Errorf("look ahead in feed %q: %w", group, err)
	}
	if len(next.Val()) == 0 {
		return "", 0, nil
	}
	entry = next.Val()[0].ID
	return entry, max(0, now.Val().Sub(subscriber.ParseVersion(entry).Time())), nil
}

// RolledBack reports whether a group's feed lost the given entry but still has older ones.
// Trimming removes the oldest entries first, so the database has gone back in time, even if
// entries were added since.
func (f *changeFeed) RolledBack(ctx context.Context, group, entry string) (bool, error) {
	newest, err := f.client.XRevRangeN(ctx, codec.FeedKey(group), entry, "-", 1).Result()
	if err != nil {
		return false, fmt.Errorf("look back in feed %q: %w", group, err)
	}
	return len(newest) > 0 && newest[0].ID != entry, nil
}

// Feed returns the changes in the entries after a given one, at most max entries, and the
// identifier to go on from. One entry may hold changes of several records. If there are
// none it waits up to block (0: not at all), and then returns none. It returns ErrFeedGap
// if the given entry is gone, because the feed was trimmed, emptied or rolled back: changes
// may be missing. Of the context only the deadline takes effect while it waits; keep block
// short where the context may be cancelled. Where entries are likely to exist already,
// block 0 saves a round trip. The changes are appended to room, which may be nil.
func (f *changeFeed) Feed(
	ctx context.Context, group, after string, max int, block time.Duration, room []subscriber.Change,
) ([]subscriber.Change, string, error) {
	read := f.readOn
	if block > 0 || after == beginning {
		read = f.readBehind
	}
	entries, err := read(ctx, group, after, max, block)
	if err != nil || len(entries) == 0 {
		return nil, after, err
	}
	if g, ok := f.inForce().named(group); ok {
		anew, err := f.begunAnew(ctx, g.txns, entries[len(entries)-1].ID)
		if anew {
			err = gapAfter(group, after)
		}
		if err != nil {
			return nil, after, err
		}
	}
	n := 0
	for i := range entries {
		n += feedEntry(&entries[i]).Changes()
	}
	p := codec.NewFeedParser(group, n, room)
	for i := range entries {
		if !p.Parse(feedEntry(&entries[i])) {
			f.found(group, codec.GarbageFeed, codec.FeedKey(group)+" "+entries[i].ID)
		}
	}
	return p.Changes, entries[len(entries)-1].ID, nil
}

// readOn reads the given entry and those after it. If the given entry still exists, no
// later entry was lost.
func (f *changeFeed) readOn(ctx context.Context, group, after string, max int, _ time.Duration) ([]redis.XMessage, error) {
	entries, err := f.client.XRangeN(ctx, codec.FeedKey(group), after, "+", int64(max)+1).Result()
	if err != nil {
		return nil, fmt.Errorf("read feed %q: %w", group, err)
	}
	if len(entries) == 0 || entries[0].ID != after {
		return nil, gapAfter(group, after)
	}
	return entries[1:], nil
}

// readBehind reads the entries after the given one, and waits up to block for the first.
func (f *changeFeed) readBehind(ctx context.Context, group, after string, max int, block time.Duration) ([]redis.XMessage, error) {
	if block <= 0 {
		block = -1 // do not wait
	}
	streams, err := f.client.XRead(ctx, &redis.XReadArgs{
		Streams: []string{codec.FeedKey(group), after}, Count: int64(max), Block: block,
	}).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, fmt.Errorf("read feed %q: %w", group, err)
	}
	// The entry is checked after the read: if it exists now, it existed during the read.
	if err := f.checkFeed(ctx, group, after); err != nil || len(streams) == 0 {
		return nil, err
	}
	return streams[0].Messages, nil
}

// checkFeed returns ErrFeedGap if entries behind the given one may be lost.
func (f *changeFeed) checkFeed(ctx context.Context, group, after string) error {
	if after == beginning {
		return f.checkWhole(ctx, group)
	}
	found, err := f.client.XRangeN(ctx, codec.FeedKey(group), after, after, 1).Result()
	if err != nil {
		return fmt.Errorf("check feed %q: %w", group, err)
	}
	if len(found) == 0 {
		return gapAfter(group, after)
	}
	return nil
}

func gapAfter(group, after string) error {
	return fmt.Errorf("feed %q after %s: %w", group, after, ErrFeedGap)
}

// checkWhole returns ErrFeedGap if the feed has ever been trimmed.
func (f *changeFeed) checkWhole(ctx context.Context, group string) error {
	n, err := f.client.XLen(ctx, codec.FeedKey(group)).Result()
	if err != nil {
		return fmt.Errorf("check feed %q: %w", group, err)
	}
	if n >= f.length {
		return fmt.Errorf("feed %q from its beginning: %w", group, ErrFeedGap)
	}
	return nil
}

// parseEntry returns the changes of one entry.
func parseEntry(group string, m *redis.XMessage) []subscriber.Change {
	e := feedEntry(m)
	p := codec.NewFeedParser(group, e.Changes(), nil)
	p.Parse(e)
	return p.Changes
}

func feedEntry(m *redis.XMessage) codec.FeedEntry {
	return codec.FeedEntry{ID: m.ID, Fields: m.Values}
}
