package netlab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

// writeTimeout bounds a write into the full send buffer of a cut flow.
const writeTimeout = time.Second

// An End is one side of a long-lived TCP flow. The sides send each other the
// numbers 1, 2, 3, ... in eight bytes each, which shows which bytes passed. Its
// methods may be called concurrently.
type End struct {
	conn net.Conn
	done chan struct{} // closed when the reader has ended

	mu       sync.Mutex
	sent     uint64
	received uint64
	changed  chan struct{} // closed and replaced when received or err change
	err      error         // why the reader ended
}

// NewEnd takes over a TCP connection. The caller must Close the End.
func NewEnd(conn net.Conn) *End {
	e := &End{conn: conn, done: make(chan struct{}), changed: make(chan struct{})}
	go e.read()
	return e
}

// Local returns the address of this side.
func (e *End) Local() netip.AddrPort { return addrPort(e.conn.LocalAddr()) }

// Remote returns the address of the other side as seen here: behind a CGN, the
// outside address and port.
func (e *End) Remote() netip.AddrPort { return addrPort(e.conn.RemoteAddr()) }

// Send sends the next number and returns it. Success does not mean that it
// arrives.
func (e *End) Send() (uint64, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	_ = e.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	if _, err := e.conn.Write(binary.BigEndian.AppendUint64(nil, e.sent+1)); err != nil {
		return 0, fmt.Errorf("send on flow: %w", err)
	}
	e.sent++
	return e.sent, nil
}

// Received returns the highest number that has arrived, 0 for none.
func (e *End) Received() uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.received
}

// Await waits until the number has arrived, the connection has ended, or ctx
// is done.
func (e *End) Await(ctx context.Context, number uint64) error {
	for {
		received, changed, err := e.state()
		switch {
		case received >= number:
			return nil
		case err != nil:
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("flow: %d has not arrived: %w", number, ctx.Err())
		}
	}
}

func (e *End) state() (uint64, <-chan struct{}, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.received, e.changed, e.err
}

// Close resets the connection, so that no state lingers, and waits for the
// reader.
func (e *End) Close() error {
	if tcp, ok := e.conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	err := e.conn.Close()
	<-e.done
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (e *End) read() {
	defer close(e.done)
	var buf [8]byte
	for {
		_, err := io.ReadFull(e.conn, buf[:])
		if !e.got(binary.BigEndian.Uint64(buf[:]), err) {
			return
		}
	}
}

// got processes a result of the reader, and reports whether to go on.
func (e *End) got(number uint64, err error) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case err != nil:
		e.err = fmt.Errorf("flow ended: %w", err)
	case number != e.received+1:
		e.err = fmt.Errorf("flow is garbled: %d after %d", number, e.received)
	default:
		e.received = number
	}
	close(e.changed)
	e.changed = make(chan struct{})
	return e.err == nil
}
