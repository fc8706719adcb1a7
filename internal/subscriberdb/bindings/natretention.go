package bindings

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/clock"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
)

// A NAT log keeps the events that one of its readers has not read. Readers have names, and a
// reader counts from when it tells its position until it leaves, or has reported nothing for readerLife.
// Beyond the bounds the oldest events go nevertheless: they are counted, and the reader finds
// a gap.

const (
	// mostEvents and mostOctets bound the log of one group: the events of a million subscribers
	// who go offline and come back within an hour, for half of that. Redis's memory is bounded
	// too, and a log that fills it would keep subscribers from coming online.
	mostEvents = 1_000_000
	mostOctets = 256 << 20
	// keptEntries are kept although all have read them.
	keptEntries = 100
	// readerLife is a week, so that a daemon that is away over a long weekend loses nothing within
	// the bounds, and a reader that is not configured any more does not fill the log for ever.
	readerLife = 7 * 24 * time.Hour
	// logPause is the interval at which the logs are trimmed.
	logPause = time.Second
	// logStep bounds the entries that one call removes, and logSteps the calls in a row.
	logStep  = 500
	logSteps = 20
)

// TellLogPosition stores that a reader needs no event before a position any more, and registers it.
// It should be called regularly, also without events.
func (s *Store) TellLogPosition(ctx context.Context, group, reader string, p LogPosition) error {
	text := fmt.Sprintf("%s %d %d", p.Entry, p.Events, s.o.Now().UnixMilli())
	call := redis.NewCmd(ctx, "HSET", codec.NATLogReadersKey(group), reader, text)
	if err := s.client.Exchange(ctx, []redis.Cmder{call}); err != nil {
		return fmt.Errorf("tell position in the NAT log of group %q: %w", group, err)
	}
	return nil
}

// LogReaders returns the names of the readers of a group's NAT log.
func (s *Store) LogReaders(ctx context.Context, group string) ([]string, error) {
	names, err := s.client.HKeys(ctx, codec.NATLogReadersKey(group)).Result()
	if err != nil {
		return nil, fmt.Errorf("readers of the NAT log of group %q: %w", group, err)
	}
	return names, nil
}

// LeaveLog forgets a reader: the log keeps nothing for it.
func (s *Store) LeaveLog(ctx context.Context, group, reader string) error {
	if err := s.client.HDel(ctx, codec.NATLogReadersKey(group), reader).Err(); err != nil {
		return fmt.Errorf("leave the NAT log of group %q: %w", group, err)
	}
	return nil
}

// LogFill describes a group's NAT log at its last trimming.
type LogFill struct {
	Share  float64 // of its bounds: from 1 on, unread events are lost
	Unread uint64  // events that the slowest reader has not read
	Lost   uint64  // events that were removed unread since the daemon started
}

// NATLogFill returns the state of a group's NAT log.
func (s *Store) NATLogFill(group string) LogFill { return s.logs.of(group) }

// logStates holds the states of all groups' logs.
type logStates struct {
	mu      sync.Mutex
	byGroup map[string]LogFill
}

func (l *logStates) of(group string) LogFill {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.byGroup[group]
}

func (l *logStates) set(group string, f LogFill) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.byGroup == nil {
		l.byGroup = map[string]LogFill{}
	}
	f.Lost += l.byGroup[group].Lost
	l.byGroup[group] = f
}

// TrimNATLogs trims the logs of all groups as far as their readers allow, until the context
// ends. Errors are retried, and logged once in a row.
func (s *Store) TrimNATLogs(ctx context.Context) error {
	for failing := false; ; {
		err := s.TrimNATLogsOnce(ctx)
		if err != nil && !failing && ctx.Err() == nil {
			s.logger.Warn("NAT logs not trimmed", "error", err)
		}
		failing = err != nil
		if clock.Sleep(ctx, logPause) != nil {
			return nil
		}
	}
}

// TrimNATLogsOnce trims the logs once.
func (s *Store) TrimNATLogsOnce(ctx context.Context) error {
	var errs []error
	for _, group := range s.o.Groups() {
		errs = append(errs, s.trimLog(ctx, group, logBounds{mostEvents, mostOctets}))
	}
	return errors.Join(errs...)
}

