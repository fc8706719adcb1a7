package nftnat

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/testenv"
)

// TestTimeouts_NAT05_NAT17_NAT18_NAT19_NAT22 takes one flow of each protocol through its
// states and reads from conntrack when it would expire. Defaults of the kernel are 30, 120,
// 432000, 60, 30 and 10 seconds.
func TestTimeouts_NAT05_NAT17_NAT18_NAT19_NAT22(t *testing.T) {
	w := newWireTest(t)
	apply(t, w, blockOf(alice, nat.GateOpen, 0))
	ctx := testContext(t)

	silent, err := w.Internet.ListenUDP(netip.AddrPortFrom(w.Remotes[1], 9))
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	conn, err := w.Subscriber.Dial(ctx, "udp4", netip.AddrPortFrom(alice, 5001), netip.AddrPortFrom(w.Remotes[1], 9))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("?")); err != nil {
		t.Fatal(err)
	}
	w.wantExpiry(t, "udp 5001 [UNREPLIED]", testTimeouts.UDP)

	if _, err := w.Subscriber.AskUDP(ctx, netip.AddrPortFrom(alice, 5002), w.echo.Addr()); err != nil {
		t.Fatal(err)
	}
	w.wantExpiry(t, "udp 5002", testTimeouts.UDP)

	if _, err := w.Ping(ctx, alice, 77); err != nil {
		t.Fatal(err)
	}
	w.wantExpiry(t, "icmp id=77", testTimeouts.ICMP)

	standing := w.flow(t, alice)
	w.wantExpiry(t, "tcp ESTABLISHED", testTimeouts.TCPEstablished)
	if _, err := standing.Outside.Send(); err != nil {
		t.Fatal(err)
	}
	if err := standing.In(ctx); err != nil {
		t.Fatal(err)
	}
	w.wantExpiry(t, "tcp ESTABLISHED", testTimeouts.TCPEstablished)
	if err := standing.Close(); err != nil { // by a reset
		t.Fatal(err)
	}
	w.wantExpiry(t, "tcp CLOSE", testTimeouts.TCPTransitory)

	if _, err := w.Subscriber.AskTCP(ctx, netip.AddrPortFrom(alice, 5003), w.echo.Addr()); err != nil {
		t.Fatal(err)
	}
	w.wantExpiry(t, "tcp 5003", testTimeouts.TCPTransitory) // closing in either way
}

// TestTimeoutsOfLaterFlows changes the timeouts while flows stand.
func TestTimeoutsOfLaterFlows(t *testing.T) {
	w := newWireTest(t)
	apply(t, w, blockOf(alice, nat.GateOpen, 0))
	older, later := netip.AddrPortFrom(alice, 5001), netip.AddrPortFrom(alice, 5002)
	ask := func(from netip.AddrPort) {
		if _, err := w.Subscriber.AskUDP(testContext(t), from, w.echo.Addr()); err != nil {
			t.Fatal(err)
		}
	}
	ask(older)
	changed := testTimeouts
	changed.UDP = 900 * time.Second
	if err := w.SetTimeouts(testContext(t), changed); err != nil {
		t.Fatal(err)
	}
	ask(older)
	ask(later)
	w.wantExpiry(t, "udp 5001", testTimeouts.UDP)
	w.wantExpiry(t, "udp 5002", changed.UDP)

	// A new start with other timeouts leaves the policies of standing flows.
	openKernel(t, labOptions(w.Lab))
	ask(later)
	w.wantExpiry(t, "udp 5002", changed.UDP)
}

// TestICMPTimeoutComesBack has others change the namespace's timeout of ICMP.
func TestICMPTimeoutComesBack(t *testing.T) {
	lab := newLab(t)
	k := openKernel(t, labOptions(lab))
	const key = "net.netfilter.nf_conntrack_icmp_timeout"
	want := func(seconds string) {
		t.Helper()
		if got := strings.TrimSpace(run(t, lab, "sysctl", "-n", key)); got != seconds {
			t.Errorf("it is %s, want %s", got, seconds)
		}
	}
	want("60")
	run(t, lab, "sysctl", "-qw", key+"=7")
	if err := k.check(testContext(t), true); err != nil {
		t.Fatal(err)
	}
	want("60")
	changed := testTimeouts
	changed.ICMP = 90 * time.Second
	if err := k.SetTimeouts(testContext(t), changed); err != nil {
		t.Fatal(err)
	}
	want("90")
}

func TestOldPoliciesAreBounded(t *testing.T) {
	lab := newLab(t)
	k := openKernel(t, labOptions(lab))
	changed := testTimeouts
	for i := range maxPolicies + 5 {
		changed.UDP = time.Duration(1000+i) * time.Second
		if err := k.SetTimeouts(testContext(t), changed); err != nil {
			t.Fatal(err)
		}
	}
	out := run(t, lab, "nft", "list", "ruleset")
	if got := strings.Count(out, "\tct timeout "); got != maxPolicies {
		t.Errorf("%d policies stand, want %d", got, maxPolicies)
	}
	for _, gone := range []string{"udp-300", "udp-1000", "udp-1001"} {
		if strings.Contains(out, gone+" {") {
			t.Errorf("the old policy %s is left", gone)
		}
	}
}

// wantExpiry is wantExpiryOf of alice.
func (w wireTest) wantExpiry(t *testing.T, words string, want time.Duration) {
	t.Helper()
	w.wantExpiryOf(t, alice, words, want)
}

// wantExpiryOf waits for the conntrack entry with the words, the first of which is its protocol,
// and for its time left to be just below want.
func (w wireTest) wantExpiryOf(t *testing.T, inside netip.Addr, words string, want time.Duration) {
	t.Helper()
	protocol, rest, _ := strings.Cut(words, " ")
	testenv.Succeeds(t, func() error {
		entries, err := w.CGN.Conntrack(testContext(t), inside)
		if err != nil {
			return err
		}
		for _, e := range entries {
			f := strings.Fields(e)
			at := slices.Index(f, protocol) // then its number, then the time left
			if at < 0 || len(f) < at+3 || !hasWords(e, rest) {
				continue
			}
			left, err := strconv.Atoi(f[at+2])
			if err != nil {
				return err
			}
			if expires := time.Duration(left) * time.Second; expires > want || expires < want-5*time.Second {
				return fmt.Errorf("expires in %v, want %v: %s", expires, want, e)
			}
			return nil
		}
		return fmt.Errorf("no entry is %q: %q", words, entries)
	})
}

func hasWords(entry, words string) bool {
	for _, word := range strings.Fields(words) {
		if !strings.Contains(entry, word) {
			return false
		}
	}
	return true
}
