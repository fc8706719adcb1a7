package system

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"layeh.com/radius/rfc2866"

	"github.com/sessiond/sessiond/internal/radiusacct/acctclient"
	"github.com/sessiond/sessiond/internal/rig"
)

// TestGarbageInRedis: values in Redis that sessiond would not write are ignored, counted
// and named in the log, and delay nothing else: not the end of the sessions of a restarted
// NAS, not accounting, not a start.
func TestGarbageInRedis(t *testing.T) {
	carol := netip.MustParseAddr("100.64.0.12")
	w := start(t, rig.Options{Memory: true})
	behind := func(nas string, status rfc2866.AcctStatusType, id string, inside netip.Addr) error {
		c, err := acctclient.Dial(w.ctx, w.Daemon.RADIUS, "", acctclient.Options{
			Secret: []byte(rig.Secret), Timeout: 500 * time.Millisecond, Transmissions: 2,
		})
		w.must(err)
		defer c.Close()
		return c.Account(w.ctx, acctclient.Request{
			Status: status, SessionID: id, UserName: id, FramedAddress: inside, NASIdentifier: nas, EventTime: time.Now(),
		})
	}
	offline := func(inside netip.Addr) {
		t.Helper()
		w.soon(10*time.Second, func(ctx context.Context) error {
			return w.Until(ctx, inside.String()+" to be offline", func() (bool, error) {
				n, err := w.Redis.CLI(ctx, "EXISTS", recordKey(inside))
				return n == "0", err
			})
		})
	}
	named := func(kind string) {
		t.Helper()
		w.soon(10*time.Second, func(ctx context.Context) error {
			return w.Until(ctx, "garbage of kind "+kind+" to be counted", func() (bool, error) {
				n, err := w.Daemon.Metric(ctx, `sessiond_database_garbage_total{group="default",kind="`+kind+`"}`)
				return n != "" && n != "0", err
			})
		})
		if log := w.Daemon.Log(); !strings.Contains(log, `"msg":"unusable data in Redis is left out"`) || !strings.Contains(log, `"kind":"`+kind+`"`) {
			t.Errorf("the log does not name the garbage of kind %s", kind)
		}
	}

	w.must(behind("nas-1", startStatus, "a", alice))
	w.redis("SADD", "sessiond:{default}:restarts", "%zz/garbage/1/2/3", "no slash")
	w.redis("LPUSH", "sessiond:{default}:nas:bng1/nas-9", "x")
	w.redis("SADD", "sessiond:{default}:restarts", "bng1/nas-9")
	w.must(behind("nas-1", onStatus, "", netip.Addr{}))
	offline(alice)
	named("restart")

	for _, entry := range [][]string{
		{"kind", "nonsense"}, {"kind", "created", "inside", "nowhere", "record", "%%%"}, {"list", "100.64.0.300 1 2", "kind", "stopped"},
		{"kind", "refreshed", "list", "garbage"}, {"x", "y"},
	} {
		w.redis(append([]string{"XADD", "sessiond:{default}:feed", "*"}, entry...)...)
	}
	w.must(behind("nas-2", startStatus, "b", bob))
	_, err := w.AwaitState(w.ctx, bob, "ACTIVE")
	w.must(err)
	named("feed")

	w.redis("SET", recordKey(carol), "a string")
	w.redis("HSET", "sessiond:{default}:online", carol.String(), "garbage", "nowhere", "garbage")
	w.must(behind("nas-2", interimStatus, "b", bob))
	if err := behind("nas-2", startStatus, "c", carol); err == nil {
		t.Error("a Start is answered whose record cannot be written")
	}
	w.must(behind("nas-2", interimStatus, "b", bob))
	named("record")
	w.redis("LPUSH", "sessiond:{default}:sess:bng1/nas-2/a2", "x")
	w.must(behind("nas-2", startStatus, "a2", alice))
	named("session")
	w.must(behind("nas-2", stopStatus, "a2", alice))
	w.redis("LPUSH", "sessiond:{default}:nas:bng1/nas-3", "x")
	w.must(behind("nas-3", startStatus, "a3", alice))
	w.must(behind("nas-3", interimStatus, "a3", alice))
	w.must(w.Daemon.Kill())
	w.must(w.Daemon.Start(w.ctx))
	w.must(behind("nas-2", interimStatus, "b", bob))
	named("record")
	w.ctl("reconcile")

	w.redis("DEL", recordKey(carol))
	w.redis("HDEL", "sessiond:{default}:online", "nowhere")
	w.must(behind("nas-2", startStatus, "c", carol))
	_, err = w.AwaitState(w.ctx, carol, "ACTIVE")
	w.must(err)
}

// TestForgedStreamID: a foreign entry is added to the feed with an identifier in the
// future, or the highest possible, after which Redis accepts none. Accounting goes on, all
// subscribers stay online, and later identifiers are of the present time again.
func TestForgedStreamID(t *testing.T) {
	for name, id := range map[string]string{
		"highest": "18446744073709551615-18446744073709551615", "of 2286": "9999999999999-0", "of tomorrow": fmt.Sprint(time.Now().Add(24 * time.Hour).UnixMilli()),
	} {
		t.Run(name, func(t *testing.T) { forgedStreamID(t, id) })
	}
}

