package trail

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/audit"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
)

// RequestLife is the time for which a request_id belongs to one request: so long after the last
// attempt began or ended, by the clock of the daemon that is asked. Then another request may
// have it. The entries of both differ by their RequestAt.
const RequestLife = 15 * time.Minute

// requestTTL is the time to live of a request in Redis. No daemon's clock takes it for shorter
// than RequestLife.
const requestTTL = RequestLife + ClockMargin

// BeginRequest remembers a request, and returns the knowledge from before.
func (s *Store) BeginRequest(ctx context.Context, r audit.Request) (audit.Remembered, error) {
	now := s.o.Now()
	call, err := s.o.Client.Call(ctx, beginScript, []string{codec.RequestKey(r.Actor, r.ID)},
		r.Digest, now.UnixMilli(), now.Add(RequestLife).UnixMilli(), requestTTL.Milliseconds())
	if err != nil {
		return audit.Remembered{}, fmt.Errorf("remember request %q: %w", r.ID, err)
	}
	answer, err := call.StringSlice()
	if err != nil || len(answer) != 3 {
		return audit.Remembered{}, fmt.Errorf("script answered %v", call.Val())
	}
	if answer[0] == "other" {
		return audit.Remembered{Other: true}, nil
	}
	began, err := strconv.ParseInt(answer[1], 10, 64)
	if err != nil {
		return audit.Remembered{}, fmt.Errorf("begin of request %q: %w", r.ID, err)
	}
	known := audit.Remembered{Began: time.UnixMilli(began).UTC(), Again: answer[0] == "again"}
	if answer[0] == "answer" {
		known.Answer = []byte(answer[2])
	}
	return known, nil
}

// EndRequest stores the outcome of a request that began.
func (s *Store) EndRequest(ctx context.Context, r audit.Request, answer []byte) error {
	_, err := s.o.Client.Call(ctx, endScript, []string{codec.RequestKey(r.Actor, r.ID)},
		r.Digest, r.Began.UnixMilli(), s.o.Now().Add(RequestLife).UnixMilli(), requestTTL.Milliseconds(), answer)
	if err != nil {
		return fmt.Errorf("store the outcome of request %q: %w", r.ID, err)
	}
	return nil
}

// ForgetRequest forgets a request that began and changed nothing, so that another attempt begins
// anew.
func (s *Store) ForgetRequest(ctx context.Context, r audit.Request) error {
	_, err := s.o.Client.Call(ctx, forgetScript, []string{codec.RequestKey(r.Actor, r.ID)}, r.Began.UnixMilli())
	if err != nil {
		return fmt.Errorf("forget request %q: %w", r.ID, err)
	}
	return nil
}

// zeroTime is time.Time{} in milliseconds.
const zeroTime = "-62135596800000"

// beginScript remembers a request, unless it is remembered. On a Redis without free memory it
// remembers no new one.
//
// KEYS: 1 the request. ARGV: 1 its digest, 2 the time, 3 the time until which it is remembered,
// both in milliseconds, 4 its time to live in milliseconds. Returns {"new", <begin>, ""},
// {"other", "", ""} where the identifier belongs to another request, {"again", <begin>, ""}
// where an attempt has begun, or {"answer", <begin>, <answer>}. begin is the time at which the
// first attempt began. The version before stored neither begin nor end: such a request is
// remembered as one that began at the zero time, which is that of its entries.
var beginScript = redis.NewScript(`
local known = redis.call('HMGET', KEYS[1], 'digest', 'began', 'until', 'answer')
if known[1] and not known[3] then
  known[2], known[3] = '` + zeroTime + `', ARGV[3]
  if known[1] == ARGV[1] then
    redis.call('PEXPIRE', KEYS[1], ARGV[4]) -- first, as below
    redis.call('HSET', KEYS[1], 'began', known[2], 'until', known[3])
  end
end
if not known[1] or not known[2] or tonumber(ARGV[2]) >= (tonumber(known[3]) or 0) then
  redis.call('HSET', KEYS[1], 'digest', ARGV[1], 'began', ARGV[2], 'until', ARGV[3])
  redis.call('HDEL', KEYS[1], 'answer')
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
  return {'new', ARGV[2], ''}
end
if known[1] ~= ARGV[1] then return {'other', '', ''} end
redis.call('PEXPIRE', KEYS[1], ARGV[4]) -- first, for a Redis that is full
if tonumber(ARGV[3]) > tonumber(known[3]) then redis.call('HSET', KEYS[1], 'until', ARGV[3]) end
if known[4] then return {'answer', known[2], known[4]} end
return {'again', known[2], ''}
`)

// endScript stores the outcome of a request, unless another one has its identifier meanwhile.
//
// KEYS: 1 the request. ARGV: 1 its digest, 2 the time at which its first attempt began, 3 the
// time until which it is remembered, both in milliseconds, 4 its time to live in milliseconds,
// 5 the answer. Returns 1 when it is done.
var endScript = redis.NewScript(`
local began = redis.call('HGET', KEYS[1], 'began')
if began and began ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], 'digest', ARGV[1], 'began', ARGV[2], 'until', ARGV[3], 'answer', ARGV[5])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1
`)

// forgetScript forgets a request, unless another one has its identifier meanwhile.
//
// KEYS: 1 the request. ARGV: 1 the time at which its first attempt began, in milliseconds.
// Returns 1 when it is done.
var forgetScript = redis.NewScript(`
if redis.call('HGET', KEYS[1], 'began') ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
`)
