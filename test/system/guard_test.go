package system

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"layeh.com/radius/rfc2866"

	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/rig"
)

// crowd is a rig with some subscribers online, each with a flow.
type crowd struct {
	*world
	inside []netip.Addr
	flows  map[netip.Addr]*netlab.Flow
}

const members = 12

func (c *crowd) session(a netip.Addr) rig.Session { return sessionOf(a, "s-"+a.String()) }

func startCrowd(t *testing.T, o rig.Options) *crowd {
	t.Helper()
	c := &crowd{flows: map[netip.Addr]*netlab.Flow{}}
	for a := netip.MustParseAddr("100.64.1.1"); len(c.inside) < members; a = a.Next() {
		c.inside = append(c.inside, a)
	}
	o.Lab = netlab.Options{Subscribers: c.inside}
	c.world = start(t, o)
	for _, a := range c.inside {
		c.online(c.session(a))
	}
	for _, a := range c.inside {
		c.flows[a] = c.flow(a)
	}
	return c
}

// held returns the addresses whose removal is held, as sessionctl lists them.
func (c *crowd) held() []netip.Addr {
	c.t.Helper()
	var held []netip.Addr
	for line := range strings.Lines(c.ctl("-o", "json", "removal", "list", "--kind", "held")) {
		var r struct {
			InsideAddress netip.Addr `json:"inside_address"`
		}
		c.must(json.Unmarshal([]byte(line), &r))
		held = append(held, r.InsideAddress)
	}
	return held
}

// awaitHeld waits until n removals are held for the reason and the alarm shows them, and
// checks that the others of the crowd are gone.
func (c *crowd) awaitHeld(n int, reason string) []netip.Addr {
	c.t.Helper()
	series := fmt.Sprintf(`sessiond_removals_held{group="default",reason=%q}`, reason)
	c.soon(20*time.Second, func(ctx context.Context) error {
		return c.Until(ctx, fmt.Sprintf("%s to be %d", series, n), func() (bool, error) {
			got, err := c.Daemon.Metric(ctx, series)
			return got == fmt.Sprint(n), err
		})
	})
	held := c.held()
	if len(held) != n {
		c.t.Fatalf("%v are listed, want %d", held, n)
	}
	return held
}

// goneBut checks that nothing is left of the crowd except those addresses, and that their
// flows pass.
func (c *crowd) goneBut(kept []netip.Addr) {
	c.t.Helper()
	for _, a := range c.inside {
		if slices.Contains(kept, a) {
			c.passes(c.flows[a], a.String())
			continue
		}
		c.soon(5*time.Second, func(ctx context.Context) error { return c.AwaitNothing(ctx, a) })
	}
}

func (c *crowd) loseRecords() {
	c.t.Helper()
	args := []string{"DEL"}
	for _, a := range c.inside {
		args = append(args, recordKey(a))
	}
	_, err := c.Redis.CLI(c.ctx, args...)
	c.must(err)
}

const quarter = "minimum: 2, removed: 25%, expired: 25%, nas_restart: 25%, window: 1h"

