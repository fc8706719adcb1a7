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

// NASes are kept in Redis (codec.NASesKey, codec.RefusedKey), so that a daemon that starts
// knows their clocks, and a person sees the knowledge of all daemons.

const (
	nasFlush = 2 * time.Second // how often changes are written
	// Life is how long a NAS that is not heard of is known, and stands in the list.
	Life     = 30 * 24 * time.Hour
	nasSweep = time.Hour // how often those are looked for
	// nasBatch bounds the NASes of one script call, which keeps Redis from others.
	nasBatch = 128
	// nasMerges bounds how often a line is written anew because another daemon was
	// faster; it is tried again with the next flush.
	nasMerges = 4
)

// A Store keeps a Registry in Redis. Its methods may be called concurrently.
type Store struct {
	known  *Registry
	client *redisconn.Client
	logger *slog.Logger
	now    func() time.Time
}

// NewStore returns a Store. The client has to know the scripts of this package, see Scripts.
func NewStore(known *Registry, client *redisconn.Client, logger *slog.Logger, now func() time.Time) *Store {
	return &Store{known, client, logger, now}
}

// Scripts returns the scripts that a server has to know.
func Scripts() []*redis.Script { return []*redis.Script{nasScript, countScript} }

// KeepNASes reads the NASes that were known, writes changes, and forgets
// those that are gone, until the context ends. Errors are tried again: nothing else
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

// FlushNASes writes all changes that were not written yet. Those that could not be
// written are kept for the next time; of the counts, those that Redis took without
// an answer may count twice.
func (s *Store) FlushNASes(ctx context.Context) error {
	release, err := s.known.takeTurn(ctx)
	if err != nil {
		return err
	}
	defer release()
	if err := s.loadNASes(ctx); err != nil {
		return err
	}
	for n := s.known.pending(); n > 0; n -= nasBatch { // changes of meanwhile are for the next time
		if err := s.writeNASes(ctx, s.known.news(nasBatch)); err != nil {
			return err
		}
	}
	return nil
}

// takeTurn waits until nobody else writes, or the context ends.
func (r *Registry) takeTurn(ctx context.Context) (release func(), err error) {
	select {
	case r.turn <- struct{}{}:
		return func() { <-r.turn }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// loadNASes reads, once, the NASes that were known: before anything is written, or
// that would be lost.
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

// writeNASes writes lines first and then counts, which belong to a line.
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

// writeNASLines returns the news whose lines stand in Redis now. Where another daemon
// has changed a line, the knowledge of both is written.
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
			default: // too many
				s.known.uncounted(&n)
			}
		}
		left = again
	}
	s.known.unsaid(left)
	return written, nil
}

// callNASes carries out the script that writes lines.
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

// NASes returns all NASes that sent accounting to any daemon within a month, in
// order of their clients and names. What this daemon knows and has not written yet
// is told too.
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

// sweepNASes forgets the NASes that were not heard of for long, and counts without a
// NAS.
func (s *Store) sweepNASes(ctx context.Context) error {
	release, err := s.known.takeTurn(ctx)
	if err != nil {
		return err
	}
	defer release()
	var counts []string // read before the lines, which are written before them
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
	known := make(map[string]bool) // those that stay
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

// forgotten reports whether the NAS was not heard of for so long that it is gone.
func forgotten(n *codec.NASLine, now time.Time) bool { return now.Sub(n.LastHeard) > Life }

// nasScript writes the lines of NASes, each if the line that it rests on still stands
// there: another daemon may know more.
//
// KEYS: 1 the hash of NASes. ARGV: the most that it may hold, then for each NAS its
// field, the line that should stand ("" for none), and the new one ("" to delete).
// Returns for each the line that stands instead, 1 when it is done, or 0 when there
// are too many.
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

// countScript adds to counters, all or none. One that a person made something else of
// begins anew.
//
// KEYS: 1 the hash of counters. ARGV: for each its field, and how much to add.
// Returns 1.
var countScript = redis.NewScript(`
for i = 1, #ARGV, 2 do
  local sum = redis.pcall('HINCRBY', KEYS[1], ARGV[i], ARGV[i + 1])
  if type(sum) == 'table' then redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
end
return 1
`)
