package session

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/sessiond/sessiond/internal/addrtable"
	"github.com/sessiond/sessiond/internal/clock"
	"github.com/sessiond/sessiond/internal/conntrack"
	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/lsn"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/portuse"
)

// portsEvery is the interval between two measurements of port use. Conntrack entries last
// longer than it, so the peaks miss only ports that are closed within: RFC 4787 REQ-5 and RFC
// 5382 REQ-5 keep a mapping for minutes.
const portsEvery = 10 * time.Second

// portsShare bounds the time that measurements take: one part in so many.
const portsShare = 100

// portsFresh is the age up to which a measurement answers a caller.
const portsFresh = time.Second

// portKernel counts the ports that subscribers use.
type portKernel interface {
	PortUse(inside netip.Addr) nat.PortUse
	PortUses(yield func([]conntrack.PortUser))
}

// portWatch measures the ports that subscribers use, and keeps the peaks of bindings and of
// pools. They begin anew with the daemon: then the peak is the use that it finds.
type portWatch struct {
	*sharedState
	kernel portKernel

	measuring sync.Mutex // one measurement at a time; taken before sharedState.mu
	measured  time.Time  // when the last one ended

	portsMu sync.Mutex // of the fields below; a leaf
	since   time.Time
	peaks   addrtable.Table[portPeak] // of live bindings that had a port
	groups  map[string]*groupPorts
}

// portPeak is the peak of a binding, in 8 octets.
type portPeak struct {
	tcp, udp, icmp uint16 // 65,535 for 65,536 too
	full           bool   // it was counted as full
}

func (p *portPeak) use() nat.PortUse {
	return nat.PortUse{TCP: int(p.tcp), UDP: int(p.udp), ICMP: int(p.icmp)}
}

func (p *portPeak) set(u nat.PortUse) {
	p.tcp, p.udp, p.icmp = uint16(min(u.TCP, 65535)), uint16(min(u.UDP, 65535)), uint16(min(u.ICMP, 65535))
}

// groupPorts is the port use in one group.
type groupPorts struct {
	ended   int            // bindings
	full    int            // bindings that used all ports of their blocks
	peaks   portuse.Counts // of bindings, live and ended
	current portuse.Counts
	pools   map[netip.Prefix]*inspect.PoolPorts
}

func newPortWatch(s *sharedState, kernel portKernel) *portWatch {
	return &portWatch{sharedState: s, kernel: kernel, since: s.now(), groups: map[string]*groupPorts{}}
}

// run measures every portsEvery, or more rarely where it takes long.
func (p *portWatch) run(ctx context.Context) error {
	for {
		began := time.Now()
		p.measure(0)
		if err := clock.Sleep(ctx, max(portsEvery, (portsShare-1)*time.Since(began))); err != nil {
			return err
		}
	}
}

// portSums is what one measurement adds up in a group.
type portSums struct {
	counts portuse.Counts
	pools  map[netip.Prefix]*poolSums
}

type poolSums struct {
	use    nat.PortUse
	counts portuse.Counts
}

// measure counts the ports of all subscribers, unless the last count is young enough.
func (p *portWatch) measure(fresh time.Duration) {
	p.measuring.Lock()
	defer p.measuring.Unlock()
	if fresh > 0 && time.Since(p.measured) < fresh {
		return
	}
	sums := map[string]*portSums{}
	asOf := p.now()
	p.kernel.PortUses(func(users []conntrack.PortUser) {
		p.add(users, asOf, sums)
		asOf = p.now()
	})
	p.conclude(sums)
	p.measured = time.Now()
}

// add adds the ports of some subscribers, which were counted after asOf, to the sums, and
// raises their peaks.
func (p *portWatch) add(users []conntrack.PortUser, asOf time.Time, sums map[string]*portSums) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	p.portsMu.Lock()
	defer p.portsMu.Unlock()
	for _, u := range users {
		g := p.life.Groups().Of(u.Inside)
		if g == nil {
			continue
		}
		b, ok := p.life.Engine().Live(g.Name, u.Inside)
		if !ok || b.AllocatedAt.After(asOf) { // the ports may be those of the holder before
			continue
		}
		s := sums[g.Name]
		if s == nil {
			s = &portSums{pools: map[netip.Prefix]*poolSums{}}
			sums[g.Name] = s
		}
		s.counts.Add(u.Largest())
		if prefix, ok := p.life.Engine().PoolOf(b.Outside); ok {
			pool := s.pools[prefix]
			if pool == nil {
				pool = &poolSums{}
				s.pools[prefix] = pool
			}
			pool.use = pool.use.Plus(u.PortUse)
			pool.counts.Add(u.Largest())
		}
		p.raiseLocked(&b, u.PortUse)
	}
}

// raiseLocked raises the peak of a live binding.
func (p *portWatch) raiseLocked(b *nat.Binding, u nat.PortUse) {
	peak, _ := p.peaks.At(b.Inside)
	before := peak.use()
	after := before.Max(u)
	filled := !peak.full && after.Largest() >= portsOf(b)
	if after == before && !filled {
		return
	}
	g := p.groupLocked(b.Group)
	peak.set(after)
	g.peaks.Move(before.Largest(), peak.use().Largest())
	if filled {
		peak.full = true
		g.full++
	}
	p.peaks.Put(b.Inside, peak)
}

