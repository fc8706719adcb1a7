package lifecycle

import (
	"slices"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// Where the NAT is logged, a write to a stored binding also says who holds its blocks, and when
// others left service. Which events follow is decided where the binding is stored.

// LogHolders makes the Machine name the holders of the bindings that it stores.
func LogHolders(m *Machine) { m.logged = true }

// holderToLog returns the holder of a binding that is in service, as far as its record is
// known; nil where that is not certainly the holder's.
func holderToLog(m *Machine, b *nat.Binding) *nat.Identity {
	s := m.slots.at(b.Inside)
	if !m.logged || s == nil || s.stray {
		return nil
	}
	r := &s.packed
	switch {
	case s.over != nil:
		r = &s.over.record
	case s.tenure != s.boundTenure:
		return nil
	}
	if r.UserName() != b.UserName || r.AcctSessionID() != b.AcctSessionID {
		return nil
	}
	return identityOf(r)
}

func identityOf(r *subscriber.Packed) *nat.Identity {
	full := r.Record()
	return &nat.Identity{
		Inside: full.Inside, UserName: full.UserName, Client: full.Client, NAS: full.NAS, NASAddress: full.NASAddress,
		AcctSessionID: full.AcctSessionID, CallingStationID: full.CallingStationID,
		IPv6Prefixes: slices.Concat(full.FramedIPv6Prefixes, full.DelegatedPrefixes),
	}
}
