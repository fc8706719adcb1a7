package netlab

import (
	"context"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/testenv"
)

var (
	alice  = netip.MustParseAddr("100.64.0.10")
	bob    = netip.MustParseAddr("100.64.0.11")
	public = netip.MustParseAddr("198.51.100.1")
)

// translation replaces a CGN: one block of public ports each for alice and bob,
// and none for others.
const translation = `
table ip lab {
	chain forward {
		type filter hook forward priority filter; policy drop;
		iifname s0 ip saddr { 100.64.0.10, 100.64.0.11 } accept
		iifname i0 ct state established,related accept
	}
	chain postrouting {
		type nat hook postrouting priority srcnat;
		ip saddr 100.64.0.10 ip protocol { tcp, udp, icmp } snat ip to 198.51.100.1:1024-1535
		ip saddr 100.64.0.11 ip protocol { tcp, udp, icmp } snat ip to 198.51.100.1:1536-2047
	}
}`

func newLab(t *testing.T, opts Options) *Lab {
	t.Helper()
	testenv.Require(t, testenv.Root|testenv.Nft|testenv.Conntrack)
	l, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func nft(t *testing.T, n *Namespace, script string) {
	t.Helper()
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(script)
	var out strings.Builder
	cmd.Stderr = &out
	if err := n.Start(cmd); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("nft: %v: %s", err, out.String())
	}
}

func TestLabForwardsOnly(t *testing.T) {
	t.Parallel()
	l := newLab(t, Options{})
	if err := l.Internet.AddRoute(Route{Destination: InsideGateway.Masked(), Gateway: OutsideGateway.Addr()}); err != nil {
		t.Fatal(err)
	}
	echo, err := l.StartEcho(netip.AddrPortFrom(l.Remotes[1], 0))
	if err != nil {
		t.Fatal(err)
	}
	ctx := testContext(t)
	seen, err := l.Subscriber.AskTCP(ctx, netip.AddrPortFrom(alice, 4321), echo.Addr())
	if err != nil || seen != netip.AddrPortFrom(alice, 4321) {
		t.Errorf("untranslated TCP seen from %v, %v", seen, err)
	}
}

func TestTranslatedProbesTellTheSource(t *testing.T) {
	t.Parallel()
	l := newLab(t, Options{})
	nft(t, l.CGN, translation)
	ctx := testContext(t)
	for _, remote := range l.Remotes {
		echo, err := l.StartEcho(netip.AddrPortFrom(remote, 0))
		if err != nil {
			t.Fatal(err)
		}
		tcp, err := l.Subscriber.AskTCP(ctx, netip.AddrPortFrom(alice, 0), echo.Addr())
		checkInBlock(t, tcp, err, 1024)
		udp, err := l.Subscriber.AskUDP(ctx, netip.AddrPortFrom(bob, 0), echo.Addr())
		checkInBlock(t, udp, err, 1536)
		want := []Sighting{{"tcp4", tcp}, {"udp4", udp}}
		if got := echo.Seen(); !slices.Equal(got, want) {
			t.Errorf("echo saw %v, want %v", got, want)
		}
	}
	ping, err := l.Ping(ctx, alice, 77)
	checkInBlock(t, netip.AddrPortFrom(ping.Source, ping.ID), err, 1024)
}

func checkInBlock(t *testing.T, seen netip.AddrPort, err error, first uint16) {
	t.Helper()
	if err != nil {
		t.Error(err)
		return
	}
	if seen.Addr() != public || seen.Port() < first || seen.Port() >= first+512 {
		t.Errorf("seen from %v, not from %v:%d-%d", seen, public, first, first+511)
	}
}

func TestFlowTellsEachDirection(t *testing.T) {
	t.Parallel()
	l := newLab(t, Options{})
	nft(t, l.CGN, translation)
	flow, err := l.OpenFlow(testContext(t), netip.AddrPortFrom(alice, 0))
	checkInBlock(t, flow.Source(), err, 1024)
	probe := func(wantOut, wantIn bool, within time.Duration) {
		t.Helper()
		if out, in := flow.Probe(within); out != wantOut || in != wantIn {
			t.Errorf("flow passes out %v, in %v; want %v, %v", out, in, wantOut, wantIn)
		}
	}
	probe(true, true, 10*time.Second)

	// The number sent out arrives even if its acknowledgment does not.
	nft(t, l.CGN, `table ip cut { chain f { type filter hook forward priority -5; iifname i0 drop; }; }`)
	probe(true, false, 300*time.Millisecond)

	nft(t, l.CGN, `delete table ip cut`)
	probe(true, true, 10*time.Second)
	nft(t, l.CGN, `table ip cut { chain f { type filter hook forward priority -5; drop; }; }`)
	probe(false, false, 300*time.Millisecond)
}

func TestConntrackFindsEitherTuple(t *testing.T) {
	t.Parallel()
	l := newLab(t, Options{})
	nft(t, l.CGN, translation)
	ctx := testContext(t)
	if _, err := l.OpenFlow(ctx, netip.AddrPortFrom(alice, 0)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		addr netip.Addr
		want int
	}{{alice, 1}, {public, 1}, {netip.Addr{}, 1}, {bob, 0}, {netip.MustParseAddr("100.64.0.1"), 0}} {
		lines, err := l.CGN.Conntrack(ctx, c.addr)
		if err != nil || len(lines) != c.want {
			t.Errorf("entries of %v: %q, %v; want %d", c.addr, lines, err, c.want)
		}
	}
}