// portsOf returns the number of ports of a binding's blocks.
func portsOf(b *nat.Binding) (ports int) {
	for block := range b.All() {
		ports += int(block.Last) - int(block.First) + 1
	}
	return ports
}

func (p *portWatch) groupLocked(name string) *groupPorts {
	g := p.groups[name]
	if g == nil {
		g = &groupPorts{pools: map[netip.Prefix]*inspect.PoolPorts{}}
		p.groups[name] = g
	}
	return g
}

// conclude replaces the last measurement, and forgets groups and pools that are no longer
// there.
func (p *portWatch) conclude(sums map[string]*portSums) {
	p.mu.RLock()
	usage := p.life.Engine().Usage()
	served := slices.Collect(maps.Keys(p.sharedState.groups))
	p.mu.RUnlock()
	p.portsMu.Lock()
	defer p.portsMu.Unlock()
	maps.DeleteFunc(p.groups, func(name string, _ *groupPorts) bool { return !slices.Contains(served, name) })
	for _, name := range served {
		g := p.groupLocked(name)
		s := sums[name]
		if s == nil {
			s = &portSums{}
		}
		g.current = s.counts
		maps.DeleteFunc(g.pools, func(prefix netip.Prefix, _ *inspect.PoolPorts) bool {
			return !slices.ContainsFunc(usage, func(u lsn.Usage) bool { return u.Group == name && u.Outside == prefix })
		})
		for _, u := range usage {
			if u.Group == name {
				g.measurePool(u.Outside, s.pools[u.Outside], p.now())
			}
		}
	}
}

// measurePool replaces the last measurement of one pool; sums is nil where no port is used.
func (g *groupPorts) measurePool(prefix netip.Prefix, sums *poolSums, now time.Time) {
	if sums == nil {
		sums = &poolSums{}
	}
	pool := g.pools[prefix]
	if pool == nil {
		pool = &inspect.PoolPorts{Outside: prefix}
		g.pools[prefix] = pool
	}
	pool.Current, pool.Counts, pool.Measured = sums.use, sums.counts, now
	pool.Peak = pool.Peak.Max(sums.use)
}

// ended counts a binding that has been reaped. Its peak stays among those of its group.
func (p *portWatch) ended(b *nat.Binding) {
	p.portsMu.Lock()
	defer p.portsMu.Unlock()
	p.groupLocked(b.Group).ended++
	p.peaks.Remove(b.Inside)
}

// of returns the present ports of a subscriber with a live binding, and their peak.
func (p *portWatch) of(inside netip.Addr) (now, peak nat.PortUse) {
	now = p.kernel.PortUse(inside)
	p.portsMu.Lock()
	defer p.portsMu.Unlock()
	kept, _ := p.peaks.At(inside)
	return now, kept.use().Max(now)
}

// PortUse returns the use of ports in every group, by name, as of not more than a second ago.
func (v *Backend) PortUse(context.Context) ([]inspect.PortUse, error) {
	v.ports.measure(portsFresh)
	return v.ports.view(), nil
}

// LastPortUse is PortUse as of the last measurement, which costs nothing.
func (v *Backend) LastPortUse() []inspect.PortUse { return v.ports.view() }

// view returns the last measurement, by group.
func (p *portWatch) view() []inspect.PortUse {
	p.mu.RLock()
	defer p.mu.RUnlock()
	p.portsMu.Lock()
	defer p.portsMu.Unlock()
	var all []inspect.PortUse
	for _, name := range slices.Sorted(maps.Keys(p.sharedState.groups)) {
		g := p.groupLocked(name)
		u := inspect.PortUse{Group: name, Current: g.current}
		u.Live = p.sharedState.groups[name].live()
		u.Since, u.Until = p.since, p.now()
		u.Bindings, u.Peaks, u.Full = u.Live+g.ended, g.peaks, g.full
		u.BlockSize = p.sharedState.groups[name].Config.BlockSize
		for _, pool := range g.pools {
			u.Pools = append(u.Pools, *pool)
		}
		all = append(all, u)
	}
	return all
}

// AdviseBlockSize returns the outcomes of block sizes in one group, or with an empty name in
// all. ErrNotFound: no such group is configured.
func (v *Backend) AdviseBlockSize(ctx context.Context, group string, target float64) ([]inspect.BlockSizes, error) {
	uses, err := v.PortUse(ctx)
	if err != nil {
		return nil, err
	}
	configs := v.configured()
	var all []inspect.BlockSizes
	for i := range uses {
		u := &uses[i]
		n := slices.IndexFunc(configs, func(c lsn.GroupConfig) bool { return c.Name == u.Group })
		if n < 0 || group != "" && u.Group != group {
			continue
		}
		advice := portuse.Advise(&u.Observation, target, configs[n].Blocks)
		all = append(all, inspect.BlockSizes{Observation: u.Observation, Advice: advice, Group: u.Group, Target: target})
	}
	if group != "" && len(all) == 0 {
		return nil, fmt.Errorf("group %s: %w", group, inspect.ErrNotFound)
	}
	return all, nil
}
