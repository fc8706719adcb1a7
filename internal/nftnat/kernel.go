package nftnat

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync/atomic"

	"github.com/sessiond/sessiond/internal/addrrange"
	"github.com/sessiond/sessiond/internal/conntrack"
	"github.com/sessiond/sessiond/internal/kmodule"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/netns"
	"github.com/sessiond/sessiond/internal/nftnat/barrier"
	"github.com/sessiond/sessiond/internal/nftnat/wire"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Kernel is the NAT in the Linux kernel. Its methods may be called concurrently. Those that
// program the kernel take turns, as they do in the kernel; those that read sessions do not
// wait.
//
// It needs Linux 5.10 for user-data of chains, CAP_NET_ADMIN in the namespace,
// and CONFIG_NF_CONNTRACK_TIMEOUT.
type Kernel struct {
	log     *slog.Logger
	ns      netns.Namespace
	conn    *wire.Conn
	notices *wire.Listener
	routes  *blackholes
	barrier *barrier.Barrier
	shared  *defaultTimeouts
	SessionTable
	boundKeeper
	staticKeeper
	fastPath
	MappingTable
	pinKeeper
	known knownElements
	shortWayKeeper
	quiet quietWatch
	fill  fillWatch
	dropCounts
	noNAT atomic.Pointer[[]nat.NoNAT] // of the present ruleset

	// turn holds one token. Its holder may use the fields below, and change known. Exported
	// methods and check take it; all other methods expect their caller to hold it.
	turn chan struct{}

	options Options // of the present ruleset
	removed bool
	unused  bool // the table carries the mark of one that was never programmed

	programmed bool // an earlier start programmed the table

	learning atomic.Bool // Learn was called since the last second of the verification
}

// DialKernel opens all sockets that programming the kernel needs, and changes nothing in it: a
// program that cannot start for another reason leaves the table as it is. Call Start next,
// before any other method.
func DialKernel(o Options) (*Kernel, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	k := &Kernel{
		log: o.Logger, SessionTable: SessionTable{log: o.Logger}, options: o, turn: make(chan struct{}, 1),
		shortWayKeeper: shortWayKeeper{sweep: make(chan struct{}, 1), closing: newClosingSet()},
		known:          knownElements{table: o.Table, log: o.Logger, changed: make(chan struct{}, 1)},
		fill:           fillWatch{log: o.Logger}, quiet: quietWatch{rereader: newRereader(o.Logger)}, fastPath: fastPath{fast: newFlowtableWatch(o)},
		dropCounts: dropCounts{table: o.Table, last: map[nat.Drop]tally{}, lost: map[nat.Drop]tally{}, barriers: map[string]uint64{}},
	}
	k.known.settle = k.settle
	k.options.short.closing = k.closing
	k.MappingTable = MappingTable{known: &k.known, sessions: &k.SessionTable, fill: mappingWatch{log: o.Logger}}
	k.commit = func(ctx context.Context, b *wire.Batch) error {
		if err := k.lock(ctx); err != nil {
			return err
		}
		defer k.unlock()
		return k.conn.Commit(ctx, b)
	}
	k.boundKeeper.kernel, k.fastPath.kernel, k.told.log = k, k, o.Logger
	k.staticKeeper.kernel, k.shortWayKeeper.kernel = k, k
	k.pinKeeper = newPinKeeper(k)
	k.limited.Store(limited(&o))
	k.turn <- struct{}{}
	k.keepInside(o.InsidePrefixes)
	k.noNAT.Store(&o.NoNAT)
	if err := k.dial(); err != nil {
		return nil, errors.Join(forbidden(unanswered(err)), k.Close())
	}
	return k, nil
}

// Start makes the table, or adopts the present one: its elements stay, and its rules are
// replaced only if they differ from the wanted ones, in one transaction. It makes the
// blackhole routes and the barrier. It reads no elements: Learn and LearnRest do.
func (k *Kernel) Start(ctx context.Context) error {
	return forbidden(withoutFlowtables(unloaded(k.start(ctx))))
}

// forbidden returns an error with the missing capability where the kernel returns only
// EPERM.
func forbidden(err error) error {
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("not allowed to program the kernel (%w): run it as root, or give it CAP_NET_ADMIN, and CAP_SYS_ADMIN too if it is to work in another network namespace", err)
	}
	return err
}

