// Package memnat is the in-memory twin of nftnat.Kernel: for tests, and for trying out
// sessiond where there is no kernel to program. One contract test runs against both
// (nftnat.TestContract). The traffic of the twin is simulated.
//
// Reading order:
//
//	nat.go           the twin, with the entries of its addresses
//	traffic.go       packets and sessions
//	limits.go        limits of subscribers; ports.go: counts of what they begin; counts.go: of what they have
//	forwards.go      static mappings
//	pins.go          pins
//	remotes.go       the hosts that subscribers talk to
//	surroundings.go  the surroundings, of which there are none
package memnat

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"

	"github.com/sessiond/sessiond/internal/addrtable"
	"github.com/sessiond/sessiond/internal/conntrack"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/nftnat"
)

// NAT is the twin of nftnat.Kernel that keeps everything in memory. Its methods may be called
// concurrently.
type NAT struct {
	surroundings
	mu       sync.Mutex
	inside   []netip.Prefix
	timeouts nat.Timeouts
	groups   []nat.GroupTimeouts
	limits   limits
	cells    addrtable.Table[cell]
	flows    map[conntrack.Tuple]flow // by original tuple
	lastID   uint32
	dropped  map[nat.Drop]uint64
	noNAT    []nat.NoNAT
	mappings nftnat.Mappings
	learned  map[endpoint]netip.AddrPort // outside endpoint by inside endpoint
	static   []nftnat.StaticPorts
	forwards
	pins
	remotes

	ready   chan struct{}
	running sync.Once
	idle    chan netip.Addr
	ended   map[netip.Addr]bool // idle addresses not yet sent
	wake    chan struct{}       // signalled when ended got one
	changed chan struct{}

	programmed bool // it has or had elements

	begun beginnings
}

// cell is the state of one inside address that is not closed, in 10 octets: benchmarks have a
// million of them.
type cell struct {
	gate        nat.Gate
	outside     [4]byte
	first, last nat.Port
}

func (c cell) entry(inside netip.Addr, f nat.Forwards) nat.Entry {
	return nat.Entry{Inside: inside, Gate: c.gate, Forwards: f, Block: nat.Block{Outside: netip.AddrFrom4(c.outside), First: c.first, Last: c.last}}
}

// New returns a NAT without elements or sessions, for the subscribers of some IPv4 prefixes.
func New(inside []netip.Prefix, timeouts nat.Timeouts) (*NAT, error) {
	if err := nftnat.CheckPrefixes(inside, nil); err != nil {
		return nil, err
	}
	if err := timeouts.Check(); err != nil {
		return nil, err
	}
	n := &NAT{
		inside:   slices.Clone(inside),
		timeouts: timeouts,
		flows:    make(map[conntrack.Tuple]flow),
		dropped:  make(map[nat.Drop]uint64),
		learned:  make(map[endpoint]netip.AddrPort),
		forwards: forwards{of: make(map[netip.Addr]nat.Forwards)},
		pins:     pins{of: map[netip.Addr][]nat.Pin{}, cut: map[netip.Addr]int{}},
		ready:    make(chan struct{}),
		idle:     make(chan netip.Addr),
		ended:    make(map[netip.Addr]bool),
		wake:     make(chan struct{}, 1),
		changed:  make(chan struct{}, 1),
		begun:    newBeginnings(),
	}
	n.pins.nat, n.remotes.nat = n, n
	return n, nil
}

// Close does nothing: the twin has no resources to release.
func (n *NAT) Close() error { return nil }

