package subscriberdb

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/redisconn"
)

// A feed keeps the entries that its readers have not read. Each reader stores its position
// in the group's hash of readers, and TrimFeeds removes the entries behind all positions.
// If a slow reader would make the feed exceed its bound, the oldest entries are removed
// nevertheless: that reader then finds a gap, and compares everything.

const (
	// readerLife is the time for which the feed is kept for a reader after its last report:
	// the TTL of tombstones.
	readerLife = 24 * time.Hour
	// readerAwake is the longest time since the last report of a reader for which producers
	// wait.
	readerAwake = 15 * time.Second
	// trimPause is the interval at which the feeds are trimmed.
	trimPause = time.Second
)

// Join registers a new reader of a group's feed at the given entry, so that no later entry
// is trimmed before the reader stores a position.
func (f *changeFeed) Join(ctx context.Context, group, reader, entry string) error {
	return f.tellPosition(ctx, group, reader, entry, "HSETNX")
}

// TellPosition stores that a reader of a group's feed has read it up to the given entry. A
// reader should call it regularly also if there was nothing to read.
func (f *changeFeed) TellPosition(ctx context.Context, group, reader, entry string) error {
	return f.tellPosition(ctx, group, reader, entry, "HSET")
}

func (f *changeFeed) tellPosition(ctx context.Context, group, reader, entry, how string) error {
	call := redisconn.NewCall(ctx, positionScript, []string{codec.ReadersKey(group)}, how, reader, entry)
	if err := f.client.Exchange(ctx, []redis.Cmder{call}); err != nil {
		return fmt.Errorf("tell position in feed %q: %w", group, err)
	}
	return nil
}

// FeedFill returns how full a group's feed was at the last trimming, as a fraction of its
// bound: from 1 on, unread changes are lost.
func (f *changeFeed) FeedFill(group string) float64 { return f.states.of(group).fill }

// feedState describes a feed at its last trimming.
type feedState struct {
	fill float64       // share of its bound
	lag  time.Duration // delay of the slowest reader that is awake
}

// feedStates holds the states of all groups' feeds.
type feedStates struct {
	mu      sync.Mutex
	byGroup map[string]feedState
	next    chan struct{} // closed after the next trimming; nil without waiters
	watched bool          // TrimFeeds runs
}

func (f *feedStates) of(group string) feedState {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.byGroup[group]
}

func (f *feedStates) set(group string, s feedState) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.byGroup == nil {
		f.byGroup = make(map[string]feedState)
	}
	f.byGroup[group] = s
}

// watch sets whether TrimFeeds runs.
func (f *feedStates) watch(on bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.watched = on
	f.wakeLocked()
}

// looked wakes the goroutines that wait for the next trimming.
func (f *feedStates) looked() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wakeLocked()
}

func (f *feedStates) wakeLocked() {
	if f.next != nil {
		close(f.next)
		f.next = nil
	}
}

// crowded returns a channel that is closed after the next trimming if the group's feed is
// filling and a reader is behind; nil if there is room.
func (f *feedStates) crowded(group string) <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s := f.byGroup[group]; !f.watched || s.fill < producersWait || s.lag < readerBehind {
		return nil
	}
	if f.next == nil {
		f.next = make(chan struct{})
	}
	return f.next
}

// A producer that ends many sessions at once waits while the feed is filled to
// producersWait and a reader is behind by readerBehind. It waits for at most readerPatience
// with each batch: a reader that hangs must not keep sessions from being ended for ever.
const (
	producersWait  = 0.5
	readerBehind   = 2 * time.Second
	readerPatience = 10 * time.Second
)

// awaitReaders waits until there is room in the group's feed, or readerPatience has passed.
// Accounting never waits here.
func (f *changeFeed) awaitReaders(ctx context.Context, group string) {
	ctx, cancel := context.WithTimeout(ctx, readerPatience)
	defer cancel()
	for {
		next := f.states.crowded(group)
		if next == nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-next:
		}
	}
}

