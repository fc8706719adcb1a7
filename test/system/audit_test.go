package system

import (
	"context"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/rig"
)

// replyTo finds the outside address, and port or ICMP id, of a conntrack entry: the
// destination of replies.
var replyTo = regexp.MustCompile(`src=\S+ dst=\S+.* src=\S+ dst=(\S+) .*?(?:dport|id)=(\d+)`)

// TestEveryEntryIsInItsBlock_NAT40: no conntrack entry ever shows a port outside its
// subscriber's block, with many flows of two subscribers on one outside address.
func TestEveryEntryIsInItsBlock_NAT40(t *testing.T) {
	w := start(t, rig.Options{BlockSize: 64, Lab: sharedAddress})
	echo, err := w.Lab.StartEcho(netip.AddrPortFrom(w.Lab.Remotes[0], 0))
	w.must(err)
	for _, inside := range []netip.Addr{alice, bob} {
		block := w.online(sessionOf(inside, "s-"+inside.String()))
		for port := range uint16(20) {
			from := netip.AddrPortFrom(inside, 20000+port)
			_, err := w.Lab.Subscriber.AskUDP(w.ctx, from, echo.Addr())
			w.must(err)
			_, err = w.Lab.Subscriber.AskTCP(w.ctx, from, echo.Addr())
			w.must(err)
		}
		_, err := w.Lab.Ping(w.ctx, inside, 9)
		w.must(err)
		entries, err := w.Lab.CGN.Conntrack(w.ctx, inside)
		w.must(err)
		if len(entries) < 41 {
			t.Errorf("%s has %d entries, want at least 41", inside, len(entries))
		}
		for _, e := range entries {
			if seen := replyAddr(t, e); !block.Covers(seen) {
				t.Errorf("entry outside of %+v: %s", block, e)
			}
		}
	}
	if out := w.ctl("-o", "json", "reconcile"); strings.Contains(out, "session_") {
		t.Errorf("the audit complains: %s", out)
	}
}

func replyAddr(t *testing.T, entry string) netip.AddrPort {
	t.Helper()
	m := replyTo.FindStringSubmatch(entry)
	if m == nil {
		t.Fatalf("cannot read %q", entry)
	}
	a, err := netip.ParseAddrPort(m[1] + ":" + m[2])
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestAuditEndsMisplacedSessions_NAT40: an audit on request ends sessions that belong to no
// binding; sessions within their block stay.
func TestAuditEndsMisplacedSessions_NAT40(t *testing.T) {
	w := start(t, rig.Options{})
	w.online(sessionOf(alice, "a-1"))
	f := w.flow(alice)
	remote := w.Lab.Remotes[0]
	w.inject(alice, remote, "198.51.100.15") // outside of alice's block
	w.inject(bob, remote, "198.51.100.14")   // bob is not online

	dry := w.ctl("-o", "json", "reconcile", "--dry-run")
	for _, kind := range []string{"session_outofblock", "session_orphaned"} {
		if !strings.Contains(dry, kind) {
			t.Errorf("a dry run does not report %s: %s", kind, dry)
		}
	}
	if n := w.entriesOf(bob); n != 1 {
		t.Errorf("a dry run left %d of bob's entries, want 1", n)
	}
	w.ctl("reconcile")
	w.soon(time.Second, func(ctx context.Context) error { return w.AwaitNothing(ctx, bob) })
	if n := w.entriesOf(alice); n != 1 {
		t.Errorf("alice has %d entries, want her flow alone", n)
	}
	w.passes(f, "alice")
}

// inject makes a conntrack entry of a UDP flow that is translated to port 9999 of an
// outside address.
func (w *world) inject(inside, remote netip.Addr, outside string) {
	w.t.Helper()
	args := fmt.Sprintf("-I -p udp -s %s -d %s --sport 5000 --dport 53 -r %s -q %s --reply-port-src 53 --reply-port-dst 9999 -t 120",
		inside, remote, remote, outside)
	_, err := w.Lab.CGN.Output(w.ctx, "conntrack", strings.Fields(args)...)
	w.must(err)
}

func (w *world) entriesOf(inside netip.Addr) int {
	w.t.Helper()
	entries, err := w.Lab.CGN.Conntrack(w.ctx, inside)
	w.must(err)
	return len(entries)
}

// TestOthersTranslate_NAT40: if an operator adds a masquerade rule at an earlier priority,
// it is reported within seconds, and `sessionctl reconcile` and `status` name its table.
func TestOthersTranslate_NAT40(t *testing.T) {
	w := start(t, rig.Options{})
	w.online(sessionOf(alice, "a-1"))
	const metric = "sessiond_foreign_translations_total"
	if n, err := w.Daemon.Metric(w.ctx, metric); err != nil || n != "0" {
		t.Errorf("%s is %q, %v", metric, n, err)
	}
	if out := w.ctl("-o", "json", "status"); strings.Contains(out, "nat_chains") {
		t.Errorf("before, status says %s", out)
	}
	_, err := w.Lab.CGN.Output(w.ctx, "nft", "table ip operator { chain out { type nat hook postrouting priority 50; oifname i0 masquerade; }; }")
	w.must(err)
	w.flow(alice)
	w.soon(5*time.Second, func(ctx context.Context) error {
		return w.Until(ctx, "the foreign translation to be told", func() (bool, error) {
			n, err := w.Daemon.Metric(ctx, metric)
			return n == "1" && strings.Contains(w.Daemon.Log(), "table ip operator, chain out, priority 50"), err
		})
	})
	if out := w.ctl("-o", "json", "reconcile", "--dry-run"); !strings.Contains(out, "session_outofblock") || !strings.Contains(out, "table ip operator, chain out, priority 50") {
		t.Errorf("reconcile says %s", out)
	}
	if out := w.ctl("status"); !strings.Contains(out, "TRANSLATED BY OTHERS: 1 flow,") || !strings.Contains(out, "of "+alice.String()+" as 203.0.113.1") || !strings.Contains(out, "table ip operator, chain out, priority 50") {
		t.Errorf("status says %s", out)
	}
}
