package natlog

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/natlog/wire"
	"github.com/sessiond/sessiond/internal/sendqueue"
)

const (
	streamMessage = 16 << 10        // octets of an IPFIX message over TCP at most
	streamSettle  = 2 * time.Second // a collector that ends has read what its machine had by then, or its end resets the connection
	streamDead    = 15 * time.Second
)

// stream sends messages over TCP or TLS: IPFIX messages one behind another (RFC 7011 section
// 10.4), syslog with octet counting (RFC 6587 section 3.4.1).
type stream struct {
	target *target
	o      *Options
	text   wire.Syslog

	conn   net.Conn // as written to
	socket *countedSocket
	ended  *atomic.Pointer[error] // set once the peer has ended the connection
	reads  sync.WaitGroup         // of the connection, which notice its end
	packer wire.Packer
	taught bool
	buffer []byte
}

func newStream(t *target, o *Options) *stream {
	return &stream{target: t, o: o, text: wire.Syslog{PEN: o.PEN, Node: o.Node, ProcessID: os.Getpid()}}
}

func (s *stream) settle() time.Duration { return streamSettle }

func (s *stream) close() error {
	if s.conn == nil {
		return nil
	}
	err := s.socket.Close() // without the alert of TLS, which may block
	s.reads.Wait()
	s.conn, s.socket = nil, nil
	return err
}

func (s *stream) connect(ctx context.Context) error {
	if s.conn != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, connectWithin)
	defer cancel()
	dialer := net.Dialer{
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: streamDead, Interval: streamDead / 3, Count: 3},
		Control:         boundSilence,
	}
	conn, err := dialer.DialContext(ctx, "tcp", s.target.address)
	if err != nil {
		return err
	}
	socket := &countedSocket{TCPConn: conn.(*net.TCPConn)}
	conn = socket
	if s.target.scheme == "tls" {
		config := s.o.TLS.Clone()
		if config.ServerName == "" {
			config.ServerName = s.target.host
		}
		secure := tls.Client(conn, config)
		if err := secure.HandshakeContext(ctx); err != nil {
			return errors.Join(fmt.Errorf("TLS: %w", err), socket.Close())
		}
		conn = secure
	}
	s.conn, s.socket, s.ended = conn, socket, new(atomic.Pointer[error])
	s.packer, s.taught = newPacker(s.o, time.Now()), false
	ended := s.ended
	s.reads.Go(func() { noteEnd(conn, ended) })
	return nil
}

// boundSilence ends a connection whose peer has confirmed nothing for streamDead.
func boundSilence(_, _ string, raw syscall.RawConn) error {
	var failed error
	err := raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(streamDead.Milliseconds()))
	})
	return errors.Join(err, failed)
}

// noteEnd reads until the peer ends the connection, which no write notices in time.
func noteEnd(conn net.Conn, ended *atomic.Pointer[error]) {
	_, err := io.Copy(io.Discard, conn)
	if err == nil {
		err = errors.New("the collector has closed the connection")
	}
	ended.Store(&err)
}

// countedSocket counts the octets that are written, of TLS too.
type countedSocket struct {
	*net.TCPConn
	written uint64 // by one goroutine at a time
}

// Write implements net.Conn.
func (c *countedSocket) Write(b []byte) (int, error) {
	n, err := c.TCPConn.Write(b)
	c.written += uint64(n)
	return n, err
}

func (s *stream) sent() uint64 { return s.socket.written }

// received implements carrier: the send queue has the octets that are not confirmed.
func (s *stream) received() (uint64, error) {
	if s.conn == nil {
		return 0, errors.New("there is no connection")
	}
	if err := s.ended.Load(); err != nil {
		return 0, *err
	}
	left, err := sendqueue.Unconfirmed(s.socket)
	return s.socket.written - min(s.socket.written, uint64(left)), err
}

func (s *stream) carry(ctx context.Context, events []nat.Event) error {
	if err := s.connect(ctx); err != nil {
		return err
	}
	if err := s.ended.Load(); err != nil {
		return *err
	}
	socket := s.socket
	defer context.AfterFunc(ctx, func() { _ = socket.SetWriteDeadline(time.Unix(1, 0)) })()
	for len(events) > 0 {
		s.buffer = s.buffer[:0]
		for len(events) > 0 && len(s.buffer) < streamMessage {
			packed := 1
			if s.packer != nil {
				s.buffer, packed = s.packer.Pack(s.buffer, events, streamMessage, !s.taught, time.Now())
				s.taught = true
			} else {
				s.buffer = s.appendCounted(s.buffer, &events[0])
			}
			events = events[packed:]
		}
		if err := socket.SetWriteDeadline(deadline(ctx)); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil { // before the deadline was set
			return err
		}
		if _, err := s.conn.Write(s.buffer); err != nil {
			return err
		}
	}
	return nil
}

// appendCounted appends a syslog message behind its length.
func (s *stream) appendCounted(b []byte, e *nat.Event) []byte {
	message := s.text.Append(nil, e)
	b = strconv.AppendInt(b, int64(len(message)), 10)
	return append(append(b, ' '), message...)
}
