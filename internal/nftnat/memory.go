package nftnat

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/sessiond/sessiond/internal/conntrack"
	"github.com/sessiond/sessiond/internal/nat"
)

// Memory is the twin of Kernel that keeps everything in memory: for tests, and
// for trying out sessiond where there is no kernel to program. Traffic is
// simulated by Send and Receive. Its methods may be called concurrently.
type Memory struct {
	mu       sync.Mutex
	inside   []netip.Prefix
	timeouts nat.Timeouts
	cells    shadow
	flows    map[conntrack.Tuple]conntrack.Entry // by original tuple
	lastID   uint32

	ready   chan struct{}
	running sync.Once
	idle    chan netip.Addr
	ended   map[netip.Addr]bool // idle addresses not yet sent
	wake    chan struct{}       // signalled when ended got one
	changed chan struct{}

	programmed bool // it has or had elements
}

// NewMemory returns a Memory without elements or sessions. It needs neither
// interfaces nor a table.
func NewMemory(o Options) (*Memory, error) {
	if err := o.validateMemory(); err != nil {
		return nil, err
	}
	return &Memory{
		inside:   slices.Clone(o.InsidePrefixes),
		timeouts: o.Timeouts,
		flows:    make(map[conntrack.Tuple]conntrack.Entry),
		ready:    make(chan struct{}),
		idle:     make(chan netip.Addr),
		ended:    make(map[netip.Addr]bool),
		wake:     make(chan struct{}, 1),
		changed:  make(chan struct{}, 1),
	}, nil
}

