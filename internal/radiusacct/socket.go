package radiusacct

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/udpbatch"
)

// receiveBuffer is the requested kernel buffer of a socket in octets: some tens of
// thousands of requests, as a large BNG sends at once after a reboot.
const receiveBuffer = 32 << 20

// A socket is one bound UDP socket that reports the destination address of each datagram.
type socket struct {
	*net.UDPConn
	batches *udpbatch.Conn
	index   int
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
	if err = askDestinations(s.UDPConn); err == nil {
		s.batches, err = udpbatch.New(s.UDPConn)
	}
	if err == nil {
		err = s.batches.AllowFragments()
	}
	if err != nil {
		return nil, errors.Join(err, pc.Close())
	}
	return s, nil
}

func listenTCP(listen string) (net.Listener, error) {
	network, err := networkOf("tcp", listen)
	if err != nil {
		return nil, err
	}
	return net.Listen(network, listen)
}

// networkOf keeps IPv6 sockets to IPv6, so that "0.0.0.0:1813" and "[::]:1813" can exist
// side by side; only an empty host means both families of the transport, "udp" or "tcp".
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

// askDestinations makes the kernel report the destination address of each datagram.
func askDestinations(c *net.UDPConn) (err error) {
	if c.LocalAddr().(*net.UDPAddr).IP.To4() != nil {
		err = ipv4.NewPacketConn(c).SetControlMessage(ipv4.FlagDst, true)
	} else {
		err = ipv6.NewPacketConn(c).SetControlMessage(ipv6.FlagDst, true)
	}
	if err != nil {
		return fmt.Errorf("ask for destination addresses: %w", err)
	}
	return nil
}

// enlargeBuffer sets the receive buffer by privilege, or else as much of it as
// net.core.rmem_max grants.
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
