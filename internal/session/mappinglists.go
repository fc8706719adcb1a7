package session

import (
	"context"
	"maps"
	"net/netip"
	"time"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/lifecycle"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/nftnat"
)

// CreateMapping makes a mapping.
func (v *Backend) CreateMapping(ctx context.Context, m nat.Mapping, lifetime time.Duration) (inspect.Mapping, error) {
	return v.mappings.create(ctx, m, lifetime)
}

// DeleteMapping ends a mapping and its sessions, and returns their number.
func (v *Backend) DeleteMapping(ctx context.Context, group string, outside nat.Endpoint) (inspect.Mapping, int, error) {
	return v.mappings.remove(ctx, group, outside)
}

// Mappings returns up to limit mappings after the key after, those in quarantine too, and the
// key to continue after, which is zero at the end.
func (v *Backend) Mappings(_ context.Context, f inspect.MappingFilter, after inspect.MappingKey, limit int) (views []inspect.Mapping, next inspect.MappingKey, err error) {
	v.shared.mu.RLock()
	defer v.shared.mu.RUnlock()
	if err := v.readiness.restoredRLocked(); err != nil {
		return nil, next, err
	}
	looks := 0
	for _, name := range lifecycle.NamesFrom(maps.Keys(v.shared.groups), f.Group, after.Group) {
		g, from := v.shared.groups[name], nat.Endpoint{}
		if name == after.Group {
			from = after.Outside
		}
		for m := range g.Mappings.From(from) {
			key := inspect.MappingKeyOf(&m)
			if key.Compare(after) <= 0 {
				continue
			}
			if looks++; looks > looksPerCall {
				return views, after, nil
			}
			if f.Match(&m) {
				if len(views) == limit {
					return views, after, nil
				}
				views = append(views, v.mappings.viewRLocked(g, &m))
			}
			after = key
		}
	}
	return views, inspect.MappingKey{}, nil
}

// MappingsAt returns the mappings of an outside port that are in force, or were at a time, zero
// for now.
func (v *Backend) MappingsAt(_ context.Context, outside netip.AddrPort, at time.Time) (views []inspect.Mapping, err error) {
	v.shared.mu.RLock()
	defer v.shared.mu.RUnlock()
	if err := v.readiness.restoredRLocked(); err != nil {
		return nil, err
	}
	for _, protocol := range []uint8{nat.ProtocolTCP, nat.ProtocolUDP} {
		for _, g := range v.shared.groups {
			m, ok := g.Mappings.At(nat.Endpoint{Protocol: protocol, AddrPort: outside})
			if ok && !m.Ended() && (at.IsZero() || !at.Before(m.CreatedAt)) {
				views = append(views, v.mappings.viewRLocked(g, &m))
			}
		}
	}
	return views, nil
}

// MappingCounts returns the number of mappings in force by group and kind.
func (v *Backend) MappingCounts() map[string]map[string]int {
	v.shared.mu.RLock()
	defer v.shared.mu.RUnlock()
	counts := make(map[string]map[string]int, len(v.shared.groups))
	for name, g := range v.shared.groups {
		counts[name] = map[string]int{}
		for _, k := range nat.MappingKinds() {
			counts[name][k.String()] = g.Mappings.Len(k)
		}
	}
	return counts
}

// PreviewMapping returns the mapping that CreateMapping would make.
func (p *Previews) PreviewMapping(_ context.Context, m nat.Mapping, lifetime time.Duration) (inspect.Mapping, error) {
	k := p.of.mappings
	g, m, err := k.plan(m)
	if err != nil {
		return inspect.Mapping{}, err
	}
	if lifetime > 0 {
		m.ExpiresAt = k.now().UTC().Add(lifetime)
	}
	k.mu.RLock()
	defer k.mu.RUnlock()
	view := k.viewRLocked(g, &m)
	view.InForce = false
	return view, nil
}

// PreviewMappingEnd returns the mapping that DeleteMapping would end, and the number of
// conntrack entries through it.
func (p *Previews) PreviewMappingEnd(ctx context.Context, group string, outside nat.Endpoint) (view inspect.Mapping, sessions int, err error) {
	k := p.of.mappings
	g, m, err := k.find(group, outside)
	if err != nil {
		return inspect.Mapping{}, 0, err
	}
	k.mu.RLock()
	view = k.viewRLocked(g, &m)
	k.mu.RUnlock()
	if !view.Inside.IsValid() {
		return view, 0, nil
	}
	through := nat.NewForwards([]nat.Forward{m.Forward()})
	err = k.kernel.SessionsOf(ctx, netip.PrefixFrom(view.Inside, 32), func(s nftnat.Session) error {
		if s.Inside.Addr() == view.Inside && through.Has(s.Forward()) {
			sessions++
		}
		return nil
	})
	return view, sessions, err
}
