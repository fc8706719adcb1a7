package sendqueue

import (
	"errors"
	"fmt"
	"net"
	"syscall"
	"testing"

	"github.com/sessiond/sessiond/internal/testenv"
)

// TestUnconfirmed: octets that a peer has no room for are unconfirmed, until it reads; a reset is
// an error.
func TestUnconfirmed(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	peer, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = peer.Close() })
	socket := conn.(*net.TCPConn)
	const size = 64 << 20
	written := make(chan error, 1)
	go func() {
		_, err := conn.Write(make([]byte, size))
		written <- err
	}()
	testenv.Eventually(t, "octets that the peer has no room for", func() bool {
		n, err := Unconfirmed(socket)
		return err == nil && n > 0
	})
	b := make([]byte, 1<<20)
	for read := 0; read < size; {
		n, err := peer.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		read += n
	}
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	testenv.Succeeds(t, func() error {
		n, err := Unconfirmed(socket)
		if err == nil && n > 0 {
			err = fmt.Errorf("%d octets are unconfirmed, though all were read", n)
		}
		return err
	})
	if err := peer.(*net.TCPConn).SetLinger(0); err != nil {
		t.Fatal(err)
	}
	if err := peer.Close(); err != nil {
		t.Fatal(err)
	}
	testenv.Succeeds(t, func() error {
		if _, err := Unconfirmed(socket); !errors.Is(err, syscall.ECONNRESET) {
			return fmt.Errorf("after a reset: %w", errors.Join(err, errors.New("want a reset")))
		}
		return nil
	})
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Unconfirmed(socket); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}
