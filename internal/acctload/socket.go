package acctload

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"layeh.com/radius"
)

// socketBuffer is asked of the kernel in octets, each way: enough for a reply of
// usual size to every identifier, several times over.
const socketBuffer = 1 << 20

// receiveBatch is the number of datagrams read in one system call.
const receiveBatch = 128

// A socket sends requests to one server and receives its replies, in batches.
// It belongs to one goroutine.
type socket struct {
	conn  *net.UDPConn
	batch interface {
		ReadBatch(ms []ipv4.Message, flags int) (int, error)
		WriteBatch(ms []ipv4.Message, flags int) (int, error)
	}
	in       []ipv4.Message
	out      []ipv4.Message
	pending  int // of out
	deadline time.Time
}

func dial(ctx context.Context, server netip.AddrPort, source netip.Addr, secret []byte) (*socket, error) {
	var d net.Dialer
	if source.IsValid() {
		d.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(source, 0))
	}
	c, err := d.DialContext(ctx, "udp", server.String())
	if err != nil {
		return nil, fmt.Errorf("acctload: %w", err)
	}
	s := &socket{
		conn: c.(*net.UDPConn),
		in:   newMessages(receiveBatch, radius.MaxPacketLength+len(secret)),
		out:  newMessages(identifiers, 0),
	}
	// What the kernel does not grant costs retransmissions under overload.
	_ = s.conn.SetReadBuffer(socketBuffer)
	_ = s.conn.SetWriteBuffer(socketBuffer)
	if server.Addr().Unmap().Is4() {
		s.batch = ipv4.NewPacketConn(s.conn)
	} else {
		s.batch = ipv6.NewPacketConn(s.conn)
	}
	return s, nil
}

// newMessages allocates n messages with buffers of one size; 0 leaves the
// buffers to the caller.
func newMessages(n, size int) []ipv4.Message {
	ms := make([]ipv4.Message, n)
	for i := range ms {
		ms[i].Buffers = make([][]byte, 1)
		if size > 0 {
			ms[i].Buffers[0] = make([]byte, size)
		}
	}
	return ms
}

// send queues a request, at most one for each identifier before a flush; it must
// not change until then.
func (s *socket) send(request []byte) {
	s.out[s.pending].Buffers[0] = request
	s.pending++
}

// flush sends what is queued and returns how often it was told that nobody
// listens. What the kernel would not take is as good as lost on the way.
func (s *socket) flush() (refused uint64, err error) {
	queued := s.out[:s.pending]
	s.pending = 0
	for len(queued) > 0 {
		n, err := s.batch.WriteBatch(queued, 0)
		switch {
		case err == nil:
		case errors.Is(err, syscall.ECONNREFUSED):
			refused++ // of an earlier datagram; the kernel tells it once
			n = max(n, 0)
		case errors.Is(err, syscall.ENOBUFS):
			n = 1
		default:
			return refused, fmt.Errorf("acctload: send: %w", err)
		}
		queued = queued[n:]
	}
	return refused, nil
}

// receive waits for datagrams until a time, or a little shorter.
func (s *socket) receive(now, until time.Time) (datagrams []ipv4.Message, refused bool, err error) {
	if !s.deadline.After(now) || s.deadline.After(until) {
		s.deadline = until
		if err := s.conn.SetReadDeadline(until); err != nil {
			return nil, false, fmt.Errorf("acctload: %w", err)
		}
	}
	n, err := s.batch.ReadBatch(s.in, 0)
	switch {
	case err == nil:
		return s.in[:n], false, nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, false, nil
	case errors.Is(err, syscall.ECONNREFUSED):
		return nil, true, nil
	}
	return nil, false, fmt.Errorf("acctload: receive: %w", err)
}

func (s *socket) close() error { return s.conn.Close() }
