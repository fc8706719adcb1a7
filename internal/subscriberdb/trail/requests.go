package trail

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/audit"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
)

// requestLife is the time for which a request is remembered after its last attempt.
const requestLife = 15 * time.Minute

// BeginRequest remembers a request, and returns the knowledge from before.
func (s *Store) BeginRequest(ctx context.Context, r audit.Request) (audit.Remembered, error) {
	call, err := s.o.Client.Call(ctx, beginScript, []string{codec.RequestKey(r.Actor, r.ID)}, r.Digest, requestLife.Milliseconds())
	if err != nil {
		return audit.Remembered{}, fmt.Errorf("remember request %q: %w", r.ID, err)
	}
	answer, err := call.Slice()
	if err != nil || len(answer) == 0 {
		return audit.Remembered{}, fmt.Errorf("script answered %v", call.Val())
	}
	switch answer[0] {
	case "other":
		return audit.Remembered{Other: true}, nil
	case "again":
		return audit.Remembered{Again: true}, nil
	case "answer":
		text, _ := answer[1].(string)
		return audit.Remembered{Answer: []byte(text)}, nil
	}
	return audit.Remembered{}, nil
}

// EndRequest stores the outcome of a request.
func (s *Store) EndRequest(ctx context.Context, r audit.Request, answer []byte) error {
	key := codec.RequestKey(r.Actor, r.ID)
	err := s.o.Client.Together(ctx, []redis.Cmder{
		redis.NewIntCmd(ctx, "hset", key, "digest", r.Digest, "answer", answer),
		redis.NewBoolCmd(ctx, "pexpire", key, requestLife.Milliseconds()),
	})
	if err != nil {
		return fmt.Errorf("store the outcome of request %q: %w", r.ID, err)
	}
	return nil
}

// ForgetRequest forgets a request that changed nothing, so that another attempt begins anew.
func (s *Store) ForgetRequest(ctx context.Context, r audit.Request) error {
	return s.o.Client.Del(ctx, codec.RequestKey(r.Actor, r.ID)).Err()
}

// beginScript remembers a request, unless it is remembered.
//
// KEYS: 1 the request. ARGV: 1 its digest, 2 its time to live in milliseconds. Returns {"new"},
// {"other"} where the identifier belongs to another request, {"again"} where an attempt
// has begun, or {"answer", <answer>}.
var beginScript = redis.NewScript(`
local known = redis.call('HMGET', KEYS[1], 'digest', 'answer')
if not known[1] then
  redis.call('HSET', KEYS[1], 'digest', ARGV[1])
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return {'new'}
end
if known[1] ~= ARGV[1] then return {'other'} end
if known[2] then return {'answer', known[2]} end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return {'again'}
`)
