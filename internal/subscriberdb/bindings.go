package subscriberdb

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/sessiond/sessiond/internal/nat"
)

// placeField is the field of a binding in the hash: its outside address and first port.
func placeField(p nat.Place) string { return string(appendPlace(nil, p)) }

func appendPlace(text []byte, p nat.Place) []byte {
	return strconv.AppendUint(append(p.Outside.AppendTo(text), ':'), uint64(p.First), 10)
}

func parsePlace(field string) (nat.Place, error) {
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