func (k *Kernel) dial() (err error) {
	if k.ns, err = netns.Open(k.options.NetNS); err != nil {
		return err
	}
	if k.conn, err = wire.Dial(k.ns.FD()); err != nil {
		return err
	}
	k.known.ns, k.known.conn = k.ns, k.conn
	if k.notices, err = wire.Listen(k.ns.FD(), k.conn); err != nil {
		return err
	}
	if k.routes, err = openBlackholes(k.ns, k.log); err != nil {
		return err
	}
	if k.barrier, err = barrier.Open(k.ns, k.options.OutsideInterfaces, k.log); err != nil {
		return err
	}
	if k.shared, err = openDefaultTimeouts(k.ns, k.log); err != nil {
		return err
	}
	k.flows, err = conntrack.Open(conntrack.Options{
		NetNS: k.options.NetNS, Inside: k.options.InsidePrefixes, Outside: k.options.OutsidePrefixes, Bound: k.options.MaxSessions,
		Own: k.routes.localAddresses, Logger: k.log,
	})
	if err != nil {
		return err
	}
	k.quiet.ns, k.quiet.flows, k.fill.flows = k.ns, k.flows, k.flows
	k.fast.ns = k.ns
	k.dropCounts.conn, k.dropCounts.losses, k.dropCounts.barrier = k.conn, k.flows, k.barrier
	return k.flows.SetBounds(boundsOf(k.options.Limits))
}

func (k *Kernel) start(ctx context.Context) error {
	switch on, err := forwards(k.ns); {
	case err != nil:
		return err
	case !on:
		k.log.Warn("net.ipv4.ip_forward is off: nothing is forwarded until it is switched on")
	}
	warnOfSurroundings(&k.options, k.routes, k.flows, k.conn)
	k.quiet.start(ctx)
	k.fast.start(ctx)
	before, err := readActual(ctx, k.conn, k.options.Table)
	if errors.Is(err, unix.EINVAL) { // no kernel module serves nf_tables
		return kmodule.Missing("nf_tables", fmt.Errorf("read nftables table %s: %w", k.options.Table, err))
	}
	if err != nil {
		return err
	}
	k.options.full = fullIn(before)
	k.adoptShortWay(before)
	k.known.everInside = withAll(k.known.everInside, prefixesOf(before.sets[setInsidePrefixes].members))
	k.unused = !before.exists
	if err := k.keepActualPrefixes(before); err != nil {
		return err
	}
	if k.programmed, err = k.wasProgrammed(ctx, before); err != nil {
		return err
	}
	if err := errors.Join(setBarrier(k.barrier, k.options.InsidePrefixes, k.options.NoNAT), k.barrier.Retire(k.options.OutsideInterfaces...)); err != nil {
		return err
	}
	changed, err := k.convergeFrom(ctx, before)
	if k.lostDevice(err) {
		changed, err = k.converge(ctx)
	}
	if err != nil {
		return fmt.Errorf("set up nftables table %s: %w", k.options.Table, err)
	}
	if err := k.adopt(ctx); err != nil {
		return err
	}
	if changed || k.options.short.due() { // nothing translated until now, or other rules did
		k.askSweep()
	}
	return k.routes.set(k.options.OutsidePrefixes)
}

// wasProgrammed reports whether the present table has elements, or had any before.
func (k *Kernel) wasProgrammed(ctx context.Context, before *actualRuleset) (bool, error) {
	if !before.exists || !before.unused() {
		return before.exists, nil
	}
	elements, whole, err := k.known.dump(ctx, 1)
	return len(elements) > 0 || !whole, err
}

// keepActualPrefixes adds the prefixes that an earlier start left in the kernel, if they
// are to be kept: subscribers with sessions there must not lose them before it is known
// which prefixes are served.
func (k *Kernel) keepActualPrefixes(before *actualRuleset) error {
	if !k.options.KeepPrefixes {
		return nil
	}
	routes, err := k.routes.ours()
	if err != nil {
		return err
	}
	k.options.Mappings = k.options.Mappings.withActual(before, addrrange.Of(k.options.InsidePrefixes), addrrange.Of(k.options.OutsidePrefixes))
	k.options.keptStatic = prefixesOf(before.sets[setStaticOutside].members)
	k.options.OutsidePrefixes = withAll(k.options.OutsidePrefixes, routes)
	if err := k.flows.SetOutside(k.options.OutsidePrefixes); err != nil {
		return err
	}
	inside := withAll(k.options.InsidePrefixes, prefixesOf(before.sets[setInsidePrefixes].members))
	if slices.Equal(addrrange.Of(inside), addrrange.Of(k.options.InsidePrefixes)) {
		return nil
	}
	k.options.InsidePrefixes = inside
	k.keepInside(inside)
	k.flows.SetInside(inside)
	return nil
}

// Programmed reports whether the table had elements when it was opened, or at any time
// before: ports were in use, and may be in quarantine.
func (k *Kernel) Programmed() bool { return k.programmed }

