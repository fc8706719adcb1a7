package portmap

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/sessiond/sessiond/internal/addrrange"
	"github.com/sessiond/sessiond/internal/nat"
)

// Reasons to refuse a mapping.
var (
	ErrExists  = errors.New("exists already")     // its outside endpoint, or its owner's inside port, is mapped
	ErrFull    = errors.New("no room")            // its owner has as many as allowed, or no port is free
	ErrQuota   = errors.New("no quota")           // a subscriber asked for as many by PCP as allowed
	ErrOutside = errors.New("not of this group")  // its outside endpoint, or its owner, is not the group's
	ErrNoRange = errors.New("no ports set apart") // the group has none for mappings
)

// Range are the ports of each outside address that mappings get, inclusive. The zero Range
// has none.
type Range struct{ First, Last nat.Port }

// Len returns the number of ports.
func (r Range) Len() int {
	if r == (Range{}) {
		return 0
	}
	return int(r.Last) - int(r.First) + 1
}

func (r Range) contains(p nat.Port) bool { return r != (Range{}) && r.First <= p && p <= r.Last }

// Config are the bounds of a group's mappings.
type Config struct {
	Inside   []netip.Prefix // of the group's subscribers
	Outside  []netip.Prefix // addresses that give ports
	Draining []netip.Prefix // addresses whose mappings stay, and that give no ports
	Range    Range
	PerOwner int           // static mappings of one owner; 0 for no bound
	PCP      int           // mappings that one binding's subscriber may ask for by PCP; 0 for none
	Hold     time.Duration // quarantine of an endpoint before another owner may get it

	Configured []nat.Mapping // each with its outside endpoint
}

// Has reports whether the endpoint is one of those set apart.
func (c *Config) Has(e nat.Endpoint) bool {
	return c.Range.contains(nat.Port(e.Port())) && (addrrange.InOne(c.Outside, e.Addr()) || addrrange.InOne(c.Draining, e.Addr()))
}

// mayAsk reports whether a subscriber may get an endpoint by PCP: no well-known port, which is a
// person's to give, and not those of PCP itself (RFC 6887 section 19.2), at which a client
// would hear others in the place of its server.
func (c *Config) mayAsk(e nat.Endpoint) bool {
	const first, announce, server = 1024, 5350, 5351
	return e.Port() >= first && !(e.Protocol == nat.ProtocolUDP && (e.Port() == announce || e.Port() == server))
}

// checkOwn returns an error if a mapping cannot be one of the group, whatever others there are.
func (c *Config) checkOwn(m *nat.Mapping) error {
	switch {
	case c.Range == (Range{}):
		return fmt.Errorf("%w: group %s; write static_ports into its configuration, such as 1-1023, which no block has, and reload", ErrNoRange, m.Group)
	case m.Owner.Inside.IsValid() && !addrrange.InOne(c.Inside, m.Owner.Inside):
		return fmt.Errorf("inside address %v: %w; name one of %v", m.Owner.Inside, ErrOutside, c.Inside)
	case !m.Outside.IsValid():
		return nil
	case !c.Range.contains(nat.Port(m.Outside.Port())):
		return fmt.Errorf("port %d: %w; its mappings have ports %d-%d (static_ports)", m.Outside.Port(), ErrOutside, c.Range.First, c.Range.Last)
	case addrrange.InOne(c.Draining, m.Outside.Addr()) && m.Configured:
		return nil // it stays
	case addrrange.InOne(c.Draining, m.Outside.Addr()):
		return fmt.Errorf("outside address %v: %w any more: it drains, and gives no ports; name another one", m.Outside.Addr(), ErrOutside)
	case !addrrange.InOne(c.Outside, m.Outside.Addr()):
		return fmt.Errorf("outside address %v: %w; name one of %v", m.Outside.Addr(), ErrOutside, c.Outside)
	}
	return nil
}
