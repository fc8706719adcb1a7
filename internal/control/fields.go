package control

import (
	"fmt"
	"math"
	"net/netip"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// maxAttribute is the largest length of a RADIUS attribute of type string, in
// octets (RFC 2865 section 5).
const maxAttribute = 253

// fromTimeout reads an idle timeout: whole seconds that fit the kernel's 32 bit
// count of jiffies at its highest tick rate.
func fromTimeout(field string, m *durationpb.Duration) (time.Duration, error) {
	const limit = math.MaxInt32 / 1000 * time.Second
	switch d := m.AsDuration(); {
	case m == nil:
		return 0, invalid(field, "is in the mask but has no value; give it one, or take it out of the mask")
	case m.CheckValid() != nil:
		return 0, invalid(field, "is no valid duration; write seconds, such as \"300s\"")
	case d < time.Second || d > limit:
		return 0, invalid(field, "must be 1s to %v", limit)
	case d%time.Second != 0:
		return 0, invalid(field, "must be whole seconds")
	default:
		return d, nil
	}
}

func fromAddr(field, text string) (netip.Addr, error) {
	if text == "" {
		return netip.Addr{}, invalid(field, "is required: an IPv4 address")
	}
	a, err := netip.ParseAddr(text)
	if err != nil || !a.Unmap().Is4() {
		return netip.Addr{}, invalid(field, "%q is no IPv4 address; write one such as 100.64.0.1", text)
	}
	return a.Unmap(), nil
}

// fromPrefix reads an IPv4 prefix or a single address; empty is the zero prefix.
func fromPrefix(field, text string) (netip.Prefix, error) {
	if text == "" {
		return netip.Prefix{}, nil
	}
	if a, err := netip.ParseAddr(text); err == nil && a.Unmap().Is4() {
		return netip.PrefixFrom(a.Unmap(), 32), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil || !p.Addr().Is4() {
		return netip.Prefix{}, invalid(field, "%q is no IPv4 address or prefix; write one such as 100.64.0.1 or 100.64.0.0/24", text)
	}
	return p.Masked(), nil
}

func fromPort(field string, number uint32) (uint16, error) {
	if number > math.MaxUint16 {
		return 0, invalid(field, "%d is no port; write 1 to 65535", number)
	}
	return uint16(number), nil
}

func fromText(field, text string) (string, error) {
	octets := toOctets(text)
	if len(octets) > maxAttribute {
		return "", invalid(field, "has %d octets; RADIUS allows %d: write fewer", len(octets), maxAttribute)
	}
	return octets, nil
}

// fromTimestamp reads a time; an absent one is the zero time.
func fromTimestamp(field string, m *timestamppb.Timestamp) (time.Time, error) {
	if m == nil {
		return time.Time{}, nil
	}
	if err := m.CheckValid(); err != nil {
		return time.Time{}, invalid(field, "is no valid time; write one between the years 1 and 9999")
	}
	return m.AsTime(), nil
}

// timestamp returns nil for the zero time.
func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// addrText returns "" for the zero address.
func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// texts returns addresses or prefixes as text.
func texts[T fmt.Stringer](values []T) []string {
	var all []string
	for _, v := range values {
		all = append(all, v.String())
	}
	return all
}

func count(n int) uint32 {
	return uint32(min(max(n, 0), math.MaxUint32))
}
