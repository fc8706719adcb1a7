package redisconn_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/subscriberdb/redisconn"
	"github.com/sessiond/sessiond/internal/subscriberdb/redistest"
)

var appendScript = redis.NewScript(`return redis.call('APPEND', KEYS[1], ARGV[1])`)

// TestScriptsAreTaught: a script is loaded into a server that does not have it, or lost it,
// and each call is executed once, in its place among the other commands.
func TestScriptsAreTaught(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		c := redisconn.New(client, appendScript)
		want := ""
		for round := range 3 {
			var cmds []redis.Cmder
			for i := range 3 {
				word := fmt.Sprintf("%d.%d ", round, i)
				cmds = append(cmds, redisconn.NewCall(t.Context(), appendScript, []string{"key"}, word))
				want += word
			}
			missing := redis.NewStringCmd(t.Context(), "get", "none")
			err := c.Exchange(t.Context(), append(cmds, missing))
			if err := redisconn.Failure(cmds, err); err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
			if err := redisconn.Answered(missing, err); err != nil || !errors.Is(missing.Err(), redis.Nil) {
				t.Errorf("a key that is not there: %v, %v", err, missing.Err())
			}
			if got := client.Get(t.Context(), "key").Val(); got != want {
				t.Errorf("round %d: %q, want %q", round, got, want)
			}
			if err := client.ScriptFlush(t.Context()).Err(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestWrongTypeIsNoFailure: a command on a key of another type fails alone; any other
// failure is returned.
func TestWrongTypeIsNoFailure(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		c := redisconn.New(client)
		client.HSet(t.Context(), "hash", "a", "b")
		cmds := []redis.Cmder{
			redis.NewStringCmd(t.Context(), "get", "hash"), redis.NewIntCmd(t.Context(), "hlen", "hash"),
		}
		err := c.Exchange(t.Context(), cmds)
		if !redisconn.IsWrongType(err) || redisconn.Failure(cmds, err) != nil || cmds[1].(*redis.IntCmd).Val() != 1 {
			t.Errorf("%v, failure %v, %v", err, redisconn.Failure(cmds, err), cmds[1])
		}
		cmds = append(cmds, redis.NewIntCmd(t.Context(), "no-such-command"))
		if err := redisconn.Failure(cmds, c.Exchange(t.Context(), cmds)); err == nil || !redisconn.IsAnswer(err) {
			t.Errorf("failure %v", err)
		}
	})
}

// TestScans: a scan yields all fields of a hash, and all keys of one type, in any number;
// an error of yield ends it.
func TestScans(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		c := redisconn.New(client)
		const n = 3*redisconn.ScanCount + 7
		want := map[string]string{}
		pipe := client.Pipeline()
		for i := range n {
			want[fmt.Sprint("field", i)] = fmt.Sprint(i)
			pipe.HSet(t.Context(), fmt.Sprintf("{g}:hash:%d", i), "a", "b")
			pipe.Set(t.Context(), fmt.Sprintf("{g}:string:%d", i), "a", 0)
		}
		pipe.HSet(t.Context(), "hash", want)
		if _, err := pipe.Exec(t.Context()); err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		err := c.ScanHash(t.Context(), "hash", func(fields []string) error {
			for i := 0; i+1 < len(fields); i += 2 {
				got[fields[i]] = fields[i+1]
			}
			return nil
		})
		if err != nil || !maps.Equal(got, want) {
			t.Errorf("%d fields, want %d; %v", len(got), n, err)
		}
		keys := map[string]bool{}
		err = c.ScanKeys(t.Context(), "{g}:*", "hash", func(_ redis.UniversalClient, names []string) error {
			for _, name := range names {
				keys[name] = true
			}
			return nil
		})
		if err != nil || len(keys) != n || slices.ContainsFunc(slices.Collect(maps.Keys(keys)), func(k string) bool { return !strings.HasPrefix(k, "{g}:hash:") }) {
			t.Errorf("%d keys, want %d; %v", len(keys), n, err)
		}
		enough := errors.New("enough")
		if err := c.ScanHash(t.Context(), "hash", func([]string) error { return enough }); !errors.Is(err, enough) {
			t.Errorf("error of yield: %v", err)
		}
	})
}

// TestTogether: several commands are executed in one step, a single one by itself.
func TestTogether(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		c := redisconn.New(client)
		set := func(key string) redis.Cmder { return redis.NewStatusCmd(t.Context(), "set", key, "v") }
		if err := c.Together(t.Context(), []redis.Cmder{set("a")}); err != nil {
			t.Error(err)
		}
		if err := c.Together(t.Context(), []redis.Cmder{set("b"), set("c")}); err != nil {
			t.Error(err)
		}
		if n := client.Exists(t.Context(), "a", "b", "c").Val(); n != 3 {
			t.Errorf("%d keys, want 3", n)
		}
	})
}
