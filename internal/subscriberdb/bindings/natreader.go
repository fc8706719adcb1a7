package bindings

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/redisconn"
)

// Errors of readers of a NAT log.
var (
	// ErrLogGap: the log does not lead on from the position. Its database is another one or has
	// gone back in time, or the reader was too slow. The reader goes on from the blocks in
	// service, and does not know what happened between.
	ErrLogGap = errors.New("NAT log does not lead on from the position")
	// ErrLogNotWhole: there is no log, or not all bindings in force are in it yet.
	ErrLogNotWhole = errors.New("NAT log is not whole yet")
)

// LogPosition is a place between two events of a group's NAT log.
type LogPosition struct {
	Epoch  string // of the log: another database, or a log that began anew, has another one
	Entry  string // the last entry before the place, "0-0" for none
	Events uint64 // since the log began, up to the place
}

// String returns the position as a text without spaces.
func (p LogPosition) String() string {
	return p.Epoch + "/" + p.Entry + "/" + strconv.FormatUint(p.Events, 10)
}

// ParseLogPosition parses the result of String.
func ParseLogPosition(text string) (p LogPosition, err error) {
	parts := strings.Split(text, "/")
	if len(parts) != 3 {
		return p, fmt.Errorf("position in a NAT log %q: want <epoch>/<entry>/<events>", text)
	}
	p.Epoch, p.Entry = parts[0], parts[1]
	if p.Events, err = strconv.ParseUint(parts[2], 10, 64); err != nil {
		return LogPosition{}, fmt.Errorf("position in a NAT log %q: %w", text, err)
	}
	return p, nil
}

// NATLog returns the events behind a position in the log of a group's NAT, in order, and the
// position behind them. It reads at most max entries, each of which has up to 16 events. If there
// are none it waits up to block, and then returns none; of the context only the deadline takes
// effect meanwhile. ErrLogGap: see there; the zero position leads nowhere.
func (s *Store) NATLog(ctx context.Context, group string, after LogPosition, max int, block time.Duration) ([]nat.Event, LogPosition, error) {
	events, last, err := s.readLog(ctx, group, after, max)
	if err != nil || last != after || block <= 0 {
		return events, last, err
	}
	err = s.client.XRead(ctx, &redis.XReadArgs{Streams: []string{codec.NATLogKey(group), after.Entry}, Count: 1, Block: block}).Err()
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, after, fmt.Errorf("wait for the NAT log of group %q: %w", group, err)
	}
	return s.readLog(ctx, group, after, max)
}

func (s *Store) readLog(ctx context.Context, group string, after LogPosition, max int) ([]nat.Event, LogPosition, error) {
	if after == (LogPosition{}) {
		return nil, after, gapAfter(group, after)
	}
	count := int64(max)
	if after.Entry != beginning {
		count++ // the entry itself: while it exists, no later one was lost
	}
	pipe := s.client.Pipeline()
	read := pipe.Do(ctx, "xrange", codec.NATLogKey(group), after.Entry, "+", "count", count)
	epoch := pipe.HGet(ctx, codec.NATLogHeadKey(group), "epoch")
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return nil, after, fmt.Errorf("read the NAT log of group %q: %w", group, err)
	}
	entries, next := parseEntries(read.Val()), after
	if after.Entry == beginning {
		next.Events = 0
	} else {
		if len(entries) == 0 || entries[0].id != after.Entry || entries[0].next() != after.Events+1 {
			return nil, after, gapAfter(group, after)
		}
		entries = entries[1:]
	}
	if epoch.Val() != after.Epoch {
		return nil, after, gapAfter(group, after)
	}
	var events []nat.Event
	for j := range entries {
		e := &entries[j]
		if e.first != next.Events+1 {
			return nil, after, gapAfter(group, after)
		}
		for i := range e.events {
			event, err := e.events[i].event(group)
			if err != nil {
				s.logger.Error("event in the NAT log cannot be read", "group", group, "error", fmt.Errorf("entry %s: %w", e.id, err))
				continue
			}
			events = append(events, event)
		}
		next.Entry, next.Events = e.id, e.next()-1
	}
	return events, next, nil
}

// beginning is the identifier that precedes every entry.
const beginning = "0-0"

func gapAfter(group string, p LogPosition) error {
	return fmt.Errorf("group %q, position %s: %w", group, p, ErrLogGap)
}

