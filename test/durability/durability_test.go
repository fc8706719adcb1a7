package durability

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	mathrand "math/rand/v2"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/rig"
	"github.com/sessiond/sessiond/internal/testenv"
)

// killsVariable sets the number of kills of sessiond, without a limit of time.
const killsVariable = "SESSIOND_KILLS"

// Without it there are usualKills, or as many as fit into usualTime on a busy machine, but
// fewestKills at least.
const (
	usualKills  = 200
	fewestKills = 50
	usualTime   = 40 * time.Second
	shortKills  = 10
)

// TestKillsUnderLoad_I2_I7_ACCT10 kills sessiond with SIGKILL at random moments under load,
// every eighth time during its start, and every fifth time Redis (appendfsync always) with
// it. While sessiond is dead, Redis must agree with every subscriber's last acknowledged
// event: the Start is there, the Stop took effect. An unacknowledged event may have taken
// effect or not.
func TestKillsUnderLoad_I2_I7_ACCT10(t *testing.T) {
	testenv.Require(t, testenv.Redis)
	w := start(t)
	ctx, stop := context.WithCancel(w.ctx)
	defer stop()
	w.load.run(ctx)
	most, atLeast := numberOfKills(t)
	began, kills := time.Now(), 0
	for ; kills < most && (kills < atLeast || time.Since(began) < usualTime); kills++ {
		w.awaitLoad(1 + mathrand.Int64N(200))
		w.kill(kills%5 == 4)
		if kills%8 == 7 {
			w.killWhileStarting()
		}
		w.must(w.Daemon.Start(w.ctx))
		if t.Failed() {
			t.FailNow() // one kill's losses are enough to read
		}
	}
	stop()
	w.load.running.Wait()
	w.kill(false) // resolves the events given up since the last kill
	w.must(w.Daemon.Start(w.ctx))
	w.compareWithView()
	t.Logf("%d kills, %d events acknowledged, %d given up", kills, w.load.acked.Load(), w.load.givenUp.Load())
}

func numberOfKills(t *testing.T) (most, atLeast int) {
	t.Helper()
	text := os.Getenv(killsVariable)
	switch {
	case text != "":
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			t.Fatalf("%s=%q: write a whole number of at least 1", killsVariable, text)
		}
		return n, n
	case testing.Short():
		return shortKills, shortKills
	}
	return usualKills, fewestKills
}

// ownName is the name of the test's connections to Redis.
const ownName = "durability"

// world is a sessiond without kernel NAT, its Redis, and BNGs.
type world struct {
	*rig.Rig
	t     *testing.T
	ctx   context.Context
	load  *load
	redis *redis.Client
}

func start(t *testing.T) *world {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	t.Cleanup(cancel)
	programs, err := rig.Build()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = programs.Remove() })
	server := netip.AddrPortFrom(ownHost(), 11813)
	r, err := rig.Start(ctx, rig.Options{
		Sessiond: programs.Sessiond, Sessionctl: programs.Sessionctl, Memory: true,
		Listen: server.String(), RedisArgs: []string{"--appendfsync", "always"},
	})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{Rig: r, t: t, ctx: ctx}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	w.redis = redis.NewClient(&redis.Options{Network: "unix", Addr: r.Redis.Socket, ClientName: ownName})
	t.Cleanup(func() { _ = w.redis.Close() })
	w.load = newLoad(ctx, t, server.String())
	return w
}

