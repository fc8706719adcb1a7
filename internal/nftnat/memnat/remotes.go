package memnat

import (
	"context"
	"math"
	"net/netip"
	"slices"

	"github.com/sessiond/sessiond/internal/conntrack"
	"github.com/sessiond/sessiond/internal/nftnat"
)

// remotes are the hosts that subscribers talk to.
type remotes struct{ nat *NAT }

// Talking is as that of nftnat.Kernel.
func (r remotes) Talking(remote conntrack.Remote, most int) (list []netip.Addr, few bool) {
	found := map[netip.Addr]struct{}{}
	_ = r.nat.Sessions(context.Background(), func(s nftnat.Session) error { // ends with the context alone
		port := remote.Port == 0 || remote.Port == s.Remote.Port()
		if port && (!remote.Prefix.IsValid() || remote.Prefix.Contains(s.Remote.Addr())) {
			found[s.Inside.Addr()] = struct{}{}
		}
		return nil
	})
	if len(found) > most {
		return nil, false
	}
	for a := range found {
		list = append(list, a)
	}
	return list, true
}

// Talks is as that of nftnat.Kernel.
func (r remotes) Talks(inside netip.Addr, remote conntrack.Remote) bool {
	list, _ := r.Talking(remote, math.MaxInt)
	return slices.Contains(list, inside)
}
