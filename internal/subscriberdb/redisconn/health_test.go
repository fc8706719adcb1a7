package redisconn

import (
	"errors"
	"testing"

	"github.com/redis/go-redis/v9"
)

// redisError is an answer of Redis.
type redisError string

func (e redisError) Error() string { return string(e) }

// RedisError implements redis.Error.
func (redisError) RedisError() {}

// TestFailuresInARow: failures that a wrong server may cause have connections redialled,
// once for many in a row; an answer with a reason does not. Each failure requests a probe.
func TestFailuresInARow(t *testing.T) {
	for _, tt := range []struct {
		err    error
		astray bool
	}{
		{errors.New("connection refused"), true},
		{redisError("READONLY You can't write against a read only replica."), true},
		{redisError("LOADING Redis is loading the dataset in memory"), true},
		{redisError("OOM command not allowed when used memory > 'maxmemory'."), false},
	} {
		c := New(redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"}))
		for range 10 {
			c.WriteFailed(tt.err)
		}
		want := uint64(0)
		if tt.astray {
			want = 1
		}
		if again := c.redials.count.Load(); again != want || c.Failing() != tt.astray {
			t.Errorf("%v: connections were given up %d times, failing is %v", tt.err, again, c.Failing())
		}
		select {
		case <-c.Trouble():
		default:
			t.Errorf("%v: no trouble", tt.err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestUsableAgain: the first successful probe after failures closes the channel of Usable,
// and has connections made meanwhile redialled.
func TestUsableAgain(t *testing.T) {
	c := New(redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"}))
	defer c.Close()
	usable := c.Usable()
	c.Probed(nil)
	select {
	case <-usable:
		t.Error("servers that never failed are usable again")
	default:
	}
	c.Probed(errors.New("no answer"))
	c.Probed(nil)
	select {
	case <-usable:
	default:
		t.Error("nobody is told")
	}
	if c.Failing() || c.redials.count.Load() != 2 {
		t.Errorf("failing is %v, given up %d times", c.Failing(), c.redials.count.Load())
	}
}
