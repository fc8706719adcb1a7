package system

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"layeh.com/radius/rfc2866"

	"github.com/sessiond/sessiond/internal/rig"
	"github.com/sessiond/sessiond/internal/testenv"
)

// tellsWithin is the longest time for which a BNG or a load balancer may get a wrong answer
// to whether accounting can be recorded.
const tellsWithin = 2 * time.Second

// outlets are the ways to learn whether accounting can be recorded, with their answers.
type outlets struct{ readyz, metric, health, radius bool }

func (w *world) outlets(ctx context.Context) (o outlets, err error) {
	code, body, err := w.Daemon.Get(ctx, "/readyz")
	if err != nil {
		return o, err
	}
	if o.readyz = code == http.StatusOK; !o.readyz && !strings.Contains(body, "redis: ") {
		return o, fmt.Errorf("/readyz gives no cause: %q", body)
	}
	value, err := w.Daemon.Metric(ctx, "sessiond_redis_up")
	if err != nil {
		return o, err
	}
	o.metric = value == "1"
	if o.health, err = w.Daemon.Serving(ctx); err != nil {
		return o, err
	}
	short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	o.radius = w.Status(short) == nil
	return o, nil
}

// tell checks that all outlets soon report whether accounting can be recorded.
func (w *world) tell(what string, can bool) {
	w.t.Helper()
	want, began := outlets{can, can, can, can}, time.Now()
	var said outlets
	ctx, cancel := context.WithTimeout(w.ctx, 10*time.Second)
	defer cancel()
	err := w.Until(ctx, what, func() (_ bool, err error) {
		said, err = w.outlets(ctx)
		return said == want, err
	})
	took := time.Since(began)
	if !can {
		took -= 200 * time.Millisecond // the silence that the probe waited for
	}
	if err != nil || took > tellsWithin {
		w.t.Errorf("%s: %v after %v, the outlets say %+v", what, err, took, said)
	}
}

// complaints counts the log lines at level WARN or ERROR.
func (w *world) complaints() int {
	log := w.Daemon.Log()
	return strings.Count(log, `"level":"WARN"`) + strings.Count(log, `"level":"ERROR"`)
}

// TestRedisCannotRecord_ACCT10_ACCT19: a Redis that is full, a replica, cannot store, hangs
// or is dead takes no accounting. Readiness, metric, gRPC health and Status-Server report
// it, so that BNGs and load balancers use another server, and report its end.
func TestRedisCannotRecord_ACCT10_ACCT19(t *testing.T) {
	dump := func(w *world) string {
		dir := strings.Fields(w.redis("CONFIG", "GET", "dir"))
		return filepath.Join(dir[len(dir)-1], "dump.rdb")
	}
	var file string
	for name, tt := range map[string]struct{ begin, end func(w *world) }{
		"full": {
			func(w *world) { w.redis("CONFIG", "SET", "maxmemory", "1000000") },
			func(w *world) { w.redis("CONFIG", "SET", "maxmemory", "0") },
		},
		"replica": {
			func(w *world) { w.redis("REPLICAOF", "127.0.0.1", "1") },
			func(w *world) { w.redis("REPLICAOF", "NO", "ONE") },
		},
		"failing snapshot": {
			func(w *world) {
				file = dump(w)
				w.must(os.Mkdir(file, 0o700))
				w.redis("CONFIG", "SET", "save", "3600 1")
				w.redis("BGSAVE")
			},
			func(w *world) {
				w.must(os.Remove(file))
				w.redis("BGSAVE")
			},
		},
		"hanging": {
			func(w *world) { w.must(w.Redis.Hang()) },
			func(w *world) { w.must(w.Redis.Resume()) },
		},
		"dead": {
			func(w *world) { w.must(w.Redis.Kill()) },
			func(w *world) { w.must(w.Redis.Start(w.ctx)) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := start(t, rig.Options{Memory: true})
			w.online(sessionOf(alice, "a-1"))
			w.tell("before", true)
			before := w.complaints()
			tt.begin(w)
			w.tell("accounting cannot be recorded", false)
			ctx, cancel := context.WithTimeout(w.ctx, 3*time.Second)
			defer cancel()
			if err := w.Report(ctx, rfc2866.AcctStatusType_Value_Start, sessionOf(bob, "b-1")); err == nil {
				t.Fatal("a Start was answered")
			}
			w.tell("it still cannot", false)
			tt.end(w)
			w.tell("accounting can be recorded", true)
			w.soon(tellsWithin, func(ctx context.Context) error {
				return w.Report(ctx, rfc2866.AcctStatusType_Value_Start, sessionOf(bob, "b-1"))
			})
			w.soon(5*time.Second, func(ctx context.Context) error {
				_, err := w.AwaitState(ctx, bob, "ACTIVE")
				return err
			})
			log := w.Daemon.Log()
			if said, over := strings.Count(log, "database cannot be used"), strings.Count(log, "database can be used again"); said != 1 || over != 1 {
				t.Errorf("the log says %d times that the database cannot be used, and %d times that it can again", said, over)
			}
			// That line, and one about requests that were not recorded.
			if n := w.complaints() - before; n > 2 {
				t.Errorf("%d lines of the log complain:\n%s", n, log)
			}
		})
	}
}

