package radiusacct_test

import (
	"net/netip"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/radiusacct"
	"github.com/sessiond/sessiond/internal/testenv"
)

// everywhere makes every source client "a", on the given addresses.
func everywhere(listen ...string) func(*radiusacct.Options) {
	return func(o *radiusacct.Options) {
		o.Listen = listen
		v4, v6 := clientA(), clientA()
		v4.Prefix, v6.Prefix = netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")
		o.Clients = []radiusacct.Client{v4, v6}
	}
}

// askEach sends a request to each address; ask checks that the reply comes from there.
// Every address is asked twice, to check cached replies too.
func askEach(t *testing.T, port uint16, from string, addrs ...string) {
	t.Helper()
	for i, addr := range addrs {
		n := newNAS(t, from, netip.AddrPortFrom(netip.MustParseAddr(addr), port))
		request := startRequest(byte(i), "s-"+addr)
		n.ask(request, secret)
		n.ask(request, secret)
		n.ask(statusServer(byte(i), secret), secret)
	}
}

func TestReplyFromAskedAddress_ACCT02(t *testing.T) {
	t.Run("IPv4 wildcard", func(t *testing.T) {
		l := start(t, everywhere("0.0.0.0:0"))
		askEach(t, l.addr.Port(), "127.0.0.1", "127.0.0.2", "127.0.0.3")
	})
	t.Run("both families", func(t *testing.T) {
		l := start(t, everywhere(":0"))
		askEach(t, l.addr.Port(), "127.0.0.1", "127.0.0.2", "127.0.0.3")
		askEach(t, l.addr.Port(), "::1", "::1")
	})
	t.Run("several sockets", func(t *testing.T) {
		l := start(t, everywhere("127.0.0.2:0", "127.0.0.3:0", "[::1]:0"))
		for _, addr := range l.Addrs() {
			from := "127.0.0.1"
			if addr.Addr().Is6() {
				from = "::1"
			}
			askEach(t, addr.Port(), from, addr.Addr().String())
		}
	})
}

// TestReplyFromAskedAddressIPv6_ACCT02 makes a host with several IPv6 addresses of one
// kind.
func TestReplyFromAskedAddressIPv6_ACCT02(t *testing.T) {
	testenv.Require(t, testenv.Root)
	inNamespace(t, func() {
		ip(t, "link", "set", "lo", "up")
		for _, addr := range []string{"2001:db8::1", "2001:db8::2"} {
			ip(t, "addr", "add", addr+"/128", "dev", "lo", "nodad")
			awaitLocal(t, addr)
		}
		for _, listen := range []string{"[::]:0", ":0"} {
			l := start(t, everywhere(listen))
			askEach(t, l.addr.Port(), "2001:db8::1", "2001:db8::2", "2001:db8::1", "::1")
		}
	})
}

func ip(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("ip", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("ip %v: %v: %s", args, err, out)
	}
	return string(out)
}

// awaitLocal waits until the kernel delivers an IPv6 address to the host itself: it enters
// the route some time after the address was added.
func awaitLocal(t *testing.T, addr string) {
	t.Helper()
	deadline := time.After(patience)
	for !strings.Contains(ip(t, "-6", "route", "show", "table", "local"), "local "+addr+" ") {
		select {
		case <-deadline:
			t.Fatalf("%s never became local", addr)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// inNamespace runs f on a thread in a network namespace of its own, which ends with the
// sockets opened there.
func inNamespace(t *testing.T, f func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		f()
	}()
	if err := <-done; err != nil {
		t.Fatalf("make a network namespace: %v", err)
	}
}

func TestBothWildcardsSideBySide(t *testing.T) {
	v4 := start(t, everywhere("0.0.0.0:0"))
	port := v4.addr.Port()
	v6 := start(t, everywhere(netip.AddrPortFrom(netip.IPv6Unspecified(), port).String()))
	askEach(t, port, "127.0.0.1", "127.0.0.1")
	askEach(t, port, "::1", "::1")
	if got := len(v6.recorder.recorded()); got != 1 {
		t.Errorf("the IPv6 socket took %d requests, want 1", got)
	}
}
