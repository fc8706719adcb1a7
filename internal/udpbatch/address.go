package udpbatch

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// An Address is a peer's address in the kernel's form, so that an answer needs
// no conversion. Addresses can be compared; the zero value is the peer of a
// connected socket.
type Address struct {
	raw    [unix.SizeofSockaddrInet6]byte
	length uint8 // used octets of raw
}

// AddrPort returns the address, not mapped into IPv6; the zero AddrPort for the
// zero Address. An IPv6 zone is the name of the interface.
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

// zones caches the names of interfaces, because asking the kernel is slow.
var zones sync.Map // uint32 to string

// zone is the name of an interface, or its number if it no longer exists.
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