func TestNftLooksIntoTheNamespace(t *testing.T) {
	t.Parallel()
	l := newLab(t, Options{})
	nft(t, l.CGN, translation)
	ctx := testContext(t)
	if text, err := l.CGN.NftList(ctx); err != nil || !strings.Contains(text, "table ip lab") {
		t.Errorf("nft list ruleset: %q, %v", text, err)
	}
	if text, err := l.CGN.NftJSON(ctx); err != nil || !strings.Contains(string(text), `"name": "lab"`) {
		t.Errorf("nft -j list ruleset: %q, %v", text, err)
	}
	if text, err := l.Internet.NftList(ctx); err != nil || text != "" {
		t.Errorf("ruleset of another namespace: %q, %v", text, err)
	}
}

func TestThirdPartyReachesMappedPort(t *testing.T) {
	t.Parallel()
	l := newLab(t, Options{})
	nft(t, l.CGN, `table ip lab { chain prerouting {
		type nat hook prerouting priority dstnat;
		ip daddr 198.51.100.1 udp dport 1024 dnat to 100.64.0.10:5000
	}; }`)
	inside, err := l.Subscriber.ListenUDP(netip.AddrPortFrom(alice, 5000))
	if err != nil {
		t.Fatal(err)
	}
	l.Own(inside)
	stranger, err := l.Internet.ListenUDP(netip.AddrPortFrom(l.Remotes[1], 0))
	if err != nil {
		t.Fatal(err)
	}
	l.Own(stranger)
	if _, err := stranger.WriteToUDPAddrPort([]byte("hello"), netip.AddrPortFrom(public, 1024)); err != nil {
		t.Fatal(err)
	}
	_ = inside.SetReadDeadline(time.Now().Add(10 * time.Second))
	buf := make([]byte, 16)
	n, from, err := inside.ReadFromUDPAddrPort(buf)
	if err != nil || string(buf[:n]) != "hello" || from.Addr() != l.Remotes[1] {
		t.Errorf("got %q from %v, %v", buf[:n], from, err)
	}
}

func TestAddSubscriber(t *testing.T) {
	t.Parallel()
	l := newLab(t, Options{Subscribers: []netip.Addr{alice}})
	if err := l.AddSubscriber(bob); err != nil {
		t.Fatal(err)
	}
	conn, err := l.Subscriber.ListenUDP(netip.AddrPortFrom(bob, 0))
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
}

func TestDoComesBackHome(t *testing.T) {
	t.Parallel()
	l := newLab(t, Options{})
	home := namespaceOfThread(t)
	var away string
	func() {
		defer func() { _ = recover() }()
		_ = l.CGN.Do(func() error {
			away = namespaceOfThread(t)
			panic("in the namespace")
		})
	}()
	if away == home {
		t.Error("function did not run in the namespace")
	}
	if now := namespaceOfThread(t); now != home {
		t.Errorf("thread is in %s after a panic, want %s", now, home)
	}
}

func namespaceOfThread(t *testing.T) string {
	t.Helper()
	link, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	return link
}

func TestCloseLeavesNothing(t *testing.T) {
	t.Parallel()
	l := newLab(t, Options{})
	names := []string{l.Subscriber.Name(), l.CGN.Name(), l.Internet.Name()}
	if _, err := l.StartEcho(netip.AddrPortFrom(l.Remotes[0], 0)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range names {
		if _, err := os.Stat(namespaceDir + "/" + name); err == nil {
			t.Errorf("namespace %s is left", name)
		}
	}
}

func TestSweepRemovesOnlyTheDead(t *testing.T) {
	t.Parallel()
	l := newLab(t, Options{})
	dead := exec.Command("true")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	leftover := prefix + strconv.Itoa(dead.Process.Pid) + "-1-cgn"
	if err := addNamespace(leftover); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = deleteNamespace(leftover) })
	if err := Sweep(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(namespaceDir + "/" + leftover); err == nil {
		t.Errorf("namespace %s of a dead process is left", leftover)
	}
	if _, err := os.Stat(l.CGN.Path()); err != nil {
		t.Errorf("namespace of a living process: %v", err)
	}
}

func TestOwnerOf(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		pid  int
		ok   bool
	}{
		{"sd-123-4-cgn", 123, true},
		{"sd-123-4", 0, false},
		{"sd-x-4-cgn", 0, false},
		{"sd--1-4-cgn", 0, false},
		{"sd-0-4-cgn", 0, false},
		{"customer", 0, false},
	} {
		if pid, ok := ownerOf(c.name); ok != c.ok || ok && pid != c.pid {
			t.Errorf("ownerOf(%q) = %d, %v", c.name, pid, ok)
		}
	}
}

func TestRenameInterfaceKeepsRoutes(t *testing.T) {
	t.Parallel()
	l := newLab(t, Options{})
	if found, err := l.Subscriber.RenameInterface(public, "x0"); found || err != nil {
		t.Errorf("renamed by an address that is not there: %v, %v", found, err)
	}
	for range 2 {
		if found, err := l.Subscriber.RenameInterface(alice, "x0"); !found || err != nil {
			t.Fatalf("rename: %v, %v", found, err)
		}
	}
	out, err := l.Subscriber.Output(testContext(t), "ip", "route", "show", "default")
	if err != nil || !strings.HasPrefix(string(out), "default via 100.64.0.1 dev x0") {
		t.Errorf("default route: %q, %v", out, err)
	}
}
