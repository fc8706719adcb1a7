package memnat

import (
	"context"
	"net/netip"

	"github.com/sessiond/sessiond/internal/nftnat"
)

// surroundings are those of no machine: nothing of others is there.
type surroundings struct{}

// Barrier is as that of nftnat.Kernel: nothing leaves the twin.
func (surroundings) Barrier() bool { return true }

// Strays is as that of nftnat.Kernel: there are none.
func (surroundings) Strays() nftnat.Strays { return nftnat.Strays{} }

// Flowtables is as that of nftnat.Kernel: there are none.
func (surroundings) Flowtables() nftnat.Flowtables { return nftnat.Flowtables{} }

// Bypassed is as that of nftnat.Kernel: nothing does.
func (surroundings) Bypassed() bool { return false }

// Translators is as that of nftnat.Kernel: there are no others.
func (surroundings) Translators(context.Context) ([]string, error) { return nil, nil }

// OwnAddressIn is as that of nftnat.Kernel: the twin has no address.
func (surroundings) OwnAddressIn(netip.Prefix) (netip.Addr, error) { return netip.Addr{}, nil }

// SetPCP is as that of nftnat.Kernel: the twin has no machine to ask.
func (surroundings) SetPCP(ctx context.Context, p nftnat.PCP) error {
	if err := nftnat.CheckPCP(&p); err != nil {
		return err
	}
	return ctx.Err()
}
