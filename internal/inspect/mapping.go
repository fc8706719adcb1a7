package inspect

import (
	"errors"
	"net/netip"
	"strings"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/portmap"
)

// Errors of changes of mappings.
var (
	ErrMappingExists     = portmap.ErrExists
	ErrMappingFull       = portmap.ErrFull
	ErrMappingOutside    = portmap.ErrOutside
	ErrMappingConfigured = errors.New("the configuration has the mapping; take it out there, and reload")
	ErrNoStaticPorts     = portmap.ErrNoRange
)

// Mapping is a mapping that outlives its sessions, and where it is.
type Mapping struct {
	nat.Mapping
	Inside  netip.Addr // the address that has it, zero while its owner is offline
	InForce bool       // the kernel has it there
}

// MappingKey names one mapping and orders mappings.
type MappingKey struct {
	Group   string
	Outside nat.Endpoint
}

// MappingKeyOf returns the key of a mapping.
func MappingKeyOf(m *nat.Mapping) MappingKey { return MappingKey{m.Group, m.Outside} }

// Compare orders keys by group, outside address, port and protocol.
func (k MappingKey) Compare(o MappingKey) int {
	if n := strings.Compare(k.Group, o.Group); n != 0 {
		return n
	}
	return k.Outside.Compare(o.Outside)
}

// MappingFilter picks mappings. Zero fields match everything.
type MappingFilter struct {
	Group    string
	UserName string       // of the owner
	Inside   netip.Prefix // has the owner's address
	Outside  netip.Prefix
	Kind     nat.MappingKind
}

// Match reports whether a mapping matches, whatever its group.
func (f *MappingFilter) Match(m *nat.Mapping) bool {
	return (f.UserName == "" || f.UserName == m.Owner.UserName) &&
		(!f.Inside.IsValid() || m.Owner.Inside.IsValid() && f.Inside.Contains(m.Owner.Inside)) &&
		(!f.Outside.IsValid() || f.Outside.Contains(m.Outside.Addr())) &&
		(f.Kind == 0 || f.Kind == m.Kind)
}
