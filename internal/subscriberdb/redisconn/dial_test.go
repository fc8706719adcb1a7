package redisconn

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http/httptest"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/redis/go-redis/v9"
	"golang.org/x/net/nettest"

	"github.com/sessiond/sessiond/internal/testenv"
)

// TestDialRefuses: invalid urls and modes are refused before anything is sent.
func TestDialRefuses(t *testing.T) {
	bad := []struct {
		urls []string
		mode string
	}{
		{nil, ""}, {[]string{"http://x"}, ""}, {[]string{"redis://a", "redis://b"}, ""},
		{[]string{"redis://a"}, "sentinel"}, {[]string{"redis://a"}, "ring"}, {[]string{"redis://x:y:z"}, "cluster"},
	}
	for _, b := range bad {
		if c, err := Dial(b.urls, b.mode, 1); err == nil {
			_ = c.Close()
			t.Errorf("%v in mode %q accepted", b.urls, b.mode)
		}
	}
	good := []struct {
		urls []string
		mode string
	}{
		{[]string{"redis://127.0.0.1:1/3"}, ""}, {[]string{"rediss://u:p@127.0.0.1:1"}, ""},
		{[]string{"redis://a:26379?master_name=m", "redis://b:26379?master_name=m"}, "sentinel"},
		{[]string{"redis://a:6379", "redis://b:6379"}, "cluster"},
	}
	for _, g := range good {
		c, err := Dial(g.urls, g.mode, 1)
		if err != nil {
			t.Errorf("%v in mode %q: %v", g.urls, g.mode, err)
			continue
		}
		_ = c.Close()
	}
}

// TestConnections: waiting for feeds takes no connection from other commands.
func TestConnections(t *testing.T) {
	for url, want := range map[string]int{"redis://127.0.0.1:1/0": connections + 7, "redis://127.0.0.1:1/0?pool_size=3": 3} {
		c, err := Dial([]string{url}, ModeStandalone, 7)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.(dialledClient).UniversalClient.(*redis.Client).Options().PoolSize; got != want {
			t.Errorf("%s: %d connections, want %d", url, got, want)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestGivenUp: a connection that has to be redialled fails the client's check, with TLS
// too; a newer one does not. Neither is closed or changed otherwise.
func TestGivenUp(t *testing.T) {
	server := httptest.NewTLSServer(nil)
	defer server.Close()
	trusted := x509.NewCertPool()
	trusted.AddCert(server.Certificate())
	for name, secure := range map[string]*tls.Config{
		"plain": nil,
		"TLS":   {RootCAs: trusted, ServerName: "example.com", MinVersion: tls.VersionTLS12},
	} {
		r := &redials{}
		dial := func() net.Conn {
			c, err := r.dialer(0, secure)(t.Context(), "tcp", server.Listener.Addr().String())
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			t.Cleanup(func() { _ = c.Close() })
			return c
		}
		check := func(c net.Conn) error {
			raw, err := c.(syscall.Conn).SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			return raw.Read(func(uintptr) bool { return true })
		}
		before := dial()
		if err := check(before); err != nil {
			t.Errorf("%s: a good connection: %v", name, err)
		}
		r.abandonConns()
		if err := check(before); !errors.Is(err, errGivenUp) {
			t.Errorf("%s: a connection that was given up: %v", name, err)
		}
		if err := check(dial()); err != nil {
			t.Errorf("%s: one that was dialled since: %v", name, err)
		}
		if _, err := before.Write([]byte("x")); err != nil {
			t.Errorf("%s: what was under way was cut off: %v", name, err)
		}
	}
}

// onEachNetwork runs a test for TCP and for Unix sockets.
func onEachNetwork(t *testing.T, body func(t *testing.T, network string)) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) { body(t, network) })
	}
}

func connect(t *testing.T, network string) (ours, peer net.Conn) {
	t.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(t.TempDir(), "socket")
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ours, err = directDialer(0)(t.Context(), network, l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := ours.(*directConn); !ok {
		t.Fatalf("dialed a %T", ours)
	}
	peer, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ours.Close(); peer.Close() })
	return ours, peer
}

// TestDirectConn checks the contract of net.Conn: deadlines, Close during reads and writes,
// concurrent use, and more.
func TestDirectConn(t *testing.T) {
	onEachNetwork(t, func(t *testing.T, network string) {
		nettest.TestConn(t, func() (ours, peer net.Conn, stop func(), err error) {
			ours, peer = connect(t, network)
			return ours, peer, func() { ours.Close(); peer.Close() }, nil
		})
	})
}

// TestDirectConnWritesAll: a write that the kernel cannot take at once is completed.
func TestDirectConnWritesAll(t *testing.T) {
	onEachNetwork(t, func(t *testing.T, network string) {
		ours, peer := connect(t, network)
		sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
		written := make(chan error, 1)
		go func() {
			n, err := ours.Write(sent)
			if n != len(sent) && err == nil {
				err = io.ErrShortWrite
			}
			written <- errors.Join(err, ours.Close())
		}()
		got, err := io.ReadAll(peer)
		if err = errors.Join(err, <-written); err != nil || !bytes.Equal(got, sent) {
			t.Errorf("%d of %d octets came: %v", len(got), len(sent), err)
		}
	})
}

func TestDirectConnEnds(t *testing.T) {
	onEachNetwork(t, func(t *testing.T, network string) {
		ours, peer := connect(t, network)
		peer.Close()
		octet := make([]byte, 1)
		if n, err := ours.Read(octet); n != 0 || err != io.EOF {
			t.Errorf("read %d, %v after the end", n, err)
		}
		var err error
		for err == nil { // TCP accepts the first write after the close
			_, err = ours.Write(octet)
		}
		var failure *net.OpError
		if !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) || !errors.As(err, &failure) || failure.Op != "write" {
			t.Errorf("write failed with %v", err)
		}
		if n, err := ours.Read(nil); n != 0 || err != nil {
			t.Errorf("read of nothing: %d, %v", n, err)
		}
		if n, err := ours.Write(nil); n != 0 || err != nil {
			t.Errorf("write of nothing: %d, %v", n, err)
		}
	})
}

func TestDirectConnReset(t *testing.T) {
	ours, peer := connect(t, "tcp")
	if err := peer.(*net.TCPConn).SetLinger(0); err != nil {
		t.Fatal(err)
	}
	peer.Close()
	if _, err := ours.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read failed with %v", err)
	}
}

// TestIdleCheck: the client's own read runs only if there is something to read.
func TestIdleCheck(t *testing.T) {
	onEachNetwork(t, func(t *testing.T, network string) {
		ours, peer := connect(t, network)
		looks := func() (looked bool) {
			raw, err := ours.(syscall.Conn).SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			if err := raw.Read(func(uintptr) bool { looked = true; return true }); err != nil {
				t.Fatal(err)
			}
			return looked
		}
		if looks() {
			t.Error("the client looks at an idle connection")
		}
		write := func() {
			if _, err := peer.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
		}
		write()
		write()
		octet := make([]byte, 1)
		if _, err := ours.Read(octet); err != nil { // the second octet has arrived with the first, or arrives soon
			t.Fatal(err)
		}
		testenv.Eventually(t, "the client looks at what nobody asked for", looks)
		if _, err := ours.Read(octet); err != nil {
			t.Fatal(err)
		}
		peer.Close()
		testenv.Eventually(t, "the client looks at a connection that has ended", looks)
	})
}