// ownHost returns a loopback address that no other test is likely to use. The port on it
// stays the same over restarts, as BNGs expect.
func ownHost() netip.Addr {
	host := [4]byte{127}
	_, _ = rand.Read(host[1:])
	host[1] = max(host[1], 1) // 127.0.0.0/16 is used by others
	host[3] = min(max(host[3], 1), 254)
	return netip.AddrFrom4(host)
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// awaitLoad waits until so many more events were acknowledged. It polls every few
// milliseconds, so that no single event sets the moment of the kill.
func (w *world) awaitLoad(events int64) {
	w.t.Helper()
	enough := w.load.acked.Load() + events
	ctx, cancel := context.WithTimeout(w.ctx, 20*time.Second)
	defer cancel()
	w.must(w.Until(ctx, "the load to get through", func() (bool, error) {
		return w.load.acked.Load() >= enough, nil
	}))
}

// kill kills sessiond, or Redis and sessiond together, compares, and has Redis run again.
func (w *world) kill(redisToo bool) {
	w.t.Helper()
	if redisToo {
		w.must(w.Redis.Kill())
	}
	w.must(w.Daemon.Kill())
	if redisToo {
		w.must(w.Redis.Start(w.ctx))
	}
	w.load.compare(w.t, w.records())
}

// killWhileStarting kills a sessiond during its start.
func (w *world) killWhileStarting() {
	w.t.Helper()
	w.must(w.Daemon.Launch(w.ctx))
	w.must(w.Daemon.Kill())
	w.load.compare(w.t, w.records())
}

// awaitLastWords waits until Redis has read all that a killed sessiond had sent, and closed
// its connections. Redis reads 16 KiB of a client at a time, so the last transaction of a
// dead client may commit after our commands.
func (w *world) awaitLastWords() {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, 20*time.Second)
	defer cancel()
	w.must(w.Until(ctx, "Redis to drop the connections of the killed", func() (bool, error) {
		list, err := w.redis.ClientList(ctx).Result()
		if err != nil {
			return false, err
		}
		return strings.Count(list, "\n") == strings.Count(list, " name="+ownName+" "), nil
	}))
}

// records returns the session of each subscriber's record, "" without one.
func (w *world) records() []string {
	w.t.Helper()
	w.awaitLastWords()
	pipe := w.redis.Pipeline()
	replies := make([]*redis.StringCmd, len(w.load.subscribers))
	for i, s := range w.load.subscribers {
		replies[i] = pipe.HGet(w.ctx, "sessiond:{default}:sub:"+s.inside.String(), "acct_session_id")
	}
	if _, err := pipe.Exec(w.ctx); err != nil && !errors.Is(err, redis.Nil) {
		w.t.Fatal(err)
	}
	sessions := make([]string, len(replies))
	for i, r := range replies {
		sessions[i] = r.Val()
	}
	return sessions
}

// compareWithView checks that sessionctl in the end shows the acknowledged state: every
// online subscriber has a block, and no other.
func (w *world) compareWithView() {
	w.t.Helper()
	want := w.load.onlineNow()
	ctx, cancel := context.WithTimeout(w.ctx, 10*time.Second)
	defer cancel()
	var shown map[string]string
	err := w.Until(ctx, "everybody online to have a block, and nobody else", func() (bool, error) {
		var err, bindingErr error
		var active string
		shown, err = w.shown(ctx)
		active, bindingErr = w.Daemon.Metric(ctx, `sessiond_bindings{group="default",state="active"}`)
		return maps.Equal(shown, want) && active == strconv.Itoa(len(want)), errors.Join(err, bindingErr)
	})
	if err != nil {
		w.t.Errorf("%v: shown %d of %d: %v, want %v", err, len(shown), len(want), shown, want)
	}
}

// shown returns the sessions, by inside address, that sessionctl lists with a block.
func (w *world) shown(ctx context.Context) (map[string]string, error) {
	out, err := w.Daemon.Ctl(ctx, "-o", "json", "subscriber", "list")
	if err != nil {
		return nil, err
	}
	sessions := map[string]string{}
	for line := range strings.Lines(out) {
		var s struct {
			Inside  string `json:"inside_address"`
			Session string `json:"acct_session_id"`
			Binding struct{ State string }
		}
		if err := json.Unmarshal([]byte(line), &s); err != nil {
			return nil, fmt.Errorf("%q: %w", line, err)
		}
		if s.Binding.State == "BINDING_STATE_ACTIVE" {
			sessions[s.Inside] = s.Session
		}
	}
	return sessions, nil
}