// Run sends idle addresses until ctx ends.
func (n *NAT) Run(ctx context.Context) error {
	n.running.Do(func() { close(n.ready) })
	for {
		if a, ok := n.nextIdle(); ok {
			select {
			case n.idle <- a:
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		select {
		case <-n.wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (n *NAT) nextIdle() (netip.Addr, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for a := range n.ended {
		delete(n.ended, a)
		if n.countLocked(a) == 0 {
			return a, true
		}
	}
	return netip.Addr{}, false
}

// Ready is as that of nftnat.Kernel.
func (n *NAT) Ready() <-chan struct{} { return n.ready }

// Idle is as that of nftnat.Kernel.
func (n *NAT) Idle() <-chan netip.Addr { return n.idle }

// SetTimeouts is as that of nftnat.Kernel.
func (n *NAT) SetTimeouts(ctx context.Context, t nat.Timeouts) error {
	if err := t.Check(); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.timeouts = t
	return ctx.Err()
}

// SetGroupTimeouts is as that of nftnat.Kernel.
func (n *NAT) SetGroupTimeouts(ctx context.Context, groups []nat.GroupTimeouts) error {
	if err := nat.CheckGroups(groups); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.groups = slices.Clone(groups)
	return ctx.Err()
}

// SetPrefixes is as that of nftnat.Kernel.
func (n *NAT) SetPrefixes(ctx context.Context, inside, outside []netip.Prefix, m nftnat.Mappings) error {
	if err := errors.Join(nftnat.CheckPrefixes(inside, outside), m.Check()); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.inside, n.mappings = slices.Clone(inside), m
	if len(m.EndpointIndependent) == 0 {
		clear(n.learned)
	}
	if !m.Pinned {
		clear(n.pins.of)
	}
	return ctx.Err()
}

// SetNoNAT is as that of nftnat.Kernel.
func (n *NAT) SetNoNAT(ctx context.Context, list []nat.NoNAT) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.noNAT = slices.Clone(list)
	for _, f := range n.flows {
		if f.outside.Addr() == f.Orig.Src && !n.keepsAddressLocked(f.Orig) {
			n.endLocked(f)
		}
	}
	return ctx.Err()
}

// SetStatic is as that of nftnat.Kernel.
func (n *NAT) SetStatic(ctx context.Context, list []nftnat.StaticPorts) error {
	if err := nftnat.CheckStatic(list); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.static = slices.Clone(list); len(list) == 0 {
		clear(n.forwards.of)
	}
	return ctx.Err()
}

// MappingFill is as that of nftnat.Kernel.
func (n *NAT) MappingFill() nftnat.MappingFill {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.mappings.EndpointIndependent) == 0 {
		return nftnat.MappingFill{}
	}
	return nftnat.MappingFill{Mappings: len(n.learned), Limit: n.mappings.Most}
}

// NoteBlocks is as that of nftnat.Kernel: the twin finds mappings by inside address.
func (n *NAT) NoteBlocks(netip.Addr, nat.Blocks) {}

// Learn is as that of nftnat.Kernel. The twin always has the present elements.
func (n *NAT) Learn(ctx context.Context, _ []netip.Addr) error { return ctx.Err() }

// LearnRest is as that of nftnat.Kernel.
func (n *NAT) LearnRest(ctx context.Context) error { return ctx.Err() }

// Known is as that of nftnat.Kernel.
func (n *NAT) Known() bool { return true }

// Changed is as that of nftnat.Kernel.
func (n *NAT) Changed() <-chan struct{} { return n.changed }

// Programmed is as that of nftnat.Kernel: true also after a new start has taken the NAT over.
func (n *NAT) Programmed() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.programmed
}

// EntryAt is as that of nftnat.Kernel.
func (n *NAT) EntryAt(inside netip.Addr) (nat.Entry, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	c, ok := n.cells.At(inside)
	if !ok {
		return nat.Entry{}, false
	}
	return c.entry(inside, n.forwards.of[inside]), true
}

// EntriesFrom is as that of nftnat.Kernel.
func (n *NAT) EntriesFrom(_ context.Context, from netip.Addr, most int) (entries []nat.Entry, next netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for inside, c := range n.cells.From(from) {
		if len(entries) == most {
			return entries, inside
		}
		entries = append(entries, c.entry(inside, n.forwards.of[inside]))
	}
	return entries, netip.Addr{}
}

// Elements is as that of nftnat.Kernel.
func (n *NAT) Elements() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cells.Len()
}

// Apply is as that of nftnat.Kernel.
func (n *NAT) Apply(ctx context.Context, entries []nat.Entry) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := n.setLocked(entries); err != nil {
		return err
	}
	n.programmed = n.programmed || n.cells.Len() > 0
	return nil
}

// Tamper changes elements in the manner of other programs, for tests.
func (n *NAT) Tamper(entries ...nat.Entry) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.setLocked(entries); err != nil {
		return err
	}
	select {
	case n.changed <- struct{}{}:
	default:
	}
	return nil
}

// setLocked sets the cells of all entries, or of none if one of them is impossible.
func (n *NAT) setLocked(entries []nat.Entry) error {
	for _, e := range entries {
		if err := e.Check(); err != nil {
			return err
		}
		if e.Forwards != (nat.Forwards{}) && len(n.static) == 0 {
			return errors.New("memnat: an entry has mappings, but there are no ports for them")
		}
	}
	for _, e := range entries {
		n.unpinLocked(e)
		if e.Gate == nat.GateClosed {
			n.cells.Remove(e.Inside)
		} else {
			n.cells.Put(e.Inside, cell{e.Gate, e.Outside.As4(), e.First, e.Last})
		}
		n.forwards.set(e.Inside, e.Forwards)
	}
	return nil
}
