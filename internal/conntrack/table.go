package conntrack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/sessiond/sessiond/internal/addrrange"
	"github.com/sessiond/sessiond/internal/kmodule"
	"github.com/sessiond/sessiond/internal/netns"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// DefaultAudit is the default interval between comparisons of index and kernel.
const DefaultAudit = 10 * time.Minute

// Options configure a Table.
type Options struct {
	// NetNS is a name under /run/netns or a path; "" is the caller's own.
	NetNS string
	// Inside are the IPv4 prefixes whose entries are indexed. Required for the
	// index; deletes and dumps work for any address.
	Inside []netip.Prefix
	// Outside are the addresses with which flows of inside addresses leave, see Strays.
	// Without any, no flow is a stray.
	Outside []netip.Prefix
	// Audit is the interval between rebuilds of the index from a dump without a lost event;
	// 0 is DefaultAudit. Entries that began before the listener end without an event when
	// the sysctl nf_conntrack_events is 2 (the default since Linux 5.19; 1 makes the kernel
	// send one), and only an audit or Idlers finds out.
	Audit time.Duration
	// Bound is the number of entries of a kind above which Crowded lists an address; 0 for
	// no bound.
	Bound int
	// Own returns the machine's present own addresses, see Delete. nil: it has none.
	Own func() (map[netip.Addr]bool, error)
	// Logger takes reports of lost events; the default discards.
	Logger *slog.Logger

	eventBuffer int // for tests; 0 is the constant eventBuffer
}

// Table is the connection tracking table of one network namespace, with an
// index of the entries of inside addresses. Its methods may be used by many
// goroutines at once.
type Table struct {
	pool     pool
	sysctls  sysctls     // opened by Run
	quiet    atomic.Bool // see SetQuiet
	patience patience
	index    *index
	listener listener
	prover   *tableProver
	own      func() (map[netip.Addr]bool, error)
	audit    time.Duration
	log      *slog.Logger
	ready    chan struct{}
	idle     chan netip.Addr
	rebuilds counter
}

// Open opens sockets in the namespace, which need not track connections yet. The index
// stays empty until Run.
func Open(o Options) (*Table, error) {
	o = o.withDefaults()
	inside, err := rangesOf(o.Inside)
	if err != nil {
		return nil, err
	}
	outside, err := rangesOf(o.Outside)
	if err != nil {
		return nil, err
	}
	space, err := netns.Open(o.NetNS)
	if err != nil {
		return nil, err
	}
	receiver, err := newReceiver(space, o.eventBuffer)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open conntrack table: %w", err), space.Close())
	}
	t := &Table{
		pool:   pool{space: space},
		index:  newIndex(inside),
		prover: newTableProver(),
		audit:  o.Audit,
		own:    o.Own,
		log:    o.Logger,
		ready:  make(chan struct{}),
		idle:   make(chan netip.Addr),
	}
	wake := make(chan struct{}, 1)
	t.index.opened, t.index.reached = newCrowds(o.Bound, wake), newCrowds(o.Bound, wake)
	t.index.bounded = newBounded(wake)
	t.index.strays.outside = outside
	t.listener = listener{
		receiver: receiver, index: t.index, stale: make(chan struct{}, 1), markers: newMarkers(),
	}
	return t, nil
}

func (o Options) withDefaults() Options {
	if o.Audit <= 0 {
		o.Audit = DefaultAudit
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.eventBuffer == 0 {
		o.eventBuffer = eventBuffer
	}
	return o
}

// Close closes the sockets. Nothing in the kernel changes. Run and every other
// call must have returned.
func (t *Table) Close() error {
	t.sysctls.close()
	return errors.Join(t.listener.receiver.close(), t.pool.close())
}

// Run keeps the index: it subscribes to events, builds the index from a dump, and rebuilds
// it after lost events and for the audit. It returns nil once ctx is done and an error when
// the kernel refuses. It is called once.
func (t *Table) Run(ctx context.Context) error {
	if err := t.listener.receiver.join(); err != nil {
		return fmt.Errorf("subscribe to conntrack events: %w", err)
	}
	defer t.listener.receiver.leave()
	if err := t.readSysctls(ctx); err != nil {
		return err
	}
	group, tasks := errgroup.WithContext(ctx)
	group.Go(func() error { return t.listener.listen(tasks) })
	group.Go(func() error { return t.keepIndex(tasks) })
	group.Go(func() error { return t.index.serveIdle(tasks, t.idle) })
	if err := group.Wait(); ctx.Err() == nil {
		return err
	}
	return nil
}

// readSysctls opens the sysctl files. Its request makes the kernel load the modules that
// have them. Without the files it is unknown whether the kernel sends all events, and the
// index proves nothing.
func (t *Table) readSysctls(ctx context.Context) error {
	err := t.pool.with(ctx, func(c *conn) error {
		_, err := c.probe(make([]entryRef, 1))
		return err
	})
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) { // no subsystem handles the request
		return kmodule.Missing("nf_conntrack_netlink", fmt.Errorf("ask for a conntrack entry: %w", err))
	}
	if err != nil {
		return fmt.Errorf("ask for a conntrack entry: %w", err)
	}
	if t.sysctls, err = openSysctls(t.pool.space); err != nil {
		t.log.Warn("conntrack: removals are proved by table passes", "error", err)
	}
	return nil
}

