package system

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/rig"
)

// noNAT reloads with another list of destinations without translation.
func (w *world) noNAT(list string) {
	w.t.Helper()
	w.reload("  - {name: default, inside: [100.64.0.0/10], outside: [198.51.100.0/28], hold: 2s, no_nat: ["+list+"]}\n", true)
}

// untranslated returns the conntrack entries whose replies go to an inside address.
func (w *world) untranslated(ctx context.Context, inside netip.Addr) (found []string, err error) {
	entries, err := w.Lab.CGN.Conntrack(ctx, inside)
	for _, e := range entries {
		if strings.Count(e, "="+inside.String()+" ") == 2 {
			found = append(found, e)
		}
	}
	return found, err
}

// TestNoNATByReload_NAT29 goes through the whole program: a reload lists a destination, and new
// flows there keep their inside address, out and in, also after kill -9 and a restart; flows that
// stood keep their translation. Once the list is empty, flows without translation end, and new
// ones are translated.
func TestNoNATByReload_NAT29(t *testing.T) {
	w := start(t, rig.Options{})
	_, err := w.Lab.Internet.Output(w.ctx, "ip", "route", "add", "100.64.0.0/10", "via", netlab.OutsideGateway.Addr().String())
	w.must(err)
	listed, other := netip.AddrPortFrom(w.Lab.Remotes[0], 7001), netip.AddrPortFrom(w.Lab.Remotes[1], 7001)
	for _, at := range []netip.AddrPort{listed, other} {
		_, err := w.Lab.StartEcho(at)
		w.must(err)
	}
	block := w.online(sessionOf(alice, "a-1"))
	from := uint16(20000)
	// seen checks that a new flow is seen from the inside endpoint, or from the block.
	seen := func(when string, ask func(context.Context, netip.AddrPort, netip.AddrPort) (netip.AddrPort, error), to netip.AddrPort, plain bool) {
		t.Helper()
		from++
		inside := netip.AddrPortFrom(alice, from)
		ctx, cancel := context.WithTimeout(w.ctx, 5*time.Second)
		defer cancel()
		if got, err := ask(ctx, inside, to); err != nil || (got == inside) != plain || block.Covers(got) == plain {
			t.Errorf("%s: %v is seen at %v from %v, without translation: %t: %v", when, inside, to, got, plain, err)
		}
	}
	udp, tcp := w.Lab.Subscriber.AskUDP, w.Lab.Subscriber.AskTCP
	old := w.flow(alice) // to the first remote
	if !block.Covers(old.Source()) {
		t.Fatalf("without a list a flow is seen from %v", old.Source())
	}

	w.noNAT("{prefix: " + listed.Addr().String() + "/32}")
	seen("listed", udp, listed, true)
	seen("listed", tcp, listed, true)
	seen("not listed", udp, other, false)
	plain := w.flow(alice)
	if plain.Source().Addr() != alice {
		t.Fatalf("with the list a flow is seen from %v", plain.Source())
	}
	w.passes(plain, "to the listed destination")
	w.passes(old, "of before")
	subscriber := w.socket(w.Lab.Subscriber, netip.AddrPortFrom(alice, 5000))
	if _, ok := w.arrives(w.socket(w.Lab.Internet, netip.AddrPortFrom(listed.Addr(), 5001)), netip.AddrPortFrom(alice, 5000), subscriber, 500*time.Millisecond); ok {
		t.Error("a host at the listed destination begins a session")
	}

	w.must(w.Daemon.Kill())
	w.passes(plain, "to the listed destination, no daemon")
	w.must(w.Daemon.Start(w.ctx))
	w.passes(plain, "to the listed destination, after a kill")
	seen("listed, after a kill", udp, listed, true)

	w.noNAT("{prefix: " + listed.Addr().String() + "/32, protocol: udp, ports: 7001}")
	seen("port listed", udp, listed, true)
	seen("protocol not listed", tcp, listed, false)
	w.soon(10*time.Second, func(ctx context.Context) error {
		return w.Until(ctx, "the session that is not listed any more to be deleted", func() (bool, error) {
			left, err := w.untranslated(ctx, alice)
			return !slices.ContainsFunc(left, func(e string) bool { return strings.Contains(e, " tcp ") }), err
		})
	})
	w.dead(plain, "of TCP, which is not listed any more")

	w.noNAT("")
	seen("taken out", udp, listed, false)
	seen("taken out", tcp, listed, false)
	w.passes(old, "of before, in the end")
	w.soon(10*time.Second, func(ctx context.Context) error {
		return w.Until(ctx, "sessions without translation to be deleted", func() (bool, error) {
			left, err := w.untranslated(ctx, alice)
			return len(left) == 0, err
		})
	})
	w.ctl("reconcile")
	w.must(w.Offline(w.ctx, sessionOf(alice, "a-1")))
	w.gone(alice)
	w.dead(old, "of before, after the session")
}
