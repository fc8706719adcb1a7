package nases

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/redisconn"
)

// NASes are stored in Redis (codec.NASesKey, codec.RefusedKey), so that a daemon has their
// clocks after a start, and operators see the data of all daemons.

const (
	nasFlush = 2 * time.Second // interval between writes
	// Life is the time for which a silent NAS is kept and listed.
	Life     = 30 * 24 * time.Hour
	nasSweep = time.Hour // interval between searches for such NASes
	// nasBatch bounds the NASes of one script call, during which Redis serves no other
	// client.
	nasBatch = 128
	// nasMerges bounds the attempts to write a line that another daemon changed meanwhile;
	// the next flush tries again.
	nasMerges = 4
)

// A Store stores a Registry in Redis. Its methods may be called concurrently.
type Store struct {
	known  *Registry
	client *redisconn.Client
	logger *slog.Logger
	now    func() time.Time
}

// NewStore returns a Store. The client must have the scripts of this package, see Scripts.
func NewStore(known *Registry, client *redisconn.Client, logger *slog.Logger, now func() time.Time) *Store {
	return &Store{known, client, logger, now}
}

// Scripts returns the scripts that a server has to load.
func Scripts() []*redis.Script { return []*redis.Script{nasScript, countScript} }

// KeepNASes reads the stored NASes, then writes changes, and drops NASes that were silent
// for long, until the context ends. Errors are retried at the next interval: nothing else
// waits for it.
func (s *Store) KeepNASes(ctx context.Context) error {
	ticker := time.NewTicker(nasFlush)
	defer ticker.Stop()
	var swept time.Time
	for {
		err := s.FlushNASes(ctx)
		if now := s.now(); err == nil && (swept.IsZero() || now.Sub(swept) >= nasSweep) {
			if err = s.sweepNASes(ctx); err == nil {
				swept = now
			}
		}
		if err != nil && ctx.Err() == nil {
			s.logger.Debug("NASes not written", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// FlushNASes writes all unwritten changes. Those that could not be written are kept for the
// next time; counts that Redis added but did not answer may be added twice.
func (s *Store) FlushNASes(ctx context.Context) error {
	release, err := s.known.lockWrites(ctx)
	if err != nil {
		return err
	}
	defer release()
	if err := s.loadNASes(ctx); err != nil {
		return err
	}
	for n := s.known.pending(); n > 0; n -= nasBatch { // changes made meanwhile are for the next time
		if err := s.writeNASes(ctx, s.known.news(nasBatch)); err != nil {
			return err
		}
	}
	return nil
}

// lockWrites waits until no other goroutine writes, or the context ends.
func (r *Registry) lockWrites(ctx context.Context) (release func(), err error) {
	select {
	case r.turn <- struct{}{}:
		return func() { <-r.turn }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// loadNASes reads the stored NASes once, before the first write, which would overwrite
// them.
func (s *Store) loadNASes(ctx context.Context) error {
	if s.known.loaded {
		return nil
	}
	now := s.now()
	err := s.client.ScanHash(ctx, codec.NASesKey, func(fields []string) error {
		for i := 0; i+1 < len(fields); i += 2 {
			name, line, ok := codec.ParseNASRow(fields[i], fields[i+1])
			if ok && !forgotten(&line, now) {
				s.known.adopt(name, fields[i+1], now)
			}
		}
		return nil
	})
	s.known.loaded = err == nil
	return err
}

// writeNASes writes the lines and then the counts, because a count without a line is swept.
func (s *Store) writeNASes(ctx context.Context, news []nasNews) error {
	written, err := s.writeNASLines(ctx, news)
	if err != nil {
		s.known.unsaid(news)
		return err
	}
	var counts []any
	for i := range written {
		ref := written[i].ref()
		for v, n := range written[i].refused {
			counts = append(counts, ref+" "+v.String(), n)
		}
	}
	if len(counts) == 0 {
		return nil
	}
	if err := s.client.Exchange(ctx, []redis.Cmder{redisconn.NewCall(ctx, countScript, []string{codec.RefusedKey}, counts...)}); err != nil {
		s.known.unsaid(written)
		return err
	}
	return nil
}

// writeNASLines writes lines, and returns the news whose lines are in Redis now. If another
// daemon changed a line, it writes the data of both.
func (s *Store) writeNASLines(ctx context.Context, news []nasNews) (written []nasNews, err error) {
	left := slices.Clone(news)
	for range nasMerges {
		if len(left) == 0 {
			return written, nil
		}
		args := []any{s.known.shares.All()}
		for i := range left {
			args = append(args, left[i].ref(), left[i].was, left[i].line)
		}
		answers, err := s.callNASes(ctx, args)
		if err != nil {
			return nil, err
		}
		again := left[:0]
		for i, answer := range answers {
			n := left[i]
			switch stands, other := answer.(string); {
			case other:
				s.known.merged(&n, stands, s.now())
				again = append(again, n)
			case answer == int64(1):
				s.known.said(&n)
				written = append(written, n)
			default: // the hash is full
				s.known.uncounted(&n)
			}
		}
		left = again
	}
	s.known.unsaid(left)
	return written, nil
}

// callNASes calls the script that writes lines.
func (s *Store) callNASes(ctx context.Context, args []any) ([]any, error) {
	call := redisconn.NewCall(ctx, nasScript, []string{codec.NASesKey}, args...)
	if err := s.client.Exchange(ctx, []redis.Cmder{call}); err != nil {
		return nil, err
	}
	answers, err := call.Slice()
	if err == nil && len(answers) != (len(args)-1)/3 {
		err = fmt.Errorf("%d answers about %d NASes", len(answers), (len(args)-1)/3)
	}
	return answers, err
}

// NASes returns all NASes that sent accounting to any daemon within a month, in order of
// their clients and names, with this daemon's unwritten data.
func (s *Store) NASes(ctx context.Context) ([]NAS, error) {
	if err := s.FlushNASes(ctx); err != nil {
		return nil, fmt.Errorf("write NASes: %w", err)
	}
	byRef := make(map[string]*NAS)
	now := s.now()
	err := s.client.ScanHash(ctx, codec.NASesKey, func(fields []string) error {
		for i := 0; i+1 < len(fields); i += 2 {
			if name, line, ok := codec.ParseNASRow(fields[i], fields[i+1]); ok && !forgotten(&line, now) {
				byRef[fields[i]] = &NAS{name, line, make(map[string]uint64)}
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read NASes: %w", err)
	}
	err = s.client.ScanHash(ctx, codec.RefusedKey, func(fields []string) error {
		for i := 0; i+1 < len(fields); i += 2 {
			ref, verdict, _ := strings.Cut(fields[i], " ")
			n := byRef[ref]
			if count, err := strconv.ParseUint(fields[i+1], 10, 64); err == nil && n != nil {
				n.Refused[verdict] = count
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read refused events: %w", err)
	}
	list := make([]NAS, 0, len(byRef))
	for _, n := range byRef {
		list = append(list, *n)
	}
	slices.SortFunc(list, func(a, b NAS) int {
		return cmp.Or(cmp.Compare(a.Client, b.Client), cmp.Compare(a.Name, b.Name))
	})
	return list, nil
}

// sweepNASes drops the NASes that were silent for long, and counts without a NAS.
func (s *Store) sweepNASes(ctx context.Context) error {
	release, err := s.known.lockWrites(ctx)
	if err != nil {
		return err
	}
	defer release()
	var counts []string // read before the lines, because they are written after them
	err = s.client.ScanHash(ctx, codec.RefusedKey, func(fields []string) error {
		for i := 0; i+1 < len(fields); i += 2 {
			counts = append(counts, fields[i])
		}
		return nil
	})
	if err != nil {
		return err
	}
	now := s.now()
	known := make(map[string]bool) // NASes that are kept
	old := []any{s.known.shares.All()}
	err = s.client.ScanHash(ctx, codec.NASesKey, func(fields []string) error {
		for i := 0; i+1 < len(fields); i += 2 {
			n := codec.ParseNASLine(fields[i+1])
			if known[fields[i]] = !forgotten(&n, now); !known[fields[i]] {
				old = append(old, fields[i], fields[i+1], "")
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for chunk := range slices.Chunk(old[1:], 3*nasBatch) {
		if _, err := s.callNASes(ctx, append(slices.Clone(old[:1]), chunk...)); err != nil {
			return err
		}
	}
	s.known.forget(now)
	counts = slices.DeleteFunc(counts, func(field string) bool {
		ref, _, _ := strings.Cut(field, " ")
		return known[ref]
	})
	for chunk := range slices.Chunk(counts, nasBatch) {
		if err := s.client.HDel(ctx, codec.RefusedKey, chunk...).Err(); err != nil {
			return fmt.Errorf("forget refused events: %w", err)
		}
	}
	return nil
}

// forgotten reports whether the NAS was silent for so long that it is dropped.
func forgotten(n *codec.NASLine, now time.Time) bool { return now.Sub(n.LastHeard) > Life }

// nasScript writes the lines of NASes, each if Redis still has the expected line: another
// daemon may have added data.
//
// KEYS: 1 the hash of NASes. ARGV: the most that it may hold, then for each NAS its field,
// the expected line ("" for none), and the new one ("" to delete). Returns for each the
// line found instead, 1 when it is done, or 0 when there are too many.
var nasScript = redis.NewScript(`
local answers = {}
for i = 2, #ARGV, 3 do
  local field, was, line, answer = ARGV[i], ARGV[i + 1], ARGV[i + 2], 1
  local stands = redis.call('HGET', KEYS[1], field) or ''
  if stands ~= was then
    answer = stands
  elseif line == '' then
    redis.call('HDEL', KEYS[1], field)
  elseif was == '' and redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[1]) then
    answer = 0
  else
    redis.call('HSET', KEYS[1], field, line)
  end
  answers[#answers + 1] = answer
end
return answers
`)

// countScript adds to counters, all or none. A counter that is not a number is set anew.
//
// KEYS: 1 the hash of counters. ARGV: for each its field, and the number to add. Returns 1.
var countScript = redis.NewScript(`
for i = 1, #ARGV, 2 do
  local sum = redis.pcall('HINCRBY', KEYS[1], ARGV[i], ARGV[i + 1])
  if type(sum) == 'table' then redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
end
return 1
`)
