package trail

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/clock"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
)

// trimEvery is the interval between looks for entries that retention removes.
const trimEvery = 10 * time.Second

// trimStep bounds the entries that one step removes.
const trimStep = 500

// Retention bounds the entries of each trail; a zero field sets no bound.
type Retention struct {
	Entries int
	Age     time.Duration
}

// Trim removes the oldest entries beyond the bounds, until the context ends. The newest entry
// of a trail stays. Errors are retried.
func (s *Store) Trim(ctx context.Context, r Retention) error {
	for failing := false; ; {
		_, err := s.TrimOnce(ctx, r)
		if err != nil && !failing && ctx.Err() == nil {
			s.o.Logger.Warn("audit trails not trimmed", "error", err)
		}
		failing = err != nil
		if err := clock.Sleep(ctx, trimEvery); err != nil {
			return err
		}
	}
}

// TrimOnce removes the oldest entries beyond the bounds, and returns their number. It mends the
// stored names of trails, too.
func (s *Store) TrimOnce(ctx context.Context, r Retention) (removed int, err error) {
	names, err := s.Trails(ctx)
	errs := []error{err}
	for _, trail := range names {
		for more := true; more; {
			n, err := s.trimTrail(ctx, trail, r)
			if err != nil {
				errs = append(errs, fmt.Errorf("trim %s: %w", codec.AuditKey(trail), err))
			}
			removed += n
			more = n == trimStep
		}
	}
	return removed, errors.Join(append(errs, s.mendNames(ctx))...)
}

func (s *Store) trimTrail(ctx context.Context, trail string, r Retention) (int, error) {
	until := int64(0)
	if r.Age > 0 {
		until = s.o.Now().Add(-r.Age).UnixMilli()
	}
	call, err := s.o.Client.Call(ctx, trimScript, []string{codec.AuditKey(trail), codec.AuditHeadKey(trail)}, r.Entries, until, trimStep)
	if err != nil {
		return 0, err
	}
	return call.Int()
}

// trimScript removes the oldest entries of a trail, and stores the number and hash of the
// last one that it removed, behind which the first that is kept was sealed. It begins with a
// removal, so that a Redis without free memory executes it (see package txn).
//
// KEYS: 1 the trail, 2 its head. ARGV: 1 most entries, 0 for no bound, 2 the time in
// milliseconds before which entries go, 0 for none, 3 most entries to remove. Returns the
// number of entries that it removed.
var trimScript = redis.NewScript(`
local trail, head, most, before, step = KEYS[1], KEYS[2], tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local length, n, oldest = redis.call('XLEN', trail), 0, {}
if most > 0 then n = math.min(length - most, step) end
if n > 0 then
  oldest = redis.call('XRANGE', trail, '-', '+', 'COUNT', n)
elseif before ~= '0' and length > 1 then
  oldest = redis.call('XRANGE', trail, '-', '(' .. before .. '-0', 'COUNT', math.min(length - 1, step))
end
if #oldest == 0 then return 0 end
local fields, text, hash = oldest[#oldest][2], '', ''
for i = 1, #fields, 2 do
  if fields[i] == 'entry' then text = fields[i + 1] end
  if fields[i] == 'hash' then hash = fields[i + 1] end
end
redis.call('XTRIM', trail, 'MAXLEN', length - #oldest)
redis.call('HSET', head, 'removed', string.match(text, '"number":(%d+)') or '0', 'removed_hash', hash)
return #oldest
`)
