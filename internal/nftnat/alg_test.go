package nftnat

import (
	"bufio"
	"context"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/nat"
)

// TestNoALG_NAT10: FTP's PORT passes as the subscriber wrote it, and opens nothing: there is no
// expectation, and no way in to the port that it names.
func TestNoALG_NAT10(t *testing.T) {
	w := newWireTest(t)
	_ = w.CGN.Do(func() error { // kernels before 6.0 can assign helpers by port
		if on, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_helper"); err == nil && strings.TrimSpace(string(on)) != "0" {
			t.Error("helpers are assigned by port")
		}
		return nil
	})
	apply(t, w, blockOf(alice, nat.GateOpen, 0))
	server, err := w.Internet.Listen(testContext(t), netip.AddrPortFrom(w.Remotes[0], 21))
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	control, err := w.Subscriber.Dial(testContext(t), "tcp4", netip.AddrPortFrom(alice, 0), netip.AddrPortFrom(w.Remotes[0], 21))
	if err != nil {
		t.Fatal(err)
	}
	defer control.Close()
	accepted, err := server.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	const port = "PORT 100,64,0,10,19,145\r\n" // 5009
	if _, err := control.Write([]byte(port)); err != nil {
		t.Fatal(err)
	}
	if got, err := bufio.NewReader(accepted).ReadString('\n'); err != nil || got != port {
		t.Errorf("the server reads %q: %v", got, err)
	}
	if out := run(t, w.Lab, "conntrack", "-L", "expect"); strings.Contains(out, "100.64.0.10") || strings.Contains(out, eip.String()) {
		t.Errorf("there is an expectation: %s", out)
	}
	entries, err := w.CGN.Conntrack(testContext(t), alice)
	if err != nil || strings.Contains(strings.Join(entries, "\n"), "helper=") {
		t.Errorf("a helper sees to %q: %v", entries, err)
	}
	data, err := w.Subscriber.Listen(testContext(t), netip.AddrPortFrom(alice, 5009))
	if err != nil {
		t.Fatal(err)
	}
	defer data.Close()
	for _, to := range []uint16{5009, 1024} {
		ctx, cancel := context.WithTimeout(testContext(t), 300*time.Millisecond)
		if conn, err := w.Internet.Dial(ctx, "tcp4", netip.AddrPortFrom(w.Remotes[0], 20), netip.AddrPortFrom(eip, to)); err == nil {
			t.Errorf("the server reaches port %d", to)
			_ = conn.Close()
		}
		cancel()
	}
}
