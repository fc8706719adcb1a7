package radiusacct

import (
	"bytes"
	"net/netip"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// controlLength has room for the packet information of either family.
var controlLength = max(len(ipv4.NewControlMessage(ipv4.FlagDst)), len(ipv6.NewControlMessage(ipv6.FlagDst)))

// maxDestinations bounds the remembered destinations; a host has few addresses.
const maxDestinations = 1024

// A destination is one of the host's addresses to which requests are sent.
type destination struct {
	addr [16]byte // IPv4 mapped into IPv6
	oob  []byte   // control message that makes addr the source of a reply
}

// destinations parses control messages. The same few come with every datagram, so each is
// parsed once. It is used by one goroutine.
type destinations struct {
	ipv6  bool // socket family
	known map[string]*destination
}

// of returns the destination in a received control message. Without a message the
// destination is empty, and the kernel chooses the reply's source.
func (d *destinations) of(oob []byte) *destination {
	if known := d.known[string(oob)]; known != nil {
		return known
	}
	if d.known == nil || len(d.known) >= maxDestinations {
		d.known = make(map[string]*destination)
	}
	parse := parseDestination4
	if d.ipv6 {
		parse = parseDestination6
	}
	found := parse(oob)
	d.known[string(oob)] = found
	return found
}

func parseDestination4(oob []byte) *destination {
	var cm ipv4.ControlMessage
	if err := cm.Parse(oob); err != nil {
		return &destination{}
	}
	addr, ok := netip.AddrFromSlice(cm.Dst)
	if !ok {
		return &destination{}
	}
	return destination4(addr)
}

// parseDestination6 also handles IPv4: a socket of both families reports an IPv4 address in
// mapped form, and takes the packet information of IPv4 for the reply.
func parseDestination6(oob []byte) *destination {
	var cm ipv6.ControlMessage
	if err := cm.Parse(oob); err != nil {
		return &destination{}
	}
	addr, ok := netip.AddrFromSlice(cm.Dst)
	if !ok {
		return &destination{}
	}
	if addr.Is4In6() {
		return destination4(addr.Unmap())
	}
	reply := ipv6.ControlMessage{Src: addr.AsSlice()}
	if addr.IsLinkLocalUnicast() {
		reply.IfIndex = cm.IfIndex // such an address is only valid on its link
	}
	return &destination{addr: addr.As16(), oob: bytes.Clone(reply.Marshal())}
}

// destination4 sets no interface, because the route back may differ from the way in.
func destination4(addr netip.Addr) *destination {
	reply := ipv4.ControlMessage{Src: addr.AsSlice()}
	return &destination{addr: addr.As16(), oob: bytes.Clone(reply.Marshal())}
}
