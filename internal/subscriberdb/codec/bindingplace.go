package codec

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/sessiond/sessiond/internal/nat"
)

// BindingParts is how many hashes the bindings of a group are spread over, by the last
// octet of an outside address. A million bindings are some 31,000 in each, 9 MB, whatever
// the size of blocks. More hashes are smaller, but each that a write touches is a command
// of its own: 256 cost accounting some 4 % of its rate.
const BindingParts = 32

// BindingPart returns the part that has the bindings of an outside address.
func BindingPart(outside netip.Addr) uint8 {
	octets := outside.As16()
	return octets[15] % BindingParts
}

// FormatPlace is the field of a binding in the hash: its outside address and first port.
func FormatPlace(p nat.Place) string { return string(AppendPlace(nil, p)) }

// AppendPlace appends a FormatPlace.
func AppendPlace(text []byte, p nat.Place) []byte {
	return strconv.AppendUint(append(p.Outside.AppendTo(text), ':'), uint64(p.First), 10)
}

// ParsePlace is the reverse of FormatPlace.
func ParsePlace(field string) (nat.Place, error) {
	i := strings.LastIndexByte(field, ':')
	if i < 0 {
		return nat.Place{}, fmt.Errorf("block %q: no port", field)
	}
	outside, err := netip.ParseAddr(field[:i])
	if err != nil {
		return nat.Place{}, fmt.Errorf("block %q: %w", field, err)
	}
	first, err := strconv.ParseUint(field[i+1:], 10, 16)
	if err != nil {
		return nat.Place{}, fmt.Errorf("block %q: %w", field, err)
	}
	return nat.Place{Outside: outside, First: nat.Port(first)}, nil
}