// TrimFeeds trims the feeds of all groups as far as their readers allow, until the context
// ends. Errors are retried, and logged once in a row.
func (f *changeFeed) TrimFeeds(ctx context.Context) error {
	f.states.watch(true)
	defer f.states.watch(false)
	ticker := time.NewTicker(trimPause)
	defer ticker.Stop()
	for failing := false; ; {
		err := f.trimAll(ctx)
		if err != nil && !failing && ctx.Err() == nil {
			f.logger.Log(ctx, f.probe.severity(ctx), "change feeds not trimmed", "error", err)
		}
		failing = err != nil
		f.states.looked()
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

func (f *changeFeed) trimAll(ctx context.Context) error {
	var errs []error
	groups := f.inForce()
	for i := range groups.groups {
		errs = append(errs, f.trimFeed(ctx, &groups.groups[i]))
	}
	return errors.Join(errs...)
}

// trimStep bounds the entries that one call removes, and trimSteps the calls in a row. To
// free 10,000 entries with changes of 64 sessions each blocks Redis for 10 ms, and a
// million subscribers make no more than 50,000 a second.
const (
	trimStep  = 2_500
	trimSteps = 20
)

func (f *changeFeed) trimFeed(ctx context.Context, g *Group) error {
	lost := int64(0)
	for range trimSteps {
		cut, more, err := f.trimOnce(ctx, g)
		if err != nil {
			return fmt.Errorf("trim feed %q: %w", g.Name, err)
		}
		if lost += cut; !more {
			break
		}
	}
	if lost > 0 {
		f.logger.Error("change feed has outgrown its bound: its oldest entries are gone, though not everybody has read them",
			"group", g.Name, "entries", lost, "alarm", "sessiond_feed_fill_ratio")
	}
	return nil
}

// trimOnce removes some entries. It returns the number of unread ones that it removed
// because of the bound, and whether there are more entries to remove.
func (f *changeFeed) trimOnce(ctx context.Context, g *Group) (lost int64, more bool, err error) {
	call := redisconn.NewCall(ctx, trimScript, []string{g.txns.Feed, codec.ReadersKey(g.Name)},
		f.length, f.octets, readerLife.Milliseconds(), readerAwake.Milliseconds(), trimStep)
	if err := f.client.Exchange(ctx, []redis.Cmder{call}); err != nil {
		return 0, false, err
	}
	answer, err := call.Int64Slice()
	if err != nil || len(answer) != 5 {
		return 0, false, fmt.Errorf("script answered %v", call.Val())
	}
	length, octets, lag := answer[0], answer[1], answer[2]
	f.states.set(g.Name, feedState{
		fill: max(float64(length)/float64(f.limit), float64(octets)/float64(f.octets)),
		lag:  time.Duration(lag) * time.Millisecond,
	})
	return answer[3], answer[4] > 0, nil
}

// positionScript stores the position of a reader, and the time.
//
// KEYS: 1 hash of readers. ARGV: 1 HSET, or HSETNX for a reader that is not known
// yet, 2 the reader, 3 the last entry that it has read.
var positionScript = redis.NewScript(`
redis.call('HDEL', KEYS[1], '') -- nothing, for a Redis that is full (see txn/commit.go): the feed is trimmed by this
local now = redis.call('TIME')
local at = string.format('%d', now[1] * 1000 + math.floor(now[2] / 1000))
return redis.call(ARGV[1], KEYS[1], ARGV[2], ARGV[3] .. ' ' .. at)
`)

// trimScript removes the entries of a feed that all readers have read, except the newest.
// It drops readers without a report for long; without readers, no unread entries are kept.
// It also removes the oldest entries of a feed that exceeds its bound. One call removes few
// enough entries not to block Redis.
//
// KEYS: 1 feed, 2 hash of readers. ARGV: 1 entries to keep in any case, 2 octets that the
// feed may have, 3 for how long a reader without a report is kept and 4 counts as awake,
// both in milliseconds, 5 most entries to remove for each reason.
//
// Returns the number of remaining entries; their octets, or 0 where they are few or the
// server does not say; the delay in milliseconds of the slowest reader that is awake behind
// the newest entry; the number of unread entries removed because of the bound; and 1 if
// more should be removed, else 0.
var trimScript = redis.NewScript(`
local call, feed, readers = redis.call, KEYS[1], KEYS[2]
local keep, most = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function parse(entry)
  local ms, number = string.match(entry, '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(number)
end

local newest = call('XREVRANGE', feed, '+', '-', 'COUNT', 1)
local last = 0
if newest[1] then last = parse(newest[1][1]) end

local least, leastms, leastnumber
local lag = 0
local known = call('HGETALL', readers)
for i = 1, #known, 2 do
  local entry, at = string.match(known[i + 1], '^(%d+%-%d+) (%d+)$')
  local silent = at and now - tonumber(at)
  if not at or silent > tonumber(ARGV[3]) then
    call('HDEL', readers, known[i])
  else
    local ms, number = parse(entry)
    if not least or ms < leastms or ms == leastms and number < leastnumber then
      least, leastms, leastnumber = entry, ms, number
    end
    if silent <= tonumber(ARGV[4]) and last - ms > lag then lag = last - ms end
  end
end

local step, more = tonumber(ARGV[5]), 0
local function trim(...)
  local off = call('XTRIM', feed, ...)
  if off > step / 2 then more = 1 end -- whole nodes go, and so a little less than a step
  return off
end

local length = call('XLEN', feed)
if length > keep then
  if least then
    length = length - trim('MINID', '~', least, 'LIMIT', math.min(length - keep, step))
  else
    length = length - trim('MAXLEN', '~', keep, 'LIMIT', step)
  end
end

local octets, cut = 0, 0
if length > keep then
  local told = redis.pcall('MEMORY', 'USAGE', feed)
  if type(told) == 'number' then octets = told end
  if octets > most then
    cut = trim('MAXLEN', '~', math.floor(length * most / octets * 0.9), 'LIMIT', step)
    length = length - cut
  end
end
return {length, octets, lag, cut, more}
`)
