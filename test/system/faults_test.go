package system

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"layeh.com/radius/rfc2866"

	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/rig"
)

// TestKill_I7_I8_I9_SES19: kill -9 with many subscribers online and live flows. The flows
// go on while sessiond is down. After the restart the bindings are the same, nothing was
// reaped, Stops work, records deleted meanwhile are removed, and a foreign nft table is
// untouched.
func TestKill_I7_I8_I9_SES19(t *testing.T) {
	const subscribers = 100
	var inside []netip.Addr
	for a := netip.MustParseAddr("100.64.1.1"); len(inside) < subscribers; a = a.Next() {
		inside = append(inside, a)
	}
	w := start(t, rig.Options{Lab: netlab.Options{Subscribers: inside}})
	_, err := w.Lab.CGN.Output(w.ctx, "nft", "add table inet foreign; add set inet foreign s { type ipv4_addr; elements = { 192.0.2.1 } }")
	w.must(err)
	foreign := w.foreignTable()
	for i, a := range inside {
		w.must(w.Report(w.ctx, rfc2866.AcctStatusType_Value_Start, sessionOf(a, fmt.Sprint("s-", i))))
	}
	_, err = w.AwaitState(w.ctx, inside[subscribers-1], "ACTIVE")
	w.must(err)
	flows := make([]*netlab.Flow, 10)
	for i := range flows {
		flows[i] = w.flow(inside[i])
	}
	before := w.ctl("-o", "json", "binding", "list")

	w.must(w.Daemon.Kill())
	for i, f := range flows {
		w.passes(f, fmt.Sprintf("subscriber %d, sessiond dead", i))
	}
	_, err = w.Redis.CLI(w.ctx, "DEL", recordKey(inside[0]), recordKey(inside[50]))
	w.must(err)
	w.must(w.Daemon.Start(w.ctx))

	// Readiness already means that everything is reconciled.
	w.gone(inside[0])
	w.gone(inside[50])
	w.dead(flows[0], "deleted meanwhile")
	for i, f := range flows[1:] {
		w.passes(f, fmt.Sprintf("subscriber %d after the restart", i+1))
	}
	w.sameBindings(before, w.ctl("-o", "json", "binding", "list"), inside[0], inside[50])
	w.must(w.Offline(w.ctx, sessionOf(inside[1], "s-1")))
	w.gone(inside[1])
	w.dead(flows[1], "stopped after the restart")
	w.passes(flows[2], "neighbour")
	if now := w.foreignTable(); now != foreign {
		t.Errorf("the foreign table changed from\n%s\nto\n%s", foreign, now)
	}
}

func (w *world) foreignTable() string {
	w.t.Helper()
	out, err := w.Lab.CGN.Output(w.ctx, "nft", "list", "table", "inet", "foreign")
	w.must(err)
	return string(out)
}

// sameBindings compares the blocks of all addresses except those named.
func (w *world) sameBindings(before, after string, but ...netip.Addr) {
	w.t.Helper()
	old, now := blocksOf(before), blocksOf(after)
	for _, a := range but {
		delete(old, a.String())
		delete(now, a.String())
	}
	if len(old) != len(now) {
		w.t.Errorf("%d bindings before, %d after", len(old), len(now))
	}
	for inside, block := range old {
		if now[inside] != block {
			w.t.Errorf("%s had %s, has %s", inside, block, now[inside])
		}
	}
}