// Run follows the conntrack events and puts the table right when others change its rules or
// delete it. It returns when ctx ends, with its error; when the events cannot be followed; or
// when the network namespace was replaced by another of its name.
func (k *Kernel) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return k.flows.Run(ctx) })
	g.Go(func() error { return k.watch(ctx) })
	return g.Wait()
}

// SetTimeouts changes the idle timeouts of flows that begin afterwards, in one
// transaction.
func (k *Kernel) SetTimeouts(ctx context.Context, t nat.Timeouts) error {
	if err := t.Check(); err != nil {
		return err
	}
	if err := k.lock(ctx); err != nil {
		return err
	}
	defer k.unlock()
	o := k.options
	o.Timeouts = t
	return k.configure(ctx, o)
}

// SetGroupTimeouts changes the idle timeouts of groups, for flows that begin afterwards, in one
// transaction. Their prefixes need not be inside prefixes.
func (k *Kernel) SetGroupTimeouts(ctx context.Context, groups []nat.GroupTimeouts) error {
	if err := nat.CheckGroups(groups); err != nil {
		return err
	}
	if err := k.lock(ctx); err != nil {
		return err
	}
	defer k.unlock()
	o := k.options
	o.GroupTimeouts = slices.Clone(groups)
	return k.configure(ctx, o)
}

// SetPrefixes changes the inside and outside prefixes, which flows are mapped by learned maps,
// and who may use the mappings, in one transaction. It leaves elements alone: close the gates of
// an inside prefix before giving it up, and use no block of an outside prefix that is to lose
// its blackhole route. Standing flows keep their ports. Where m names no prefix, all learned
// mappings are deleted.
func (k *Kernel) SetPrefixes(ctx context.Context, inside, outside []netip.Prefix, m Mappings) error {
	if err := errors.Join(CheckPrefixes(inside, outside), m.Check()); err != nil {
		return err
	}
	if err := k.lock(ctx); err != nil {
		return err
	}
	defer k.unlock()
	o := k.options
	same := slices.Equal(addrrange.Of(inside), addrrange.Of(o.InsidePrefixes))
	o.InsidePrefixes, o.OutsidePrefixes, o.Mappings = slices.Clone(inside), slices.Clone(outside), m
	if err := setBarrier(k.barrier, withAll(inside, k.options.InsidePrefixes), o.NoNAT); err != nil {
		return err
	}
	if err := k.configure(ctx, o); err != nil {
		return err
	}
	if err := setBarrier(k.barrier, inside, o.NoNAT); err != nil {
		return err
	}
	k.keepInside(inside)
	if err := k.flows.SetOutside(outside); err != nil {
		return err
	}
	if !same { // this builds the index of sessions anew
		k.flows.SetInside(inside)
	}
	return k.routes.set(outside)
}

// configure makes the table as o wants it. On error the table and the options stay as they
// were.
func (k *Kernel) configure(ctx context.Context, o Options) error {
	before := k.options
	k.options = o
	if _, err := k.converge(ctx); err != nil {
		k.options = before
		return fmt.Errorf("change nftables table %s: %w", o.Table, err)
	}
	return nil
}

// Close ends the connections to the kernel. Everything programmed stays and goes on working
// (I9).
func (k *Kernel) Close() error {
	var errs []error
	if k.flows != nil {
		errs = append(errs, k.flows.Close())
	}
	if k.routes != nil {
		k.routes.close()
	}
	if k.barrier != nil {
		errs = append(errs, k.barrier.Close())
	}
	if k.shared != nil {
		errs = append(errs, k.shared.close())
	}
	if k.notices != nil {
		errs = append(errs, k.notices.Close())
	}
	if k.conn != nil {
		errs = append(errs, k.conn.Close())
	}
	return errors.Join(append(errs, k.ns.Close())...)
}

// Remove deletes the table, the barrier and our routes, and nothing else (I8). The Kernel
// can only be closed after it.
func (k *Kernel) Remove(ctx context.Context) error {
	if err := k.lock(ctx); err != nil {
		return err
	}
	defer k.unlock()
	k.removed = true
	var b wire.Batch
	newRuleset(k.options).delTable(&b)
	if err := k.conn.Commit(ctx, &b); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	k.known.reset(true)
	return errors.Join(k.barrier.Retire(), k.routes.set(nil))
}

