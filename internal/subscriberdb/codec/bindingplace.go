package codec

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/sessiond/sessiond/internal/nat"
)

// BindingParts is the number of hashes for the bindings of a group; the last octet of the
// outside address selects the hash. A million bindings are some 31,000 in each, 9 MB, for
// any size of blocks. More hashes would be smaller, but a write needs a command for each
// hash that it touches: 256 cost accounting some 4 % of its rate.
const BindingParts = 32

// BindingPart returns the part for the bindings of an outside address.
func BindingPart(outside netip.Addr) uint8 {
	octets := outside.As16()
	return octets[15] % BindingParts
}

// FormatPlace returns the field of a binding in its hash: its outside address and first
// port.
func FormatPlace(p nat.Place) string { return string(AppendPlace(nil, p)) }

// AppendPlace appends the result of FormatPlace.
func AppendPlace(text []byte, p nat.Place) []byte {
	return strconv.AppendUint(append(p.Outside.AppendTo(text), ':'), uint64(p.First), 10)
}

// ParsePlace parses the result of FormatPlace.
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
