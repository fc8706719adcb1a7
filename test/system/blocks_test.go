package system

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/rig"
)

// TestTwoBlocks_SES19_NAT40: a stored binding gets a further block while sessiond is down,
// as a later version may write it. Flows in the first block go on, new ones get ports of
// the further one, a lookup of either finds the subscriber, and a Stop ends all of them.
func TestTwoBlocks_SES19_NAT40(t *testing.T) {
	w := start(t, rig.Options{Lab: sharedAddress})
	b := w.online(sessionOf(alice, "a"))
	old := w.flow(alice)
	w.must(w.Daemon.Kill())
	key := fmt.Sprintf("sessiond:{default}:bindings:%d", netip.MustParseAddr(b.OutsideAddress).As4()[3]%32)
	field := fmt.Sprintf("%s:%d", b.OutsideAddress, b.FirstPort)
	last := fmt.Sprintf(`"last":%d,`, b.LastPort)
	w.redis("HSET", key, field, strings.Replace(w.redis("HGET", key, field), last, last+`"more":[[65024,65535]],`, 1))
	w.must(w.Daemon.Start(w.ctx))

	fresh := w.flow(alice)
	if p := fresh.Source().Port(); p < 65024 {
		t.Errorf("a new flow is seen from port %d", p)
	}
	both := fmt.Sprintf("%d-%d,65024-65535", b.FirstPort, b.LastPort)
	check := func(when string) {
		w.passes(old, "flow in the first block, "+when)
		w.passes(fresh, "flow in the further block, "+when)
		for _, seen := range []netip.AddrPort{old.Source(), fresh.Source()} {
			if out := w.ctl("binding", "lookup", seen.String()); !strings.Contains(out, alice.String()) || !strings.Contains(out, both) {
				t.Errorf("%s, a lookup of %s finds\n%s", when, seen, out)
			}
		}
		if out := w.ctl("-o", "json", "reconcile", "--dry-run"); out != "" {
			t.Errorf("%s, there is drift:\n%s", when, out)
		}
	}
	check("after the start")
	if other := w.online(sessionOf(bob, "b")); other.OutsideAddress != b.OutsideAddress || other.FirstPort >= 65024 {
		t.Errorf("bob has %+v, alice %s", other, both)
	}
	stored := w.redis("HGET", key, field)
	w.must(w.Daemon.Kill())
	w.must(w.Daemon.Start(w.ctx))
	check("after another start")
	if now := w.redis("HGET", key, field); now != stored {
		t.Errorf("%s was stored, now %s", stored, now)
	}

	w.must(w.Offline(w.ctx, sessionOf(alice, "a")))
	w.gone(alice)
	w.dead(old, "after the Stop")
	w.dead(fresh, "after the Stop")
	w.soon(10*time.Second, func(ctx context.Context) error { return w.awaitFree(ctx, alice) })
	if out := w.ctl("pool", "list", "-o", "json"); !strings.Contains(out, `"blocks_used":1,"blocks_held":0`) {
		t.Errorf("after the hold: %s", out)
	}
}