// TestRedisDown_I2_I9_ACCT10: with Redis killed there are no replies, NAT goes on, and
// readiness names the reason. With Redis back, the retransmission is answered and one
// session exists.
func TestRedisDown_I2_I9_ACCT10(t *testing.T) {
	w := start(t, rig.Options{})
	w.online(sessionOf(alice, "a-1"))
	f := w.flow(alice)
	w.must(w.Redis.Kill())

	ctx, cancel := context.WithTimeout(w.ctx, 4*time.Second)
	err := w.Report(ctx, rfc2866.AcctStatusType_Value_Start, sessionOf(bob, "b-1"))
	cancel()
	if err == nil {
		t.Fatal("a Start was answered without Redis")
	}
	w.passes(f, "alice, Redis dead")
	w.soon(5*time.Second, func(ctx context.Context) error {
		return w.Until(ctx, "/readyz to name Redis", func() (bool, error) {
			code, body, err := w.Daemon.Get(ctx, "/readyz")
			return code == http.StatusServiceUnavailable && strings.Contains(body, "redis"), err
		})
	})

	w.must(w.Redis.Start(w.ctx))
	w.must(w.Report(w.ctx, rfc2866.AcctStatusType_Value_Start, sessionOf(bob, "b-1")))
	w.soon(5*time.Second, func(ctx context.Context) error {
		_, err := w.AwaitState(ctx, bob, "ACTIVE")
		return err
	})
	w.passes(f, "alice, Redis back")
	keys, err := w.Redis.CLI(w.ctx, "--raw", "KEYS", "sessiond:{default}:sub:*")
	w.must(err)
	if n := len(strings.Fields(keys)); n != 2 {
		t.Errorf("records: %q, want alice's and bob's", keys)
	}
	w.soon(5*time.Second, w.awaitReadyz)
}

func (w *world) awaitReadyz(ctx context.Context) error {
	return w.Until(ctx, "/readyz", func() (bool, error) {
		code, _, err := w.Daemon.Get(ctx, "/readyz")
		return code == http.StatusOK, err
	})
}

// TestRedisEmpty_I6: Redis comes back empty. No subscriber is disconnected, an alarm lasts
// until the database is complete again, and records are rebuilt from the bindings and from
// Interims.
func TestRedisEmpty_I6(t *testing.T) {
	empties := map[string]func(*world){
		"restarted empty": func(w *world) {
			w.must(w.Redis.Kill())
			w.must(w.Redis.Empty())
			w.must(w.Redis.Start(w.ctx))
		},
		"FLUSHALL": func(w *world) {
			_, err := w.Redis.CLI(w.ctx, "FLUSHALL")
			w.must(err)
		},
		"restarted empty with sessiond": func(w *world) {
			w.must(w.Daemon.Kill())
			w.must(w.Redis.Kill())
			w.must(w.Redis.Empty())
			w.must(w.Redis.Start(w.ctx))
			w.must(w.Daemon.Start(w.ctx))
		},
	}
	for name, empty := range empties {
		t.Run(name, func(t *testing.T) {
			w := start(t, rig.Options{})
			a, b := sessionOf(alice, "a-1"), sessionOf(bob, "b-1")
			w.online(a)
			w.online(b)
			fa, fb := w.flow(alice), w.flow(bob)
			before := w.ctl("-o", "json", "binding", "list")

			empty(w)

			w.soon(10*time.Second, func(ctx context.Context) error { return w.awaitSuspect(ctx, "1") })
			if !strings.Contains(w.Daemon.Log(), "database suspect") {
				t.Error("the log says nothing of it")
			}
			w.passes(fa, "alice")
			w.passes(fb, "bob")
			w.must(w.Report(w.ctx, rfc2866.AcctStatusType_Value_InterimUpdate, a))
			w.must(w.Report(w.ctx, rfc2866.AcctStatusType_Value_InterimUpdate, b))
			w.soon(10*time.Second, func(ctx context.Context) error { return w.awaitSuspect(ctx, "0") })
			w.passes(fa, "alice, confirmed")
			w.passes(fb, "bob, confirmed")
			w.sameBindings(before, w.ctl("-o", "json", "binding", "list"))
			user, err := w.Redis.CLI(w.ctx, "HGET", recordKey(alice), "user_name")
			w.must(err)
			if user != a.User {
				t.Errorf("rebuilt record's user_name is %q, want %q", user, a.User)
			}
			w.must(w.Offline(w.ctx, a))
			w.gone(alice)
			w.dead(fa, "alice, stopped")
			w.passes(fb, "bob, after alice's Stop")
		})
	}
}

func (w *world) awaitSuspect(ctx context.Context, want string) error {
	return w.Until(ctx, "sessiond_database_suspect to be "+want, func() (bool, error) {
		got, err := w.Daemon.Metric(ctx, "sessiond_database_suspect")
		return got == want, err
	})
}
