package nftnat

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/testenv"
)

// TestOthersTranslate: another table translates subscribers' new flows, by a chain at an
// earlier priority; the log has a line with the chain's name. Redirected flows, and flows
// from inside to inside, do not count.
func TestOthersTranslate(t *testing.T) {
	var told logLines
	w := newWireTestWith(t, func(o *Options) { o.Logger = slog.New(slog.NewTextHandler(&told, nil)) })
	apply(t, w, blockOf(alice, nat.GateOpen, 0))
	run(t, w.Lab, "nft", `
		table ip mgmt { chain post { type nat hook postrouting priority 90; oifname i0 udp dport 7000 masquerade; }; }
		table inet late { chain out { type nat hook postrouting priority 120; }; chain pre { type nat hook prerouting priority -100; iifname s0 udp dport 53 redirect; }; }
		table ip6 six { chain post { type nat hook postrouting priority 100; }; }
	`)
	if _, err := w.Subscriber.AskTCP(testContext(t), netip.AddrPortFrom(alice, 0), w.echo.Addr()); err != nil {
		t.Fatal(err)
	}
	resolver, err := w.Subscriber.Dial(testContext(t), "udp4", netip.AddrPortFrom(alice, 0), netip.AddrPortFrom(w.Remotes[0], 53))
	if err != nil {
		t.Fatal(err)
	}
	defer resolver.Close()
	if _, err := resolver.Write([]byte("?")); err != nil {
		t.Fatal(err)
	}
	wantSessions(t, w, alice, 2)
	if s := w.Strays(); s != (Strays{}) {
		t.Errorf("flows are taken for translated by others, %+v: %s", s, told.String())
	}
	seen, err := w.Subscriber.AskUDP(testContext(t), netip.AddrPortFrom(alice, 5000), w.echo.Addr())
	if err != nil || seen.Addr() == eip {
		t.Fatalf("the other table does not translate: %v, %v", seen, err)
	}
	testenv.Succeeds(t, func() error {
		log := told.String()
		for _, want := range []string{"others translate", "inside=" + alice.String(), "seen_as=" + seen.Addr().String(), "table ip mgmt, chain post, priority 90"} {
			if !strings.Contains(log, want) {
				return fmt.Errorf("the log does not say %q: %s", want, log)
			}
		}
		return nil
	})
	if s := w.Strays(); s.Count != 1 || s.Newest.Inside != alice || s.Newest.Outside != seen.Addr() || time.Since(s.Newest.At).Abs() > time.Minute {
		t.Errorf("flows that were translated by others are %+v, want one of %v, seen as %v", s, alice, seen)
	}
	chains, err := w.Translators(testContext(t))
	if want := []string{"table ip mgmt, chain post, priority 90", "table inet late, chain out, priority 120"}; err != nil || !slices.Equal(chains, want) {
		t.Errorf("chains are %q, %v, want %q", chains, err, want)
	}
}