// Run sends idle addresses until ctx ends.
func (m *Memory) Run(ctx context.Context) error {
	m.running.Do(func() { close(m.ready) })
	for {
		if a, ok := m.nextIdle(); ok {
			select {
			case m.idle <- a:
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		select {
		case <-m.wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (m *Memory) nextIdle() (netip.Addr, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for a := range m.ended {
		delete(m.ended, a)
		if m.countLocked(a) == 0 {
			return a, true
		}
	}
	return netip.Addr{}, false
}

// Learn is like Kernel.Learn. The twin always has the present elements.
func (m *Memory) Learn(ctx context.Context, _ []netip.Addr) error { return ctx.Err() }

// LearnRest is as that of Kernel.
func (m *Memory) LearnRest(ctx context.Context) error { return ctx.Err() }

// EntryAt is as that of Kernel.
func (m *Memory) EntryAt(inside netip.Addr) (nat.Entry, bool) { return m.cells.entryAt(inside) }

// EntriesFrom is as that of Kernel.
func (m *Memory) EntriesFrom(_ context.Context, from netip.Addr, n int) (entries []nat.Entry, next netip.Addr) {
	return m.cells.entriesFrom(from, n)
}

// Known is as that of Kernel.
func (m *Memory) Known() bool { return true }

// Elements is as that of Kernel.
func (m *Memory) Elements() int { return m.cells.len() }

// Changed is as that of Kernel.
func (m *Memory) Changed() <-chan struct{} { return m.changed }

// Tamper changes elements in the manner of other programs, for tests.
func (m *Memory) Tamper(entries ...nat.Entry) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	changes, err := m.cells.diff(entries)
	if err != nil {
		return err
	}
	m.cells.apply(changes)
	select {
	case m.changed <- struct{}{}:
	default:
	}
	return nil
}

// Programmed is as that of Kernel: true also after a new start has taken the Memory over.
func (m *Memory) Programmed() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.programmed
}

// Apply is as that of Kernel.
func (m *Memory) Apply(ctx context.Context, entries []nat.Entry) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	changes, err := m.cells.diff(entries)
	if err != nil {
		return err
	}
	m.cells.apply(changes)
	m.programmed = m.programmed || len(changes) > 0
	return nil
}

// Reap is as that of Kernel.
func (m *Memory) Reap(ctx context.Context, inside []netip.Addr) ([]nat.Reaped, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	receipts := make([]nat.Reaped, 0, len(inside))
	for _, a := range inside {
		deleted := 0
		for t, e := range m.flows {
			if names(e, a) {
				m.endLocked(t)
				deleted++
			}
		}
		receipts = append(receipts, nat.Reaped{Inside: a, Deleted: deleted, Proof: nat.ProofIndex, At: time.Now()})
	}
	return receipts, nil
}

// Idlers is as that of Kernel: the twin ends its sessions at once.
func (m *Memory) Idlers(ctx context.Context, inside []netip.Addr) (none []netip.Addr, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, a := range inside {
		if m.countLocked(a) == 0 {
			none = append(none, a)
		}
	}
	return none, ctx.Err()
}

// Sessions is as that of Kernel; it yields in the order the sessions began.
func (m *Memory) Sessions(ctx context.Context, yield func(Session) error) error {
	entries, inside := m.snapshot()
	for _, e := range entries {
		if err := yieldSessions(e, inside, yield); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// SessionsOf is as that of Kernel.
func (m *Memory) SessionsOf(ctx context.Context, inside netip.Prefix, yield func(Session) error) error {
	return m.Sessions(ctx, func(s Session) error {
		if !inside.Contains(s.Inside.Addr()) {
			return nil
		}
		return yield(s)
	})
}

func (m *Memory) snapshot() ([]conntrack.Entry, []netip.Prefix) {
	m.mu.Lock()
	defer m.mu.Unlock()
	entries := make([]conntrack.Entry, 0, len(m.flows))
	for _, e := range m.flows {
		entries = append(entries, e)
	}
	slices.SortFunc(entries, func(a, b conntrack.Entry) int { return cmp.Compare(a.ID, b.ID) })
	return entries, m.inside
}

// SessionCount is as that of Kernel.
func (m *Memory) SessionCount(inside netip.Addr) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.countLocked(inside)
}

func (m *Memory) countLocked(inside netip.Addr) int {
	n := 0
	for _, e := range m.flows {
		if names(e, inside) {
			n++
		}
	}
	return n
}

// SessionTotal is as that of Kernel.
func (m *Memory) SessionTotal() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.flows)
}

// IndexStats is as that of Kernel: the twin needs no index.
func (m *Memory) IndexStats() IndexStats { return IndexStats{} }

// Barrier is as that of Kernel: nothing leaves the twin.
func (m *Memory) Barrier() bool { return true }

// Translators is as that of Kernel: there are no others.
func (m *Memory) Translators(context.Context) ([]string, error) { return nil, nil }

// Strays is as that of Kernel: there are none.
func (m *Memory) Strays() Strays { return Strays{} }

// Fill is as that of Kernel: the twin has no limits.
func (m *Memory) Fill() Fill { return Fill{Entries: m.SessionTotal()} }

// Idle is as that of Kernel.
func (m *Memory) Idle() <-chan netip.Addr { return m.idle }

// Ready is as that of Kernel.
func (m *Memory) Ready() <-chan struct{} { return m.ready }

// KillSession is as that of Kernel.
func (m *Memory) KillSession(ctx context.Context, s Session) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e, ok := m.flows[s.entry.Orig]; ok && e.ID == s.entry.ID {
		m.endLocked(s.entry.Orig)
	}
	return ctx.Err()
}

// SetTimeouts is as that of Kernel.
func (m *Memory) SetTimeouts(ctx context.Context, t nat.Timeouts) error {
	if err := checkTimeouts(t); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.timeouts = t
	return ctx.Err()
}

// SetPrefixes is as that of Kernel.
func (m *Memory) SetPrefixes(ctx context.Context, inside, outside []netip.Prefix) error {
	if len(inside) == 0 {
		return errors.New("nftnat: no inside prefixes")
	}
	if err := validatePrefixes(inside, outside); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.inside = slices.Clone(inside)
	return ctx.Err()
}

// Close does nothing: the twin has no resources to release.
func (m *Memory) Close() error { return nil }
