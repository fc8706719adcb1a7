package nat

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"time"
)

// MappingKind tells who asked for a mapping that outlives its sessions.
type MappingKind uint8

// The kinds of such mappings.
const (
	MappingStatic MappingKind = iota + 1 // a person, or the configuration
	MappingPCP                           // the subscriber, by PCP (RFC 6887) or NAT-PMP (RFC 6886)
)

var mappingKindNames = [...]string{MappingStatic: "static", MappingPCP: "pcp"}

// MappingKinds returns all kinds.
func MappingKinds() []MappingKind { return []MappingKind{MappingStatic, MappingPCP} }

// String returns the kind's name in metrics and in the database.
func (k MappingKind) String() string {
	if int(k) < len(mappingKindNames) && mappingKindNames[k] != "" {
		return mappingKindNames[k]
	}
	return fmt.Sprintf("MappingKind(%d)", uint8(k))
}

// ParseMappingKind is the reverse of String.
func ParseMappingKind(name string) (MappingKind, bool) {
	for _, k := range MappingKinds() {
		if k.String() == name {
			return k, true
		}
	}
	return 0, false
}

// Owner is the subscriber of a mapping: a User-Name, wherever its session is, or an inside
// address, whoever has it; of a MappingPCP, as long as it has the binding. Exactly one of them is
// set.
type Owner struct {
	UserName string // raw octets
	Inside   netip.Addr
}

// String returns the owner for people.
func (o Owner) String() string {
	if o.Inside.IsValid() {
		return o.Inside.String()
	}
	return fmt.Sprintf("user %q", o.UserName)
}

// Endpoint is a port of an address, of one protocol.
type Endpoint struct {
	Protocol uint8 // IANA number: 6 TCP, 17 UDP
	netip.AddrPort
}

// Compare orders endpoints by address, port and protocol.
func (e Endpoint) Compare(o Endpoint) int {
	return cmp.Or(e.AddrPort.Compare(o.AddrPort), cmp.Compare(e.Protocol, o.Protocol))
}

// String returns the endpoint for people, such as "tcp 198.51.100.1:60022".
func (e Endpoint) String() string { return ProtocolName(e.Protocol) + " " + e.AddrPort.String() }

// ProtocolName returns the name of TCP or UDP, and the number of another protocol.
func ProtocolName(number uint8) string {
	switch number {
	case ProtocolTCP:
		return "tcp"
	case ProtocolUDP:
		return "udp"
	}
	return fmt.Sprint(number)
}

// Numbers of the protocols that mappings are of.
const (
	ProtocolTCP = 6
	ProtocolUDP = 17
)

// Mapping gives its owner a port of an outside address, with or without sessions: everybody
// reaches the inside port there, and the sessions that the owner begins from the inside port
// leave by it.
type Mapping struct {
	Group      string
	Kind       MappingKind
	Configured bool // by the configuration, which alone takes it away
	Owner      Owner
	InsidePort Port
	Outside    Endpoint
	CreatedAt  time.Time // zero of a configured one
	ExpiresAt  time.Time // end of its lifetime; zero for none
	HoldUntil  time.Time // it has ended, and nobody else gets the endpoint until then (RFC 6888 REQ-8); zero in force

	// Of a MappingPCP. The time, UTC, names the binding whose subscriber asked for it, and with
	// which it ends; the nonce is that of the request (RFC 6887 section 11.1), zero by NAT-PMP; the
	// peer is the remote endpoint where PEER asked for it, zero by MAP.
	BoundAt time.Time
	Nonce   [12]byte
	Peer    netip.AddrPort
}

// Ended reports whether the mapping has ended, and only its endpoint is still in quarantine.
func (m *Mapping) Ended() bool { return !m.HoldUntil.IsZero() }

// Forward returns the mapping as the kernel has it for one inside address.
func (m *Mapping) Forward() Forward {
	return Forward{m.Outside.Protocol, m.InsidePort, m.Outside.AddrPort}
}

// Forward is a mapping of an inside address: packets to the outside endpoint reach the inside
// port, and new sessions of the inside port leave by the outside endpoint.
type Forward struct {
	Protocol   uint8
	InsidePort Port
	Outside    netip.AddrPort // IPv4
}

// Endpoint returns the outside endpoint.
func (f Forward) Endpoint() Endpoint { return Endpoint{f.Protocol, f.Outside} }

// Forwards are the mappings of one inside address, no two of one protocol and inside port.
// They can be compared with ==. The zero value has none.
type Forwards struct {
	packed string // forwardSize octets of each, in order
}

// forwardSize is the number of octets of a Forward: protocol, inside port, address, port.
const forwardSize = 1 + 2 + 4 + 2

// NewForwards returns the set of some mappings. Of several with one protocol and inside port
// the first one counts.
func NewForwards(list []Forward) Forwards {
	if len(list) == 0 {
		return Forwards{}
	}
	packed := make([][forwardSize]byte, len(list))
	for i, f := range list {
		packed[i] = f.pack()
	}
	slices.SortStableFunc(packed, func(a, b [forwardSize]byte) int { return slices.Compare(a[:3], b[:3]) })
	packed = slices.CompactFunc(packed, func(a, b [forwardSize]byte) bool { return [3]byte(a[:3]) == [3]byte(b[:3]) })
	text := make([]byte, 0, forwardSize*len(packed))
	for _, p := range packed {
		text = append(text, p[:]...)
	}
	return Forwards{string(text)}
}

func (f Forward) pack() (p [forwardSize]byte) {
	address := f.Outside.Addr().As4()
	p[0] = f.Protocol
	binary.BigEndian.PutUint16(p[1:], uint16(f.InsidePort))
	copy(p[3:], address[:])
	binary.BigEndian.PutUint16(p[7:], f.Outside.Port())
	return p
}

// Len returns the number of mappings.
func (f Forwards) Len() int { return len(f.packed) / forwardSize }

// All yields the mappings, by protocol and inside port.
func (f Forwards) All() iter.Seq[Forward] {
	return func(yield func(Forward) bool) {
		for i := 0; i < len(f.packed); i += forwardSize {
			p := f.packed[i:]
			next := Forward{
				Protocol: p[0], InsidePort: Port(p[1])<<8 | Port(p[2]),
				Outside: netip.AddrPortFrom(netip.AddrFrom4([4]byte{p[3], p[4], p[5], p[6]}), uint16(p[7])<<8|uint16(p[8])),
			}
			if !yield(next) {
				return
			}
		}
	}
}

// Has reports whether a mapping is one of them.
func (f Forwards) Has(x Forward) bool {
	for has := range f.All() {
		if has == x {
			return true
		}
	}
	return false
}

// Reaches reports whether an outside endpoint is that of one of the mappings.
func (f Forwards) Reaches(e Endpoint) bool {
	for has := range f.All() {
		if has.Endpoint() == e {
			return true
		}
	}
	return false
}

// Less returns the mappings that are not in other.
func (f Forwards) Less(other Forwards) Forwards {
	if f == other {
		return Forwards{}
	}
	var rest []Forward
	for x := range f.All() {
		if !other.Has(x) {
			rest = append(rest, x)
		}
	}
	return NewForwards(rest)
}
