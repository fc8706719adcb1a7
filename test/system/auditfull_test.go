package system

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sessiond/sessiond/internal/rig"
)

// TestOrdersOnAFullRedis: where Redis has no free memory, or its disk is full, changes that callers
// order are refused, the refusals say why, and no entry tells of them. Calls that read go on, and
// so does NAT, for new sessions too.
func TestOrdersOnAFullRedis(t *testing.T) {
	w := start(t, rig.Options{})
	w.online(sessionOf(alice, "a-1"))
	w.online(sessionOf(bob, "b-1"))
	before := w.flow(alice)
	w.ctl("settings", "set", "idle_timeouts.udp=2m", "--reason", "before")
	dir := strings.Fields(w.redis("CONFIG", "GET", "dir"))
	dump := filepath.Join(dir[len(dir)-1], "dump.rdb")
	for _, c := range []struct {
		name, why  string
		fill, free func()
	}{
		{"memory", "OOM", func() { w.redis("CONFIG", "SET", "maxmemory", "1") }, func() { w.redis("CONFIG", "SET", "maxmemory", "0") }},
		{"disk", "MISCONF", func() {
			w.must(os.Mkdir(dump, 0o700))
			w.redis("CONFIG", "SET", "save", "3600 1")
			w.redis("BGSAVE")
			w.must(w.Until(w.ctx, "Redis to refuse writes", func() (bool, error) {
				out, err := w.Redis.CLI(w.ctx, "SET", "probe", "x")
				return strings.Contains(out, "MISCONF"), err
			}))
		}, func() {
			w.must(os.Remove(dump))
			w.redis("CONFIG", "SET", "save", "")
		}},
	} {
		c.fill()
		for _, order := range []string{
			"settings set subscriber_session_removal=off", "pool add 203.0.113.160/28", "subscriber put 100.64.0.77 --user x",
			"session kill --inside " + alice.String() + " --yes", "reconcile",
		} {
			out, err := w.Daemon.Ctl(w.ctx, strings.Fields(order)...)
			if err == nil || !strings.Contains(err.Error(), c.why) {
				t.Errorf("%s: %s: %q, %v; want a refusal with %q", c.name, order, out, err, c.why)
			}
		}
		for read, want := range map[string]string{
			"subscriber list": alice.String(), "settings get": "on", "pool list": "198.51.100", "audit list": "before", "audit verify": "none",
			"session list --inside " + alice.String(): alice.String(),
		} {
			if out := w.ctl(strings.Fields(read)...); !strings.Contains(out, want) {
				t.Errorf("%s: %s: %s", c.name, read, out)
			}
		}
		w.passes(before, "alice, before")
		w.passes(w.flow(alice), "alice, "+c.name)
		w.passes(w.flow(bob), "bob, "+c.name)
		c.free()
		w.must(w.awaitReadyz(w.ctx))
		w.ctl("settings", "set", "idle_timeouts.udp=2m", "--reason", "after "+c.name)
	}
	list := w.ctl("audit", "list", "-o", "json")
	if n := strings.Count(list, "\n"); n != 3 || strings.Count(list, "UpdateSettings") != 3 {
		t.Errorf("%d entries:\n%s", n, list)
	}
}
