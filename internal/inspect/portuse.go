package inspect

import (
	"net/netip"
	"time"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/portuse"
)

// PortUse is the use of ports in one group.
type PortUse struct {
	portuse.Observation
	Group   string
	Current portuse.Counts // of the present subscribers by their ports of the protocol with the most
	Pools   []PoolPorts    // in no order
}

// Total returns the ports in use in all pools.
func (u *PortUse) Total() (all nat.PortUse) {
	for i := range u.Pools {
		all = all.Plus(u.Pools[i].Current)
	}
	return all
}

// PoolPorts is the use of ports of one outside prefix.
type PoolPorts struct {
	Outside  netip.Prefix
	Current  nat.PortUse    // of all its subscribers together
	Peak     nat.PortUse    // the largest Current, by protocol
	Counts   portuse.Counts // of its subscribers as in PortUse.Current
	Measured time.Time
}

// BlockSizes are the outcomes of block sizes in one group.
type BlockSizes struct {
	portuse.Observation
	portuse.Advice
	Group  string
	Target float64 // share of bindings that may overflow
}