// logEntry is an entry of a NAT log.
type logEntry struct {
	id     string
	first  uint64 // number of its first event
	events []loggedEvent
}

// loggedEvent is the field of an event.
type loggedEvent struct {
	released string // the time of a release; "a" for an allocation
	line     string
}

// event parses the event.
func (x *loggedEvent) event(group string) (nat.Event, error) {
	e, err := codec.ParseNATLine(group, x.line)
	if err != nil || x.released == "a" {
		return e, err
	}
	e.Kind, e.Since = nat.Released, e.At
	e.At, err = codec.ParseNATStamp(x.released)
	return e, err
}

// next returns the number of the first event behind the entry.
func (e *logEntry) next() uint64 { return e.first + uint64(len(e.events)) }

// parseEntries parses the answer of XRANGE, and leaves out entries that sessiond did not write.
// The fields of an entry are not unique, so a map of the client would lose some.
func parseEntries(answer any) []logEntry {
	list, _ := answer.([]any)
	entries := make([]logEntry, 0, len(list))
	for _, x := range list {
		pair, _ := x.([]any)
		if len(pair) != 2 {
			continue
		}
		id, _ := pair[0].(string)
		fields, _ := pair[1].([]any)
		if e, ok := parseEntry(id, fields); ok {
			entries = append(entries, e)
		}
	}
	return entries
}

func parseEntry(id string, fields []any) (e logEntry, ok bool) {
	if len(fields) < 4 || fields[0] != "first" {
		return e, false
	}
	first, _ := fields[1].(string)
	n, err := strconv.ParseUint(first, 10, 64)
	if err != nil {
		return e, false
	}
	e = logEntry{id: id, first: n, events: make([]loggedEvent, 0, len(fields)/2-1)}
	for i := 2; i+1 < len(fields); i += 2 {
		kind, _ := fields[i].(string)
		line, _ := fields[i+1].(string)
		e.events = append(e.events, loggedEvent{kind, line})
	}
	return e, true
}

// LogState is the end of a group's NAT log.
type LogState struct {
	LogPosition      // of the end
	Whole       bool // all bindings in force are in it
}

// NATLogEnd returns the end of the log of a group's NAT; one without an epoch if there is no
// log.
func (s *Store) NATLogEnd(ctx context.Context, group string) (LogState, error) {
	pipe := s.client.TxPipeline()
	head := pipe.HMGet(ctx, codec.NATLogHeadKey(group), "epoch", "events", "whole")
	last := pipe.XRevRangeN(ctx, codec.NATLogKey(group), "+", "-", 1)
	if _, err := pipe.Exec(ctx); err != nil {
		return LogState{}, fmt.Errorf("end of the NAT log of group %q: %w", group, err)
	}
	state := LogState{LogPosition: LogPosition{Entry: beginning}}
	state.Epoch, _ = head.Val()[0].(string)
	events, _ := head.Val()[1].(string)
	state.Events, _ = strconv.ParseUint(events, 10, 64)
	state.Whole = head.Val()[2] != nil
	if len(last.Val()) > 0 {
		state.Entry = last.Val()[0].ID
	}
	return state, nil
}

// NATLive yields the blocks in service, for a reader that has no position or found a gap: an
// Allocated event of each, in batches, in no order. The reader goes on from the position that
// is returned. The log may tell some of the events behind it that the list has already: a block
// and its time identify an allocation. ErrLogNotWhole: see there.
func (s *Store) NATLive(ctx context.Context, group string, yield func([]nat.Event) error) (LogPosition, error) {
	end, err := s.NATLogEnd(ctx, group)
	if err != nil {
		return LogPosition{}, err
	}
	if !end.Whole {
		return LogPosition{}, fmt.Errorf("group %q: %w", group, ErrLogNotWhole)
	}
	err = s.scanLog(ctx, group, func(fields []string) error {
		events := make([]nat.Event, 0, len(fields)/2)
		for i := 1; i < len(fields); i += 2 {
			for line := range strings.SplitSeq(fields[i], "\n") {
				e, err := codec.ParseNATLine(group, line)
				if err != nil {
					s.logger.Error("block in service cannot be read", "group", group, "error", err)
					continue
				}
				events = append(events, e)
			}
		}
		return yield(events)
	})
	if err != nil {
		return LogPosition{}, err
	}
	now, err := s.NATLogEnd(ctx, group)
	if err == nil && now.Epoch != end.Epoch {
		err = gapAfter(group, end.LogPosition)
	}
	return end.LogPosition, err
}

