package redisconn

import (
	"testing"

	"github.com/redis/go-redis/v9"
)

// TestDialRefuses: invalid urls and modes are refused before anything is sent.
func TestDialRefuses(t *testing.T) {
	bad := []struct {
		urls []string
		mode string
	}{
		{nil, ""}, {[]string{"http://x"}, ""}, {[]string{"redis://a", "redis://b"}, ""},
		{[]string{"redis://a"}, "sentinel"}, {[]string{"redis://a"}, "ring"}, {[]string{"redis://x:y:z"}, "cluster"},
	}
	for _, b := range bad {
		if c, err := Dial(b.urls, b.mode, 1); err == nil {
			_ = c.Close()
			t.Errorf("%v in mode %q accepted", b.urls, b.mode)
		}
	}
	good := []struct {
		urls []string
		mode string
	}{
		{[]string{"redis://127.0.0.1:1/3"}, ""}, {[]string{"rediss://u:p@127.0.0.1:1"}, ""},
		{[]string{"redis://a:26379?master_name=m", "redis://b:26379?master_name=m"}, "sentinel"},
		{[]string{"redis://a:6379", "redis://b:6379"}, "cluster"},
	}
	for _, g := range good {
		c, err := Dial(g.urls, g.mode, 1)
		if err != nil {
			t.Errorf("%v in mode %q: %v", g.urls, g.mode, err)
			continue
		}
		_ = c.Close()
	}
}

// TestConnections: waiting for feeds takes no connection from other commands.
func TestConnections(t *testing.T) {
	for url, want := range map[string]int{"redis://127.0.0.1:1/0": connections + 7, "redis://127.0.0.1:1/0?pool_size=3": 3} {
		c, err := Dial([]string{url}, ModeStandalone, 7)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.(dialledClient).UniversalClient.(*redis.Client).Options().PoolSize; got != want {
			t.Errorf("%s: %d connections, want %d", url, got, want)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}
