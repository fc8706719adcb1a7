package subscriberdb

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/redisconn"
	"github.com/sessiond/sessiond/internal/subscriberdb/txn"
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
	last := entries[len(entries)-1].ID
	if subscriber.VersionTime(last).After(f.now().Add(entryAhead)) { // our clock, which may be wrong, decides only whether to ask Redis
		anew, err := f.begunAnew(ctx, group, last)
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
	return p.Changes, last, nil
}

// FeedEntry returns the changes in one entry of a group's feed; ErrFeedGap if it is gone.
func (f *changeFeed) FeedEntry(ctx context.Context, group, entry string) ([]subscriber.Change, error) {
	entries, err := f.client.XRangeN(ctx, codec.FeedKey(group), entry, entry, 1).Result()
	switch {
	case err != nil:
		return nil, fmt.Errorf("read entry %s of feed %q: %w", entry, group, err)
	case len(entries) == 0:
		return nil, gapAfter(group, entry)
	}
	return parseEntry(group, &entries[0]), nil
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

func gapAfter(group, after string) error {
	return fmt.Errorf("feed %q after %s: %w", group, after, ErrFeedGap)
}

func feedEntry(m *redis.XMessage) codec.FeedEntry {
	return codec.FeedEntry{ID: m.ID, Fields: m.Values}
}

// parseEntry returns the changes of one entry.
func parseEntry(group string, m *redis.XMessage) []subscriber.Change {
	e := feedEntry(m)
	p := codec.NewFeedParser(group, e.Changes(), nil)
	p.Parse(e)
	return p.Changes
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

// The way back: the last changes of records, and the newest of all.

// announcedWithin is the number of newest feed entries that are searched for the end of a
// record without other traces.
const announcedWithin = 1000

// lastChanges returns the kind of the last change at each address within the newest
// entries.
func (f *changeFeed) lastChanges(ctx context.Context, group string) (map[netip.Addr]subscriber.ChangeKind, error) {
	entries, err := f.client.XRevRangeN(ctx, codec.FeedKey(group), "+", "-", announcedWithin).Result()
	if err != nil {
		return nil, err
	}
	last := make(map[netip.Addr]subscriber.ChangeKind)
	for i := range entries {
		for _, c := range parseEntry(group, &entries[i]) {
			if _, known := last[c.Record.Inside()]; !known {
				last[c.Record.Inside()] = c.Kind
			}
		}
	}
	return last, nil
}

// endsTold returns the reasons of the ends that the feed has for the records, behind their
// versions. It reads the feed backwards, as far as necessary.
func (f *changeFeed) endsTold(ctx context.Context, records []subscriber.Record) (map[subscriber.Key]subscriber.Reason, error) {
	byGroup := map[string]map[netip.Addr]string{}
	for i := range records {
		r := &records[i]
		if byGroup[r.Group] == nil {
			byGroup[r.Group] = map[netip.Addr]string{}
		}
		byGroup[r.Group][r.Inside] = r.Version
	}
	told := map[subscriber.Key]subscriber.Reason{}
	for group, versions := range byGroup {
		if err := f.searchEnds(ctx, group, versions, told); err != nil {
			return nil, err
		}
	}
	return told, nil
}

// searchEnds finds the last change of each address, and then deletes the address from
// versions: older entries cannot hold the record's end.
func (f *changeFeed) searchEnds(ctx context.Context, group string, versions map[netip.Addr]string, told map[subscriber.Key]subscriber.Reason) error {
	oldest := oldestOf(versions)
	for end := "+"; len(versions) > 0; {
		entries, err := f.client.XRevRangeN(ctx, codec.FeedKey(group), end, oldest, announcedWithin).Result()
		if err != nil {
			return err
		}
		for i := range entries {
			for _, c := range parseEntry(group, &entries[i]) {
				inside := c.Record.Inside()
				version, wanted := versions[inside]
				if !wanted {
					continue
				}
				delete(versions, inside)
				if c.Kind == subscriber.Deleted && c.ID.Compare(subscriber.ParseVersion(version)) > 0 {
					told[c.Record.Key()] = c.Reason
				}
			}
		}
		if len(entries) < announcedWithin {
			return nil
		}
		end = "(" + entries[len(entries)-1].ID
	}
	return nil
}

// oldestOf returns the oldest version as the identifier of a feed entry; "-", which
// precedes all entries, if one of the versions is empty.
func oldestOf(versions map[netip.Addr]string) string {
	var oldest subscriber.Version
	first := true
	for _, text := range versions {
		v := subscriber.ParseVersion(text)
		if v == (subscriber.Version{}) {
			return "-"
		}
		if first || v.Compare(oldest) < 0 {
			oldest, first = v, false
		}
	}
	return oldest.String()
}

// Recent returns the Created and Deleted changes in a group's feed since a time by Redis's
// clock, the oldest first.
func (f *changeFeed) Recent(ctx context.Context, group string, since time.Time) ([]subscriber.Change, error) {
	recent := codec.NewFeedParser(group, 0, nil)
	for start := strconv.FormatInt(max(0, since.UnixMilli()), 10); ; {
		entries, err := f.client.XRangeN(ctx, codec.FeedKey(group), start, "+", redisconn.ScanCount).Result()
		if err != nil {
			return nil, fmt.Errorf("recent changes in feed %q: %w", group, err)
		}
		for i := range entries {
			entry := feedEntry(&entries[i])
			if !entry.Updates() {
				recent.Parse(entry)
			}
			start = "(" + entry.ID
		}
		if len(entries) < redisconn.ScanCount {
			return recent.Changes, nil
		}
	}
}

// Feeds that have to begin anew, because their identifiers are used up or in the future.

// entryAhead is the tolerated lead of an identifier over Redis's clock, because that clock
// may have been set back.
const entryAhead = time.Hour

// begunAnew deletes the feed if its identifiers are too far ahead of Redis's clock, and
// reports whether it did.
func (f *changeFeed) begunAnew(ctx context.Context, group, last string) (bool, error) {
	g, err := f.group(group)
	if err != nil {
		return false, nil // it is not configured any more
	}
	call := redisconn.NewCall(ctx, aheadScript, []string{g.txns.Feed}, entryAhead.Milliseconds())
	if err := f.client.Exchange(ctx, []redis.Cmder{call}); err != nil {
		return false, fmt.Errorf("check identifiers of feed %q: %w", group, err)
	}
	if call.Val() != int64(1) {
		return false, nil
	}
	f.found(group, codec.GarbageFeed, g.txns.Feed+" "+last)
	return true, nil
}

// aheadScript deletes a feed whose last identifier was not made from Redis's clock: all
// later identifiers would be in the future too.
//
// KEYS: 1 the feed. ARGV: 1 how far its identifiers may be ahead of the clock, in
// milliseconds. Returns 1 when it was deleted.
var aheadScript = redis.NewScript(`
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
if #last == 0 then return 0 end
local now = redis.call('TIME')
if tonumber(string.match(last[1][1], '^%d+')) <= now[1] * 1000 + ARGV[1] then return 0 end
redis.call('UNLINK', KEYS[1])
return 1
`)

// renewFeed deletes a feed that accepts no more entries. Its readers find that the entry
// that they read last is gone, and compare everything. New versions are still higher than
// the records' present ones, because Redis makes them from its clock.
func (f *changeFeed) renewFeed(ctx context.Context, g *txn.Group) {
	f.found(g.Name, codec.GarbageFeed, g.Feed)
	if err := f.client.Exchange(ctx, []redis.Cmder{redisconn.NewCall(ctx, renewScript, []string{g.Feed})}); err != nil {
		f.logger.Error("change feed takes no entry, and cannot be deleted", "group", g.Name, "error", err)
	}
}

// renewScript deletes a feed if its last identifier is the highest possible one. The check
// is in the script because several daemons may call it, and a late call must not delete the
// new feed.
//
// KEYS: 1 the feed. Returns 1 when it was deleted.
var renewScript = redis.NewScript(`
local info = redis.pcall('XINFO', 'STREAM', KEYS[1])
if info.err then return 0 end
for i = 1, #info, 2 do
  if info[i] == 'last-generated-id' and info[i + 1] == '18446744073709551615-18446744073709551615' then
    return redis.call('UNLINK', KEYS[1])
  end
end
return 0
`)
