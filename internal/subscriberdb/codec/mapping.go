package codec

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/sessiond/sessiond/internal/nat"
)

// FormatEndpoint returns the field of a mapping in its hash: protocol and outside endpoint,
// such as tcp/198.51.100.1:60022.
func FormatEndpoint(e nat.Endpoint) string {
	return nat.ProtocolName(e.Protocol) + "/" + e.AddrPort.String()
}

// ParseEndpoint parses the result of FormatEndpoint.
func ParseEndpoint(field string) (nat.Endpoint, error) {
	name, at, _ := strings.Cut(field, "/")
	e := nat.Endpoint{Protocol: nat.ProtocolTCP}
	switch name {
	case nat.ProtocolName(nat.ProtocolTCP):
	case nat.ProtocolName(nat.ProtocolUDP):
		e.Protocol = nat.ProtocolUDP
	default:
		return nat.Endpoint{}, fmt.Errorf("mapping %q: protocol %q is not known", field, name)
	}
	var err error
	if e.AddrPort, err = netip.ParseAddrPort(at); err != nil || !e.Addr().Is4() || e.Port() == 0 || e.AddrPort.String() != at {
		return nat.Endpoint{}, fmt.Errorf("mapping %q: no port of an IPv4 address", field)
	}
	return e, nil
}

// mappingValue is the value of a mapping's field: JSON, which operators can read too.
type mappingValue struct {
	Kind       string     `json:"kind"`
	UserName   octets     `json:"user_name,omitzero"`
	Inside     netip.Addr `json:"inside,omitzero"`
	InsidePort nat.Port   `json:"inside_port"`
	CreatedAt  time.Time  `json:"created_at,omitzero"`
	ExpiresAt  time.Time  `json:"expires_at,omitzero"`
	HoldUntil  time.Time  `json:"hold_until,omitzero"`
	BoundAt    time.Time  `json:"bound_at,omitzero"`
	Nonce      string     `json:"nonce,omitzero"` // hexadecimal

	Peer netip.AddrPort `json:"peer,omitzero"`
}

// FormatMapping returns the value of a mapping's field.
func FormatMapping(m *nat.Mapping) ([]byte, error) {
	v := mappingValue{
		Kind: m.Kind.String(), UserName: octets(m.Owner.UserName), Inside: m.Owner.Inside, InsidePort: m.InsidePort,
		CreatedAt: m.CreatedAt, ExpiresAt: m.ExpiresAt, HoldUntil: m.HoldUntil, BoundAt: m.BoundAt, Peer: m.Peer,
	}
	if m.Nonce != (nat.Mapping{}.Nonce) {
		v.Nonce = hex.EncodeToString(m.Nonce[:])
	}
	return json.Marshal(v)
}

// ParseMapping parses a field of a group's MappingsKey and its value.
func ParseMapping(group, field, text string) (nat.Mapping, error) {
	e, err := ParseEndpoint(field)
	if err != nil {
		return nat.Mapping{}, err
	}
	var v mappingValue
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		return nat.Mapping{}, fmt.Errorf("mapping %s: %w", field, err)
	}
	kind, ok := nat.ParseMappingKind(v.Kind)
	switch {
	case !ok:
		return nat.Mapping{}, fmt.Errorf("mapping %s: kind %q is not known", field, v.Kind)
	case (v.UserName == "") == !v.Inside.IsValid():
		return nat.Mapping{}, fmt.Errorf("mapping %s: not exactly one owner", field)
	case v.Inside.IsValid() && !v.Inside.Is4():
		return nat.Mapping{}, fmt.Errorf("mapping %s: inside address %v is not IPv4", field, v.Inside)
	case v.InsidePort == 0:
		return nat.Mapping{}, fmt.Errorf("mapping %s: no inside port", field)
	case (kind == nat.MappingPCP) != !v.BoundAt.IsZero(), kind == nat.MappingPCP && !v.Inside.IsValid(), kind != nat.MappingPCP && (v.Nonce != "" || v.Peer.IsValid()):
		return nat.Mapping{}, fmt.Errorf("mapping %s: a mapping by PCP is of an inside address and its binding (bound_at), no other one is", field)
	}
	nonce, err := hex.DecodeString(v.Nonce)
	if err != nil || len(nonce) != 0 && len(nonce) != len(nat.Mapping{}.Nonce) {
		return nat.Mapping{}, fmt.Errorf("mapping %s: nonce %q is not %d octets in hexadecimal", field, v.Nonce, len(nat.Mapping{}.Nonce))
	}
	m := nat.Mapping{
		Group: group, Kind: kind, Owner: nat.Owner{UserName: string(v.UserName), Inside: v.Inside}, InsidePort: v.InsidePort, Outside: e,
		CreatedAt: v.CreatedAt, ExpiresAt: v.ExpiresAt, HoldUntil: v.HoldUntil, BoundAt: v.BoundAt, Peer: v.Peer,
	}
	copy(m.Nonce[:], nonce)
	return m, nil
}
