package system

import (
	"context"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/rig"
	"github.com/sessiond/sessiond/internal/testenv"
)

// TestQuietConntrack_DEL11_I5: missing conntrack events, because of a sysctl or of another
// table's rule, are no proof that a session has ended. With removal off live sessions go on
// until they end by themselves, and the block is freed then; with removal on nothing of a
// session is left.
func TestQuietConntrack_DEL11_I5(t *testing.T) {
	table := func(family, hook, rule string) []string {
		return []string{"nft", "add table " + family + " quiet; add chain " + family + " quiet c { type filter hook " + hook +
			"; }; add rule " + family + " quiet c " + rule}
	}
	for _, c := range []struct {
		name  string
		quiet []string
		first bool // the rule exists when the daemon starts
	}{
		{"sysctl", []string{"sysctl", "-qw", "net.netfilter.nf_conntrack_events=0"}, false},
		{"sysctl from before", []string{"sysctl", "-qw", "net.netfilter.nf_conntrack_events=0"}, true},
		{"rule", table("ip", "prerouting priority -150", "ct event set label"), false},
		{"rule of two families", table("inet", "forward priority 10", "meta l4proto tcp counter ct event set assured,destroy"), false},
		{"rule from before", table("ip", "prerouting priority -150", "ip protocol tcp ct event set destroy,label"), true},
		{"iptables rule", []string{"iptables-nft", "-t", "raw", "-A", "PREROUTING", "-p", "tcp", "-j", "CT", "--ctevents", "destroy"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.quiet[0] == "iptables-nft" {
				testenv.Require(t, testenv.Iptables)
			}
			w := start(t, rig.Options{RemovalOff: true, Hold: time.Second})
			if c.first {
				_, err := w.Daemon.Stop()
				w.must(err)
			}
			_, err := w.Lab.CGN.Output(w.ctx, c.quiet[0], c.quiet[1:]...)
			w.must(err)
			if c.first {
				w.must(w.Daemon.Start(w.ctx))
			}
			w.online(sessionOf(alice, "a-1"))
			f := w.flow(alice)
			w.must(w.Offline(w.ctx, sessionOf(alice, "a-1")))
			w.soon(5*time.Second, func(ctx context.Context) error {
				_, err := w.AwaitState(ctx, alice, "DRAINING")
				return err
			})
			for end := time.Now().Add(3 * time.Second); time.Now().Before(end); { // three checks
				w.passes(f, "alice, drained")
			}
			w.cannotOpen(alice)
			w.must(f.Close())
			w.killSessions(alice)
			w.soon(15*time.Second, func(ctx context.Context) error { return w.awaitFree(ctx, alice) })

			w.ctl("settings", "set", "subscriber_session_removal=on")
			w.online(sessionOf(bob, "b-1"))
			f = w.flow(bob)
			w.must(w.Offline(w.ctx, sessionOf(bob, "b-1")))
			w.soon(5*time.Second, func(ctx context.Context) error { return w.AwaitNothing(ctx, bob) })
			w.dead(f, "bob")
		})
	}
}
