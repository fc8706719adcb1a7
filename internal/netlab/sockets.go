package netlab

import (
	"context"
	"net"
	"net/netip"
)

// noKeepAlive keeps idle TCP flows silent, so that they idle out.
const noKeepAlive = -1

// Dial connects from a local address of the namespace to a remote one. Network
// is "tcp4" or "udp4". For local port 0 or a zero local address the kernel
// chooses.
func (n *Namespace) Dial(ctx context.Context, network string, local, remote netip.AddrPort) (net.Conn, error) {
	d := net.Dialer{LocalAddr: socketAddr(network, local), KeepAlive: noKeepAlive}
	var conn net.Conn
	err := n.Do(func() (err error) {
		conn, err = d.DialContext(ctx, network, remote.String())
		return err
	})
	return conn, err
}

// Listen listens for TCP connections in the namespace.
func (n *Namespace) Listen(ctx context.Context, local netip.AddrPort) (net.Listener, error) {
	lc := net.ListenConfig{KeepAlive: noKeepAlive}
	lc.SetMultipathTCP(false) // the CGN should see plain TCP
	var ln net.Listener
	err := n.Do(func() (err error) {
		ln, err = lc.Listen(ctx, "tcp4", local.String())
		return err
	})
	return ln, err
}

// ListenUDP opens a UDP socket in the namespace that exchanges datagrams with
// any peer: the third party of endpoint-independence tests.
func (n *Namespace) ListenUDP(local netip.AddrPort) (*net.UDPConn, error) {
	var conn *net.UDPConn
	err := n.Do(func() (err error) {
		conn, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(local))
		return err
	})
	return conn, err
}

func socketAddr(network string, local netip.AddrPort) net.Addr {
	switch {
	case !local.IsValid():
		return nil
	case network == "udp4":
		return net.UDPAddrFromAddrPort(local)
	default:
		return net.TCPAddrFromAddrPort(local)
	}
}

// addrPort converts the address of a TCP or UDP socket.
func addrPort(a net.Addr) netip.AddrPort {
	var ap netip.AddrPort
	switch a := a.(type) {
	case *net.TCPAddr:
		ap = a.AddrPort()
	case *net.UDPAddr:
		ap = a.AddrPort()
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
