package radiusacct

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// receiveBuffer is the wanted kernel buffer of a socket in octets: some tens of
// thousands of requests, what a large BNG sends at once after a reboot.
const receiveBuffer = 32 << 20

// batchConn is what ipv4.PacketConn and ipv6.PacketConn have in common; their
// Message is one type.
type batchConn interface {
	ReadBatch(ms []ipv4.Message, flags int) (int, error)
	WriteBatch(ms []ipv4.Message, flags int) (int, error)
}

// A socket is one bound UDP socket that tells of each datagram which of the
// host's addresses was asked.
type socket struct {
	*net.UDPConn
	batchConn
	index int
}

func openSocket(listen string, index int) (*socket, error) {
	network, err := networkOf("udp", listen)
	if err != nil {
		return nil, err
	}
	lc := net.ListenConfig{Control: enlargeBuffer}
	pc, err := lc.ListenPacket(context.Background(), network, listen)
	if err != nil {
		return nil, err
	}
	s := &socket{UDPConn: pc.(*net.UDPConn), index: index}
	if s.batchConn, err = withDestinations(s.UDPConn); err != nil {
		pc.Close()
		return nil, fmt.Errorf("ask for destination addresses: %w", err)
	}
	return s, nil
}

// networkOf keeps IPv6 sockets to IPv6, so that "0.0.0.0:1813" and "[::]:1813"
// can stand beside each other; only an empty host means both families of the
// transport, "udp" or "tcp".
func networkOf(transport, listen string) (string, error) {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return "", err
	}
	if host == "" {
		return transport, nil
	}
	addr, err := netip.ParseAddr(host)
	switch {
	case err != nil:
		return "", err
	case addr.Is4():
		return transport + "4", nil
	}
	return transport + "6", nil
}

func withDestinations(c *net.UDPConn) (batchConn, error) {
	if c.LocalAddr().(*net.UDPAddr).IP.To4() != nil {
		p := ipv4.NewPacketConn(c)
		return p, p.SetControlMessage(ipv4.FlagDst, true)
	}
	p := ipv6.NewPacketConn(c)
	return p, p.SetControlMessage(ipv6.FlagDst, true)
}

// enlargeBuffer takes the buffer it wants by privilege, or else as much of it
// as net.core.rmem_max grants.
func enlargeBuffer(_, _ string, c syscall.RawConn) error {
	var err error
	ctlErr := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer)
		if err != nil {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
		}
	})
	if ctlErr != nil {
		return ctlErr
	}
	return err
}

// newMessages allocates n messages with buffers of the given sizes; without a
// size the buffer is left to the caller.
func newMessages(n, buffer, oob int) []ipv4.Message {
	ms := make([]ipv4.Message, n)
	for i := range ms {
		ms[i].Buffers = make([][]byte, 1)
		if buffer > 0 {
			ms[i].Buffers[0] = make([]byte, buffer)
			ms[i].OOB = make([]byte, oob)
		}
	}
	return ms
}
