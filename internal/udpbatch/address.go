package udpbatch

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// An Address is a peer's address as the kernel has it, so that an answer goes
// back without conversion. Addresses can be compared; the zero value is the peer
// of a connected socket.
type Address struct {
	raw    [unix.SizeofSockaddrInet6]byte
	length uint8 // of raw that is used
}

// AddrPort is the address in Go's terms, not mapped into IPv6; the zero AddrPort
// when there is none. An IPv6 zone is the name of the interface.
func (a *Address) AddrPort() netip.AddrPort {
	port := binary.BigEndian.Uint16(a.raw[2:])
	switch a.length {
	case unix.SizeofSockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(a.raw[4:8])), port)
	case unix.SizeofSockaddrInet6:
		addr := netip.AddrFrom16([16]byte(a.raw[8:24])).Unmap()
		if scope := binary.NativeEndian.Uint32(a.raw[24:]); scope != 0 && addr.Is6() {
			addr = addr.WithZone(zone(scope))
		}
		return netip.AddrPortFrom(addr, port)
	}
	return netip.AddrPort{}
}

// zones remembers the names of interfaces, for the kernel is slow to tell.
var zones sync.Map // uint32 to string

// zone is the name of an interface, or its number when it has none any more.
func zone(scope uint32) string {
	if known, ok := zones.Load(scope); ok {
		return known.(string)
	}
	name := strconv.FormatUint(uint64(scope), 10)
	if i, err := net.InterfaceByIndex(int(scope)); err == nil {
		name = i.Name
	}
	zones.Store(scope, name)
	return name
}