// TestRedisMoves_ACCT10: the master behind an address becomes a replica, to which
// connections stay open, and the address then leads to the new master. Accounting goes on
// within two seconds of that.
func TestRedisMoves_ACCT10(t *testing.T) {
	testenv.Require(t, testenv.Redis)
	oldPort, newPort := freePort(t), freePort(t)
	old := testenv.StartRedis(t, "--port", oldPort, "--bind", "127.0.0.1", "--repl-diskless-sync-delay", "0")
	next := testenv.StartRedis(t, "--port", newPort, "--bind", "127.0.0.1", "--replicaof", "127.0.0.1 "+oldPort)
	relay := testenv.StartRelay(t, old.Socket)
	w := start(t, rig.Options{Memory: true, RedisURL: "redis://" + relay.Addr + "/0"})
	w.online(sessionOf(alice, "a-1"))
	cli := func(s *testenv.RedisServer, args ...string) string {
		t.Helper()
		out, err := s.CLI(w.ctx, args...)
		w.must(err)
		return out
	}
	w.soon(20*time.Second, func(ctx context.Context) error {
		return w.Until(ctx, "replication", func() (bool, error) {
			return cli(next, "EXISTS", recordKey(alice)) == "1", nil
		})
	})
	cli(next, "REPLICAOF", "NO", "ONE")
	cli(old, "REPLICAOF", "127.0.0.1", newPort)
	w.tell("the master is a replica", false)
	relay.Lead(next.Socket)
	w.soon(tellsWithin, func(ctx context.Context) error {
		var err error
		for ctx.Err() == nil { // a BNG repeats
			try, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
			err = w.Report(try, rfc2866.AcctStatusType_Value_Start, sessionOf(bob, "b-1"))
			if cancel(); err == nil {
				return nil
			}
		}
		return errors.Join(ctx.Err(), err)
	})
	w.tell("the address leads to the new master", true)
	if cli(next, "EXISTS", recordKey(bob)) != "1" {
		t.Error("the new master has no record of bob")
	}
	w.must(w.Offline(w.ctx, sessionOf(alice, "a-1")))
	w.soon(5*time.Second, func(ctx context.Context) error {
		_, err := w.AwaitState(ctx, alice, "HELD")
		return err
	})
	cli(next, "DEL", recordKey(bob)) // the new master reports it
	w.soon(5*time.Second, func(ctx context.Context) error {
		_, err := w.AwaitState(ctx, bob, "HELD")
		return err
	})
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// TestStartBeforeRedis_NAT30: a sessiond that was started before its Redis, and even
// restarted before it, allocates blocks as soon as Redis is there. If its table was in use,
// free blocks wait for a hold, and status and log give the reason.
func TestStartBeforeRedis_NAT30(t *testing.T) {
	restart := func(w *world) {
		w.must(w.Daemon.Kill())
		w.must(w.Redis.Kill())
		w.must(w.Redis.Empty())
		w.must(w.Daemon.Launch(w.ctx))
		w.soon(5*time.Second, func(ctx context.Context) error {
			return w.Until(ctx, "/readyz to name Redis", func() (bool, error) {
				code, body, err := w.Daemon.Get(ctx, "/readyz")
				return code == http.StatusServiceUnavailable && strings.Contains(body, "redis: write to redis"), err
			})
		})
		w.must(w.Redis.Start(w.ctx))
		w.must(w.Daemon.AwaitReady(w.ctx))
	}
	const reason = "free blocks wait for a hold"
	t.Run("never used", func(t *testing.T) {
		w := start(t, rig.Options{Hold: time.Hour})
		restart(w)
		w.soon(5*time.Second, func(ctx context.Context) error {
			_, err := w.Online(ctx, sessionOf(alice, "a-1"))
			return err
		})
		if strings.Contains(w.Daemon.Log(), reason) {
			t.Error("free blocks were put in quarantine")
		}
	})
	t.Run("in use before", func(t *testing.T) {
		w := start(t, rig.Options{Hold: time.Hour})
		w.online(sessionOf(alice, "a-1"))
		w.must(w.Offline(w.ctx, sessionOf(alice, "a-1")))
		w.gone(alice)
		restart(w)
		if n := strings.Count(w.Daemon.Log(), reason); n != 1 {
			t.Errorf("the log says why %d times", n)
		}
		if out := w.ctl("status"); !strings.Contains(out, "in quarantine until") {
			t.Errorf("status does not say why:\n%s", out)
		}
	})
}
