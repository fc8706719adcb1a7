package memnat

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/conntrack"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/nftnat"
)

// limits are the limits of subscribers, with the twin's counts. The twin's conntrack table is
// never scarce.
type limits struct {
	list    []nat.PrefixLimits
	buckets map[netip.Addr]bucket
	refused map[nat.Refusal]bool // since the last call of Refusals
}

// bucket holds the new sessions that a subscriber may begin at once.
type bucket struct {
	tokens float64
	at     time.Time
}

// SetLimits is as that of nftnat.Kernel.
func (n *NAT) SetLimits(ctx context.Context, list []nat.PrefixLimits) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.limits = limits{list: slices.Clone(list), buckets: map[netip.Addr]bucket{}, refused: map[nat.Refusal]bool{}}
	return ctx.Err()
}

// Refusals is as that of nftnat.Kernel.
func (n *NAT) Refusals(ctx context.Context) ([]nat.Refusal, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	list := slices.Collect(maps.Keys(n.limits.refused))
	clear(n.limits.refused)
	return list, ctx.Err()
}

// overLimitLocked returns the limit at which a new session is refused, if there is one.
func (n *NAT) overLimitLocked(t conntrack.Tuple, now time.Time) (nat.Limit, bool) {
	l := nat.LimitsAt(n.limits.list, t.Src)
	if l == (nat.Limits{}) {
		return 0, false
	}
	sessions, ports := 0, map[uint16]bool{}
	for _, f := range n.flows {
		if f.Orig.Src == t.Src {
			sessions++
			if f.Orig.Protocol == t.Protocol {
				ports[f.Orig.SrcPort] = true
			}
		}
	}
	full := func(limit int) bool { return limit > 0 && len(ports) >= limit && !ports[t.SrcPort] }
	switch {
	case l.Sessions > 0 && sessions >= l.Sessions:
		return nat.LimitSessions, true
	case t.Protocol == unix.IPPROTO_TCP && full(l.TCPPorts):
		return nat.LimitTCPPorts, true
	case t.Protocol == unix.IPPROTO_UDP && full(l.UDPPorts):
		return nat.LimitUDPPorts, true
	case l.NewSessionsPerSecond > 0 && !n.limits.mayBegin(t.Src, l.NewSessionsPerSecond, now):
		return nat.LimitNewSessions, true
	}
	return 0, false
}

// mayBegin reports whether a subscriber may begin a session under its rate, and counts it.
func (l *limits) mayBegin(inside netip.Addr, perSecond int, now time.Time) bool {
	most := float64(nftnat.RateBurst(perSecond))
	b, known := l.buckets[inside]
	if !known {
		b.tokens = most
	} else {
		b.tokens = min(most, b.tokens+now.Sub(b.at).Seconds()*float64(perSecond))
	}
	b.at = now
	enough := b.tokens >= 1
	if enough {
		b.tokens--
	}
	l.buckets[inside] = b
	return enough
}

// refuse notes that a new session of a subscriber was refused.
func (l *limits) refuse(inside netip.Addr, at nat.Limit) {
	l.refused[nat.Refusal{Inside: inside, Limit: at}] = true
}

// forget removes a subscriber that has ended.
func (l *limits) forget(inside netip.Addr) {
	delete(l.buckets, inside)
	for at := range nat.LimitCount {
		delete(l.refused, nat.Refusal{Inside: inside, Limit: at})
	}
}