func forgedStreamID(t *testing.T, id string) {
	w := start(t, rig.Options{Memory: true})
	w.online(sessionOf(alice, "a-1"))
	w.redis("XADD", "sessiond:{default}:feed", id, "kind", "nas_restart")
	w.soon(20*time.Second, func(ctx context.Context) error {
		return w.Report(ctx, startStatus, sessionOf(bob, "b-1"))
	})
	_, err := w.AwaitState(w.ctx, bob, "ACTIVE")
	w.must(err)
	w.must(w.Report(w.ctx, interimStatus, sessionOf(alice, "a-1")))
	w.must(w.Offline(w.ctx, sessionOf(alice, "a-1")))
	w.soon(10*time.Second, func(ctx context.Context) error {
		_, err := w.AwaitState(ctx, alice, "HELD")
		return err
	})
	if n, err := w.Daemon.Metric(w.ctx, `sessiond_database_garbage_total{group="default",kind="feed"}`); err != nil || n == "" || n == "0" {
		t.Errorf("counted %q, %v", n, err)
	}
	if last := w.redis("XREVRANGE", "sessiond:{default}:feed", "+", "-", "COUNT", "1"); !strings.HasPrefix(last, fmt.Sprint(time.Now().UnixMilli())[:6]) {
		t.Errorf("the last entry is %q", last)
	}
}

// TestKeysOfAnotherType: one of sessiond's own keys is replaced by a key of another type.
// It is deleted, counted, named, and written again: no subscriber is cut off, settings and
// bindings stay, and a start finds them.
func TestKeysOfAnotherType(t *testing.T) {
	w := start(t, rig.Options{Memory: true})
	w.ctl("settings", "set", "subscriber_session_removal=observe")
	w.online(sessionOf(alice, "a"))
	bindings := w.ctl("binding", "list", "-o", "json")
	part := w.redis("--raw", "KEYS", "sessiond:{default}:bindings:*")
	writtenAgain := []string{
		"sessiond:{default}:owner", "sessiond:{default}:readers", "sessiond:{default}:served", "sessiond:{default}:marker", part,
		"sessiond:settings", "sessiond:nas",
	}
	all := append([]string{"sessiond:{default}:restarts", "sessiond:{default}:bindings", "sessiond:groups", "sessiond:nas:refused"}, writtenAgain...)
	for _, key := range all { // in one step: sessiond writes some of them all the time
		w.redis("XADD", "garbage", "*", "garbage", "garbage")
		w.redis("RENAME", "garbage", key)
	}
	w.must(w.Report(w.ctx, interimStatus, sessionOf(alice, "a")))
	w.awaitTypes(writtenAgain, func(kind string) bool { return kind != "stream" && kind != "none" })
	w.awaitTypes(all, func(kind string) bool { return kind != "stream" })
	for _, key := range all {
		if !strings.Contains(w.Daemon.Log(), key) {
			t.Errorf("the log does not name %s", key)
		}
	}
	w.must(w.Daemon.Kill())
	w.must(w.Daemon.Start(w.ctx))
	if got := w.ctl("settings", "get", "-o", "json"); !strings.Contains(got, "OBSERVE") {
		t.Errorf("settings after a start: %s, want removal to be observed", got)
	}
	w.sameBindings(bindings, w.ctl("binding", "list", "-o", "json"))
	w.must(w.Report(w.ctx, stopStatus, sessionOf(alice, "a")))
}

// TestTextsOfOthers: a marker and a group's description that sessiond did not write prove
// nothing, and do no harm.
func TestTextsOfOthers(t *testing.T) {
	w := start(t, rig.Options{Memory: true})
	w.online(sessionOf(alice, "a"))
	bindings := w.ctl("binding", "list", "-o", "json")
	w.redis("SET", "sessiond:{default}:marker", "garbage")
	w.soon(10*time.Second, func(ctx context.Context) error {
		return w.Until(ctx, "the marker to be written again", func() (bool, error) {
			text, err := w.Redis.CLI(ctx, "GET", "sessiond:{default}:marker")
			return strings.Contains(text, "epoch"), err
		})
	})
	w.must(w.Daemon.Kill())
	w.redis("SET", "sessiond:{default}:marker", "garbage")
	w.redis("SET", "sessiond:{default}:served", "garbage")
	w.must(w.Daemon.Start(w.ctx))
	w.sameBindings(bindings, w.ctl("binding", "list", "-o", "json"))
	w.must(w.Report(w.ctx, stopStatus, sessionOf(alice, "a")))
}

// awaitTypes waits until the types of all keys are right.
func (w *world) awaitTypes(keys []string, right func(kind string) bool) {
	w.t.Helper()
	w.soon(30*time.Second, func(ctx context.Context) error {
		wrong := ""
		err := w.Until(ctx, "keys to be of their types", func() (bool, error) {
			for _, key := range keys {
				kind, err := w.Redis.CLI(ctx, "TYPE", key)
				if wrong = key + " is " + kind; err != nil || !right(kind) {
					return false, err
				}
			}
			return true, nil
		})
		if err != nil {
			return fmt.Errorf("%w: %s", err, wrong)
		}
		return nil
	})
}