// logBounds are the most events and octets of a log.
type logBounds struct{ events, octets int }

func (s *Store) trimLog(ctx context.Context, group string, most logBounds) error {
	var fill LogFill
	for range logSteps {
		call, err := s.client.Call(ctx, trimScript, []string{codec.NATLogKey(group), codec.NATLogReadersKey(group)},
			keptEntries, most.events, most.octets, s.o.Now().Add(-readerLife).UnixMilli(), logStep)
		if err != nil {
			return fmt.Errorf("trim the NAT log of group %q: %w", group, err)
		}
		answer, err := call.Int64Slice()
		if err != nil || len(answer) != 5 {
			return fmt.Errorf("trim the NAT log of group %q: script answered %v", group, call.Val())
		}
		fill.Share = max(float64(answer[0])/float64(most.events), float64(answer[1])/float64(most.octets))
		fill.Unread = uint64(answer[2])
		fill.Lost += uint64(answer[3])
		if answer[4] == 0 {
			break
		}
	}
	s.logs.set(group, fill)
	if fill.Lost > 0 {
		s.logger.Error("NAT log has outgrown its bound: its oldest events are gone, though not everybody has read them",
			"group", group, "entries", fill.Lost)
	}
	return nil
}

// trimScript removes the entries of a NAT log that all readers have read, except the newest, and
// the oldest ones beyond the bounds. Without readers, no unread entries are kept.
//
// KEYS: 1 the log, 2 hash of readers. ARGV: 1 entries to keep in any case, 2 most events, 3
// most octets, 4 the time in milliseconds before which a reader has reported for the last time
// that is dropped, 5 most entries to remove for each reason.
//
// Returns the number of remaining events; their octets, or 0 where the server does not say;
// the number of events that the slowest reader has not read; the number of unread ones that
// were removed; and 1 if more should be removed, else 0.
var trimScript = redis.NewScript(`
local call, log, readers = redis.call, KEYS[1], KEYS[2]
local keep, most, step = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[5])

local function parse(entry)
  local ms, number = string.match(entry, '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(number)
end
local function first()
  local oldest = call('XRANGE', log, '-', '+', 'COUNT', 1)
  return oldest[1] and tonumber(oldest[1][2][2]) or 0
end

local least, leastms, leastnumber, leastread
local known = call('HGETALL', readers)
for i = 1, #known, 2 do
  local entry, events, at = string.match(known[i + 1], '^(%d+%-%d+) (%d+) (%d+)$')
  if not at or tonumber(at) < tonumber(ARGV[4]) then
    call('HDEL', readers, known[i])
  else
    local ms, number = parse(entry)
    if not least or ms < leastms or ms == leastms and number < leastnumber then
      least, leastms, leastnumber, leastread = entry, ms, number, tonumber(events)
    end
  end
end

local more = 0
local function trim(...)
  local off = call('XTRIM', log, ...)
  if off > step / 2 then more = 1 end -- whole nodes go, and so a little less than a step
  return off
end

local length = call('XLEN', log)
if length > keep then
  if least then
    length = length - trim('MINID', '~', least, 'LIMIT', math.min(length - keep, step))
  else
    length = length - trim('MAXLEN', '~', keep, 'LIMIT', step)
  end
end

local newest, last = call('XREVRANGE', log, '+', '-', 'COUNT', 1), 0
if newest[1] then
  last = (tonumber(newest[1][2][2]) or 0) + #newest[1][2] / 2 - 2
end
local oldest = first()
local octets, lost = 0, 0
if length > keep then
  local told = redis.pcall('MEMORY', 'USAGE', log)
  if type(told) == 'number' then octets = told end
  local share = math.max((last - oldest + 1) / most, octets / tonumber(ARGV[3]))
  if share > 1 then
    trim('MAXLEN', '~', math.max(keep, math.floor(length / share * 0.9)), 'LIMIT', step)
    local begins = first()
    if least then lost = math.max(0, begins - math.max(leastread + 1, oldest)) end
    oldest = begins
  end
end
local unread = 0
if least then unread = math.max(0, last - math.max(leastread, oldest - 1)) end
local events = 0
if last > 0 then events = last - oldest + 1 end
return {events, octets, unread, lost, more}
`)
