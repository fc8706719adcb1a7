package wire

import (
	"net/netip"
	"slices"

	"layeh.com/radius"
)

// Framed-IP-Address values that are no address: the user selects one, the NAS selects one
// (RFC 2865 section 5.8).
var (
	userSelects = netip.AddrFrom4([4]byte{255, 255, 255, 255})
	nasSelects  = netip.AddrFrom4([4]byte{255, 255, 255, 254})
)

// addFramed adds one more address of the session. An ignored address would stay online
// after its Stop, so a request with too many is refused, not cut short.
func (a *Attributes) addFramed(addr netip.Addr) *Malformed {
	if addr == userSelects || addr == nasSelects || addr.IsUnspecified() {
		return nil
	}
	if len(a.framed) == maxListed && !slices.Contains(a.framed, addr) {
		return errManyAddresses
	}
	a.framed = appendNew(a.framed, addr)
	return nil
}

// appendNew appends a value unless it is in the list or the list is full.
func appendNew[T comparable](list []T, value T) []T {
	if len(list) == maxListed || slices.Contains(list, value) {
		return list
	}
	return append(list, value)
}

// appendPrefix appends an IPv6 prefix, which need not have all trailing octets (RFC 3162
// section 2.3). parse has checked the size and the length.
func appendPrefix(list []netip.Prefix, value radius.Attribute) []netip.Prefix {
	var octets [16]byte
	copy(octets[:], value[2:])
	p := netip.PrefixFrom(netip.AddrFrom16(octets), int(value[1])).Masked()
	if p.Bits() == 0 {
		return list // carries no information
	}
	return appendNew(list, p)
}

// textsOf copies values that outlive the packet; nil for none.
func textsOf(values []radius.Attribute) []string {
	if len(values) == 0 {
		return nil
	}
	list := make([]string, len(values))
	for i, v := range values {
		list[i] = string(v)
	}
	return list
}

// kept returns a copy that outlives the packet; nil of an empty list.
func kept[T any](list []T) []T {
	if len(list) == 0 {
		return nil
	}
	return slices.Clone(list)
}