// Ready is closed once the index has been built.
func (t *Table) Ready() <-chan struct{} { return t.ready }

// Idle sends inside addresses whose count fell to zero. It is a hint: check Count before
// acting on it. An address that never had an entry is not sent. Notifications wait, once
// for each address, until they are read, and while the index is incomplete.
func (t *Table) Idle() <-chan netip.Addr { return t.idle }

// SetInside replaces the inside prefixes and starts a rebuild. Counts of addresses in new
// prefixes are complete only after it. Prefixes that are not IPv4 are left out.
func (t *Table) SetInside(prefixes []netip.Prefix) {
	inside, err := rangesOf(prefixes)
	if err != nil {
		t.log.Error("conntrack: inside prefixes refused", "error", err)
		return
	}
	t.index.setInside(inside)
	t.listener.askRebuild()
}

// SetQuiet says whether nft rules suppress the events of new entries. The index proves
// nothing while they do, nor afterwards until it has been rebuilt.
func (t *Table) SetQuiet(quiet bool) {
	if t.quiet.Swap(quiet) == quiet {
		return
	}
	t.index.lost()
	t.listener.askRebuild()
}

// Complete reports whether the index has all entries that the kernel has told of. Without Run it
// has not.
func (t *Table) Complete() bool { return !t.quiet.Load() && t.index.covers(nil) }

// Count returns the number of entries that have inside in either tuple.
func (t *Table) Count(inside netip.Addr) int {
	addr, ok := fromAddr(inside)
	if !ok {
		return 0
	}
	return t.index.count(addr)
}

// Addresses lists the inside addresses that have an entry, in order.
func (t *Table) Addresses() []netip.Addr {
	numbers := t.index.addresses()
	slices.Sort(numbers)
	list := make([]netip.Addr, len(numbers))
	for i, a := range numbers {
		list[i] = addrrange.Address(a)
	}
	return list
}

// Total returns the number of entries that have any inside address.
func (t *Table) Total() int {
	flows, _ := t.index.totals()
	return flows
}

// Dump calls fn with every IPv4 entry of the namespace, from the kernel. It returns the
// first error of fn.
func (t *Table) Dump(ctx context.Context, fn func(Entry) error) error {
	return t.pool.with(ctx, func(c *conn) error {
		return c.dump(func(flows []flow) error {
			for i := range flows {
				if err := fn(flows[i].entry()); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

// Counted reports whether the kernel counts packets and octets of entries
// (net.netfilter.nf_conntrack_acct). Without it those of an Entry are 0.
func (t *Table) Counted() bool { return counted(t.pool.space) }

// Counts.

type counter = atomic.Uint64

// Stats are gauges, and counters since Open.
type Stats struct {
	Flows     int    // entries indexed
	Addresses int    // inside addresses that have entries
	Events    uint64 // begins and ends of entries, of any address
	Overruns  uint64 // times the kernel dropped events for want of buffer
	Rebuilds  uint64 // rebuilds of the index from a dump, the first included
	Missed    uint64 // entries that a complete index lacked, found by an audit
	Stale     uint64 // entries that it had although they had ended, found by an audit
	Passes    uint64 // table passes made to prove that deletes left nothing
}

// Stats returns the present numbers.
func (t *Table) Stats() Stats {
	flows, addresses := t.index.totals()
	wrong := t.index.errors()
	return Stats{
		Flows: flows, Addresses: addresses,
		Events:   t.listener.events.Load(),
		Overruns: t.listener.overruns.Load(),
		Rebuilds: t.rebuilds.Load(),
		Missed:   wrong.missed,
		Stale:    wrong.stale,
		Passes:   t.prover.passes.Load(),
	}
}