// TestMassDeletionIsHeld_DEL13: all records are deleted, the marker is not. A quarter of
// the removals passes, the rest is held and served on, across kill -9. An Interim, a Stop,
// a confirmation and a refusal each end the hold in their way.
func TestMassDeletionIsHeld_DEL13(t *testing.T) {
	c := startCrowd(t, rig.Options{Guard: quarter})
	c.loseRecords()
	held := c.awaitHeld(9, "removed_in_database")
	c.goneBut(held)
	if n := strings.Count(c.Daemon.Log(), "more subscribers would go than the guard allows"); n != 1 {
		t.Errorf("the log tells %d times of one wave", n)
	}
	if out := c.ctl("status"); !strings.Contains(out, "REMOVALS HELD") {
		t.Errorf("status says\n%s", out)
	}
	c.must(c.Daemon.Kill())
	c.must(c.Daemon.Start(c.ctx))
	if again := c.awaitHeld(9, "removed_in_database"); !slices.Equal(again, held) {
		t.Errorf("held were %v, are %v", held, again)
	}
	c.goneBut(held)

	interim, stopped, confirmed, refused := held[0], held[1], held[2], held[3:]
	c.must(c.Report(c.ctx, rfc2866.AcctStatusType_Value_InterimUpdate, c.session(interim)))
	c.awaitHeld(8, "removed_in_database")
	c.must(c.Offline(c.ctx, c.session(stopped)))
	c.gone(stopped)
	c.ctl("removal", "confirm", "--inside", confirmed.String(), "--yes")
	c.gone(confirmed)
	c.dead(c.flows[confirmed], "confirmed")
	if out := c.ctl("removal", "refuse", "--reason", "removed_in_database", "--yes"); !strings.Contains(out, "dropped 6 removals") {
		t.Errorf("refuse says %q", out)
	}
	c.awaitHeld(0, "removed_in_database")
	c.goneBut(append([]netip.Addr{interim}, refused...))
	ttl, err := c.Redis.CLI(c.ctx, "TTL", recordKey(refused[0]))
	c.must(err)
	if strings.HasPrefix(ttl, "-") {
		t.Errorf("a refused record's time to live is %s", ttl)
	}
}

// TestRedisAwayTooLong_DEL13: Redis is dead until every record has expired. When it
// returns, the records are gone, but their subscribers are kept.
func TestRedisAwayTooLong_DEL13(t *testing.T) {
	const ttl = 10 * time.Second
	c := startCrowd(t, rig.Options{Guard: quarter, RecordTTL: ttl})
	for _, a := range c.inside {
		c.must(c.Report(c.ctx, rfc2866.AcctStatusType_Value_InterimUpdate, c.session(a)))
	}
	runOut := time.After(ttl + time.Second)
	c.must(c.Redis.Kill())
	<-runOut
	c.must(c.Redis.Start(c.ctx))
	held := c.awaitHeld(9, "expired")
	c.goneBut(held)
	for _, a := range held { // accounting works again, too
		c.must(c.Report(c.ctx, rfc2866.AcctStatusType_Value_InterimUpdate, c.session(a)))
	}
	c.awaitHeld(0, "expired")
	c.goneBut(held)
}

// TestOldBackup_DEL13: while sessiond is down Redis is restored to a state before most of
// the subscribers were online. At the start no subscriber is cut that the guard holds.
func TestOldBackup_DEL13(t *testing.T) {
	c := startCrowd(t, rig.Options{Guard: quarter})
	c.must(c.Daemon.Kill())
	c.loseRecords()
	_, err := c.Redis.CLI(c.ctx, "EVAL",
		"for _, k in ipairs(redis.call('KEYS', 'sessiond:{default}:sess:*')) do redis.call('DEL', k) end return redis.call('DEL', 'sessiond:{default}:online')", "0")
	c.must(err)
	c.must(c.Daemon.Start(c.ctx))
	held := c.awaitHeld(9, "removed_in_database")
	c.goneBut(held)
	for _, a := range held {
		c.must(c.Report(c.ctx, rfc2866.AcctStatusType_Value_InterimUpdate, c.session(a)))
	}
	c.awaitHeld(0, "removed_in_database")
	c.goneBut(held)
}

// TestNASRestartIsHeld_DEL13_SES16: an Accounting-Off that would end all is held; refusing
// it undoes it.
func TestNASRestartIsHeld_DEL13_SES16(t *testing.T) {
	c := startCrowd(t, rig.Options{Guard: quarter})
	c.must(c.Send(c.ctx, accountingOff(rig.NAS)))
	held := c.awaitHeld(members, "nas_restart")
	c.goneBut(held)
	c.ctl("removal", "refuse", "--inside", "0.0.0.0/0", "--yes")
	c.awaitHeld(0, "nas_restart")
	c.must(c.Offline(c.ctx, c.session(c.inside[0])))
	c.gone(c.inside[0])
	c.goneBut(c.inside[1:])
}
