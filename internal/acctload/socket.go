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

	"github.com/sessiond/sessiond/internal/udpbatch"
)

// socketBuffer is the requested size of each kernel buffer, in octets: enough
// for a reply of usual size to every identifier, several times over.
const socketBuffer = 1 << 20

const (
	// receiveBatch is the number of messages read in one system call. The kernel
	// may join up to 64 replies in one.
	receiveBatch = 32
	// messageLength is the capacity for the longest message.
	messageLength = 1 << 16
)

// A socket sends requests to one server and receives its replies, in batches.
// Requests of equal length go through the kernel together, so that the
// generator takes little time from a server on the same machine. It is not safe
// for concurrent use.
type socket struct {
	conn     *net.UDPConn
	reader   *udpbatch.Reader
	writer   *udpbatch.Writer
	deadline time.Time

	refused uint64 // of the present flush: port-closed errors
	failure error  // of the present flush
}

func dial(ctx context.Context, server netip.AddrPort, source netip.Addr) (*socket, error) {
	var d net.Dialer
	if source.IsValid() {
		d.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(source, 0))
	}
	c, err := d.DialContext(ctx, "udp", server.String())
	if err != nil {
		return nil, fmt.Errorf("acctload: %w", err)
	}
	s := &socket{conn: c.(*net.UDPConn)}
	// A smaller buffer than asked for costs only retransmissions under overload.
	_ = s.conn.SetReadBuffer(socketBuffer)
	_ = s.conn.SetWriteBuffer(socketBuffer)
	batches, err := udpbatch.New(s.conn)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("acctload: %w", err), c.Close())
	}
	_ = batches.Coalesce() // without it the kernel joins no datagrams
	s.reader = batches.NewReader(receiveBatch, messageLength, 0)
	s.writer = batches.NewWriter(identifiers, s.failed)
	return s, nil
}

// send queues a request, at most one for each identifier before a flush. The
// request must not change until then.
func (s *socket) send(request []byte) { s.writer.Add(udpbatch.Datagram{Octets: request}) }

// flush sends the queue and returns the number of port-closed errors. Datagrams
// that the kernel refused for want of buffers count as lost on the way.
func (s *socket) flush() (refused uint64, err error) {
	s.refused, s.failure = 0, nil
	s.writer.Flush()
	return s.refused, s.failure
}

func (s *socket) failed(err error) (again bool) {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		s.refused++ // for an earlier datagram; the kernel reports it once
		return true
	case errors.Is(err, syscall.ENOBUFS):
	case s.failure == nil:
		s.failure = fmt.Errorf("acctload: send: %w", err)
	}
	return false
}

// receive waits for datagrams until a time, or slightly less long.
func (s *socket) receive(now, until time.Time) (datagrams []udpbatch.Datagram, refused bool, err error) {
	if !s.deadline.After(now) || s.deadline.After(until) {
		s.deadline = until
		if err := s.conn.SetReadDeadline(until); err != nil {
			return nil, false, fmt.Errorf("acctload: %w", err)
		}
	}
	datagrams, err = s.reader.Read()
	switch {
	case err == nil:
		return datagrams, false, nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, false, nil
	case errors.Is(err, syscall.ECONNREFUSED):
		return nil, true, nil
	}
	return nil, false, fmt.Errorf("acctload: receive: %w", err)
}

func (s *socket) close() error { return s.conn.Close() }
