package interop

import (
	"crypto/rand"
	"net"
	"net/netip"
)

// ownHost returns a loopback address that no other test, of this or another process, is
// likely to use: the foreign programs need a fixed port, and other programs do not take the
// ports of an address of one's own.
func ownHost() netip.Addr {
	host := [4]byte{127}
	_, _ = rand.Read(host[1:])
	host[1] = max(host[1], 1) // 127.0.0.0/16 is used by others
	host[3] = min(max(host[3], 1), 254)
	return netip.AddrFrom4(host)
}

// freePort returns a port of the test's host without a listener, for UDP and TCP. It is
// below the ports that the kernel gives to clients.
func (w *world) freePort() netip.AddrPort {
	w.t.Helper()
	var random [2]byte
	for range 100 {
		_, _ = rand.Read(random[:])
		port := 10_000 + (uint16(random[0])<<8|uint16(random[1]))%20_000
		if a := netip.AddrPortFrom(w.host, port); isFree(a) {
			return a
		}
	}
	w.t.Fatalf("no free port on %v", w.host)
	return netip.AddrPort{}
}

func isFree(a netip.AddrPort) bool {
	udp, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(a))
	if err != nil {
		return false
	}
	defer udp.Close()
	tcp, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(a))
	if err != nil {
		return false
	}
	return tcp.Close() == nil
}

// at returns a port of the test's host.
func (w *world) at(port uint16) netip.AddrPort { return netip.AddrPortFrom(w.host, port) }