func (s *Store) scanLog(ctx context.Context, group string, yield func(fields []string) error) error {
	return redisconn.ReadAhead(ctx, func(ctx context.Context, emit func([]string) error) error {
		return s.client.ScanHash(ctx, codec.NATLogBlocksKey(group), emit)
	}, yield)
}

// The agreement of the log with the bindings in force.

// NotLogged returns the places of those of the bindings that the log of the group's NAT does
// not have as they are.
func (s *Store) NotLogged(ctx context.Context, group string, list []nat.Binding) ([]nat.Place, error) {
	var differ []nat.Place
	for chunk := range slices.Chunk(list, redisconn.PipelineLimit) {
		fields := make([]string, len(chunk))
		for i := range chunk {
			fields[i] = codec.FormatPlace(chunk[i].Place())
		}
		had, err := s.client.HMGet(ctx, codec.NATLogBlocksKey(group), fields...).Result()
		if err != nil {
			return nil, fmt.Errorf("blocks in service of group %q: %w", group, err)
		}
		for i := range chunk {
			if lines, _ := had[i].(string); !isLogged(&chunk[i], lines) {
				differ = append(differ, chunk[i].Place())
			}
		}
	}
	return differ, nil
}

// LoggedPlaces yields the places of the bindings that are in service by the log.
func (s *Store) LoggedPlaces(ctx context.Context, group string, yield func([]nat.Place) error) error {
	return s.scanLog(ctx, group, func(fields []string) error {
		places := make([]nat.Place, 0, len(fields)/2)
		for i := 0; i < len(fields); i += 2 {
			if p, err := codec.ParsePlace(fields[i]); err == nil {
				places = append(places, p)
			}
		}
		return yield(places)
	})
}

// isLogged reports whether the lines are those of a binding.
func isLogged(b *nat.Binding, lines string) bool {
	if b.State == nat.Held {
		return lines == ""
	}
	var ours, logged []nat.Block
	for x := range b.All() {
		ours = append(ours, x)
	}
	for line := range strings.SplitSeq(lines, "\n") {
		e, err := codec.ParseNATLine(b.Group, line)
		if err != nil || e.Holder.Inside != b.Inside {
			return false
		}
		if len(logged) == 0 && !codec.NATAllocatedAt(line, e.At).Equal(b.AllocatedAt) {
			return false
		}
		logged = append(logged, e.Block)
	}
	byPort := func(x, y nat.Block) int { return cmp.Compare(x.First, y.First) }
	slices.SortFunc(ours, byPort)
	slices.SortFunc(logged, byPort)
	return slices.Equal(ours, logged)
}

// MarkLogWhole marks that all bindings in force are in the log with an epoch.
func (s *Store) MarkLogWhole(ctx context.Context, group, epoch string) error {
	_, err := s.client.Call(ctx, wholeScript, []string{codec.NATLogHeadKey(group)}, epoch)
	if err != nil {
		return fmt.Errorf("NAT log of group %q is whole: %w", group, err)
	}
	return nil
}

// wholeScript marks that all bindings in force are in a log, unless it began anew.
//
// KEYS: 1 head of the log. ARGV: 1 the epoch.
var wholeScript = redis.NewScript(`
if redis.call('HGET', KEYS[1], 'epoch') == ARGV[1] then redis.call('HSET', KEYS[1], 'whole', '1') end
return 0
`)

// LogsNAT reports whether the NAT of the groups is logged.
func (s *Store) LogsNAT() bool { return s.o.Log }

// endLog ends the log of a group whose NAT is not logged any more.
func (s *Store) endLog(ctx context.Context, group string) error {
	if _, ended := s.ended.Load(group); ended || s.o.Log {
		return nil
	}
	keys := []string{codec.NATLogKey(group), codec.NATLogHeadKey(group), codec.NATLogBlocksKey(group), codec.NATLogReadersKey(group)}
	if err := s.client.Unlink(ctx, keys...).Err(); err != nil {
		return fmt.Errorf("end the NAT log of group %q: %w", group, err)
	}
	s.ended.Store(group, true)
	return nil
}
