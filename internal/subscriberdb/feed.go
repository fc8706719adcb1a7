package subscriberdb

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// beginning is the identifier before every entry.
const beginning = "0-0"

// kindRestart stands in the feed for its place in the order, and is no change of a record.
const kindRestart = "nas_restart"

// Names of the kinds of feed entries that tell of one record in full.
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

// Unread returns the first entry behind the given one in a group's feed, and how
// long it has stood there by Redis's own clock; "" and 0 for none.
func (db *DB) Unread(ctx context.Context, group, after string) (entry string, age time.Duration, err error) {
	pipe := db.client.Pipeline()
	next := pipe.XRangeN(ctx, feedKey(group), "("+after, "+", 1)
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

// RolledBack reports whether a group's feed has lost an entry that stood in it while
// older ones are still there. Trimming takes the oldest first, so the database has
// gone back in time, whatever was added to it since.
func (db *DB) RolledBack(ctx context.Context, group, entry string) (bool, error) {
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
// Where entries are likely to be there already, not waiting spares a round trip.
// The changes are put into room, which may be nil, as far as it goes.
func (db *DB) Feed(
	ctx context.Context, group, after string, max int, block time.Duration, room []subscriber.Change,
) ([]subscriber.Change, string, error) {
	read := db.readOn
	if block > 0 || after == beginning {
		read = db.readBehind
	}
	entries, err := read(ctx, group, after, max, block)
	if err != nil || len(entries) == 0 {
		return nil, after, err
	}
	if g, ok := db.groups.Load().named(group); ok {
		anew, err := db.begunAnew(ctx, g, entries[len(entries)-1].ID)
		if anew {
			err = gapAfter(group, after)
		}
		if err != nil {
			return nil, after, err
		}
	}
	p := parserFor(group, entries, room)
	for i := range entries {
		if !p.entry(&entries[i]) {
			db.found(group, GarbageFeed, feedKey(group)+" "+entries[i].ID)
		}
	}
	return p.changes, entries[len(entries)-1].ID, nil
}

// readOn reads the given entry and those after it. If that is still there then
// nothing after it was lost.
func (db *DB) readOn(ctx context.Context, group, after string, max int, _ time.Duration) ([]redis.XMessage, error) {
	entries, err := db.client.XRangeN(ctx, feedKey(group), after, "+", int64(max)+1).Result()
	if err != nil {
		return nil, fmt.Errorf("read feed %q: %w", group, err)
	}
	if len(entries) == 0 || entries[0].ID != after {
		return nil, gapAfter(group, after)
	}
	return entries[1:], nil
}

// readBehind reads the entries after the given one, and waits for one.
func (db *DB) readBehind(ctx context.Context, group, after string, max int, block time.Duration) ([]redis.XMessage, error) {
	if block <= 0 {
		block = -1 // do not wait
	}
	streams, err := db.client.XRead(ctx, &redis.XReadArgs{
		Streams: []string{feedKey(group), after}, Count: int64(max), Block: block,
	}).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, fmt.Errorf("read feed %q: %w", group, err)
	}
	// The entry is looked for after the read: what was there then was there before.
	if err := db.checkFeed(ctx, group, after); err != nil || len(streams) == 0 {
		return nil, err
	}
	return streams[0].Messages, nil
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
		return gapAfter(group, after)
	}
	return nil
}

func gapAfter(group, after string) error {
	return fmt.Errorf("feed %q after %s: %w", group, after, ErrFeedGap)
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

// parseEntries reads feed entries into room.
func parseEntries(group string, entries []redis.XMessage, room []subscriber.Change) []subscriber.Change {
	p := parserFor(group, entries, room)
	for i := range entries {
		p.entry(&entries[i])
	}
	return p.changes
}

// parserFor returns a parser with room for what the entries tell.
func parserFor(group string, entries []redis.XMessage, room []subscriber.Change) *feedParser {
	n := 0
	for i := range entries {
		n += 1 + strings.Count(text(&entries[i], "list"), "\n")
	}
	return &feedParser{group: group, changes: slices.Grow(room[:0], n)}
}

// feedParser makes changes of the entries of a group's feed.
type feedParser struct {
	group   string
	packer  subscriber.Packer
	changes []subscriber.Change
}

// entry reads an entry; one that is no change of a record adds nothing. It reports
// whether the entry is one that sessiond writes.
func (p *feedParser) entry(entry *redis.XMessage) (usable bool) {
	if lines, ok := entry.Values["list"].(string); ok {
		return p.lines(entry, lines)
	}
	c := subscriber.Change{ID: subscriber.ParseVersion(entry.ID), Kind: kinds[text(entry, "kind")]}
	inside, err := netip.ParseAddr(text(entry, "inside"))
	if err != nil || c.Kind == 0 {
		return text(entry, "kind") == kindRestart
	}
	c.Reason, _ = subscriber.ParseReason(text(entry, "reason"))
	cause, _ := strconv.ParseUint(text(entry, "cause"), 10, 32)
	c.Cause = uint32(cause)
	r := parseRecordText(subscriber.Key{Group: p.group, Inside: inside}, text(entry, "record"))
	if c.Kind != subscriber.Deleted {
		r.Version, r.ExpiresAt = entry.ID, entryExpiry(c.ID, text(entry, "ttl"))
	}
	c.Record = p.packer.Pack(&r)
	p.changes = append(p.changes, c)
	return true
}

func text(entry *redis.XMessage, field string) string {
	s, _ := entry.Values[field].(string)
	return s
}

// entryExpiry is when a record expires that was written with the entry, by
// Redis's clock.
func entryExpiry(id subscriber.Version, ttl string) time.Time {
	ms, err := strconv.ParseInt(ttl, 10, 64)
	if err != nil || ms == 0 || id == (subscriber.Version{}) {
		return time.Time{}
	}
	return time.UnixMilli(id.Time().UnixMilli() + ms)
}