// lock waits for the turn to program the kernel; unlock ends it.
func (k *Kernel) lock(ctx context.Context) error {
	select {
	case <-k.turn:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (k *Kernel) unlock() { k.turn <- struct{}{} }

// RaiseBarrier installs the barrier that Kernel keeps, on each outside interface that has
// none, and changes nothing else in the kernel: packets with an inside source do not leave
// before there is a table, nor while sessiond waits for Redis. An existing barrier may
// cover more prefixes than the options have, and is kept. The error names the interfaces
// without a barrier.
func RaiseBarrier(o Options) error {
	if err := o.validate(); err != nil {
		return err
	}
	ns, err := netns.Open(o.NetNS)
	if err != nil {
		return err
	}
	return forbidden(errors.Join(barrier.Raise(ns, o.OutsideInterfaces, o.InsidePrefixes, o.Logger), ns.Close()))
}

// Barrier reports whether packets with an inside source are kept back on every existing
// outside interface, even without the table.
func (k *Kernel) Barrier() bool { return k.barrier.Stands() }

// Options.

// Options name the place and the initial settings of the NAT.
type Options struct {
	NetNS             string              // a name under /run/netns, a path, or "" for the process's own namespace
	Table             string              // required: name of the owned nftables table, family ip
	InsideInterfaces  []string            // required: towards the subscribers; names, or beginnings of names and "*"
	OutsideInterfaces []string            // required: towards the internet; exact names
	InsidePrefixes    []netip.Prefix      // required: the subscribers' addresses
	OutsidePrefixes   []netip.Prefix      // public pools; each gets a blackhole route
	KeepPrefixes      bool                // prefixes that an earlier start left in the kernel, and their mappings, stay until SetPrefixes; those of static ones until SetStatic
	Timeouts          nat.Timeouts        // required: whole seconds
	GroupTimeouts     []nat.GroupTimeouts // by group of subscribers, in the place of Timeouts
	MaxSessions       int                 // of one inside address; 0 for no bound
	Limits            []nat.PrefixLimits  // below MaxSessions; SetLimits changes them
	NoNAT             []nat.NoNAT         // sessions that keep their inside address
	OutsideToOthers   bool                // outside hosts may begin flows to networks that are neither inside nor outside
	Flowtables        FlowtableMode       // which flowtables may carry flows of subscribers
	Mappings          Mappings            // none: conntrack alone chooses ports
	Static            []StaticPorts       // none: entries have no mappings
	PCP               PCP                 // whose requests of PCP reach the machine
	MaxUngated        int                 // new flows a second to the machine itself, of all inside addresses without an open gate, and of all hosts outside; 0 for no bound
	Logger            *slog.Logger        // required

	full       crowded        // subscribers with more than MaxSessions, or at a limit
	short      shortWay       // of packets of established flows
	devices    []string       // of our flowtable: the present inside and outside interfaces, sorted
	keptStatic []netip.Prefix // outside prefixes of mappings that an earlier start left, until SetStatic
}

func (o Options) validate() error {
	switch {
	case o.Table == "":
		return errors.New("nftnat: Options.Table is empty")
	case len(o.InsideInterfaces) == 0:
		return errors.New("nftnat: Options.InsideInterfaces is empty")
	case len(o.OutsideInterfaces) == 0:
		return errors.New("nftnat: Options.OutsideInterfaces is empty")
	case o.Logger == nil:
		return errors.New("nftnat: Options.Logger is nil")
	}
	if err := validateInterfaces(o.InsideInterfaces, o.OutsideInterfaces); err != nil {
		return err
	}
	if err := errors.Join(CheckPrefixes(o.InsidePrefixes, o.OutsidePrefixes), o.Mappings.Check()); err != nil {
		return err
	}
	return errors.Join(o.Timeouts.Check(), nat.CheckGroups(o.GroupTimeouts), checkNoNAT(o.NoNAT), CheckStatic(o.Static), CheckPCP(&o.PCP))
}

// maxInterfaceName is IFNAMSIZ less the terminating zero.
const maxInterfaceName = 15

func validateInterfaces(lists ...[]string) error {
	seen := make(map[string]bool)
	for _, list := range lists {
		for _, name := range list {
			switch {
			case name == "" || name == anySuffix || len(name) > maxInterfaceName:
				return fmt.Errorf("nftnat: interface name %q is not 1 to %d bytes long", name, maxInterfaceName)
			case seen[name]:
				return fmt.Errorf("nftnat: interface %q is listed twice", name)
			}
			seen[name] = true
		}
	}
	return nil
}

// CheckPrefixes returns an error if there is no inside prefix, or if a prefix is not IPv4.
func CheckPrefixes(inside, outside []netip.Prefix) error {
	if len(inside) == 0 {
		return errors.New("nftnat: InsidePrefixes is empty")
	}
	for _, p := range slices.Concat(inside, outside) {
		if !p.IsValid() || !p.Addr().Is4() {
			return fmt.Errorf("nftnat: prefix %v is not IPv4", p)
		}
	}
	return nil
}
