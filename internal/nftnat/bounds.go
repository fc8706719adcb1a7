package nftnat

import (
	"context"
	"encoding/binary"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sessiond/sessiond/internal/conntrack"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/throttle"
)

// boundInterval is the time between two probes of the subscribers at a bound or limit: some of
// their sessions may have ended without an event, such as those that began while no daemon ran.
// A probe asks for about so many sessions at most, 0.3 s of work; the next one goes on behind it.
const (
	boundInterval = 10 * time.Second
	probedMost    = 65536
)

// boundKeeper keeps subscribers from opening more sessions than their bounds and limits. Its
// methods are the Kernel's, and take its turn as those do.
type boundKeeper struct {
	kernel  *Kernel
	limited atomic.Bool // there are limits, see limits.go

	// Of the holder of the turn.
	told   fullTold
	probed netip.Addr // the last one of the probe before; of keepBound

	refusals     sync.Mutex // one reading at a time; no lock is taken with it
	refusalsRead time.Time
}

// keepBound closes subscribers with more sessions than Options.MaxSessions to new ones of the
// kind, see crowded, and opens them when they have an eighth less. The index counts, and the
// kernel looks at a set for the first packet of a flow. Counting by source in nftables (ct
// count) would be exact, but walks the subscriber's entries for each new flow: with 1,000,
// 10,000 and 50,000 of them a flow took 1.3, 2.3 and 38 times as long (BenchmarkNewFlows).
func (x *boundKeeper) keepBound(ctx context.Context) error {
	k := x.kernel
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-k.flows.Ready(): // until then the sets of an earlier start hold
	}
	tick := time.NewTicker(boundInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-k.flows.Crowds():
		case <-tick.C:
			if err := k.flows.Probe(ctx, x.probeNext(k.crowded())); err != nil {
				k.report(ctx, err)
			}
		}
		k.report(ctx, k.closeFull(ctx))
	}
}

// crowded lists the subscribers at the bound, in order: by the sessions that they began, and
// by the sessions that others began through mappings. Each is closed to its own kind alone, so
// that outside hosts cannot keep a subscriber from opening sessions. It lists the subscribers at
// a limit of their groups as well.
type crowded struct {
	began, reached []netip.Addr
	near           []netip.Addr // of the limit of sessions
	limited        [nat.LimitCount][]netip.Addr
	mapped         []mappedPort // of those at a limit of ports
}

func (x *boundKeeper) crowded() (c crowded) {
	k := x.kernel
	c.began, c.reached = k.flows.Crowded()
	at := k.flows.AtBounds()
	c.near = at.Near
	c.limited[nat.LimitSessions], c.limited[nat.LimitTCPPorts], c.limited[nat.LimitUDPPorts] = at.Entries, at.TCPPorts, at.UDPPorts
	return c
}

// all lists the subscribers at a bound or limit, or near one, in order.
func (c *crowded) all() []netip.Addr {
	list := slices.Concat(c.began, c.reached, c.near)
	for _, more := range c.limited {
		list = append(list, more...)
	}
	slices.SortFunc(list, netip.Addr.Compare)
	return slices.Compact(list)
}

// probeNext returns the subscribers to probe: those behind the last ones, then from the first on.
func (x *boundKeeper) probeNext(full crowded) []netip.Addr {
	list := full.all()
	first, passed := slices.BinarySearchFunc(list, x.probed, netip.Addr.Compare)
	if passed {
		first++
	}
	list = slices.Concat(list[first:], list[:first])
	sessions := 0
	for i, inside := range list {
		if sessions += x.kernel.flows.Count(inside); sessions >= probedMost {
			list = list[:i+1]
			break
		}
	}
	if len(list) > 0 {
		x.probed = list[len(list)-1]
	}
	return list
}

// equal compares but for the mapped ports, which follow from the rest.
func (c crowded) equal(d crowded) bool {
	for l := range c.limited {
		if !slices.Equal(c.limited[l], d.limited[l]) {
			return false
		}
	}
	return slices.Equal(c.began, d.began) && slices.Equal(c.reached, d.reached) && slices.Equal(c.near, d.near)
}

// fullIn returns the subscribers at the bound or a limit as an earlier start left them.
func fullIn(s *actualRuleset) (c crowded) {
	of := func(name string) (list []netip.Addr) {
		for _, m := range s.sets[name].members {
			if len(m.key) == addressLen {
				list = append(list, address(m.key).addr())
			}
		}
		return list
	}
	c.began, c.reached, c.near = of(setFull), of(setFullMapped), of(setNear)
	for l := range nat.LimitCount {
		c.limited[l] = of(setAtLimit(l))
	}
	for _, m := range s.sets[setMappedPorts].members {
		if len(m.key) == mappedPortLen {
			c.mapped = append(c.mapped, mappedPort{address(m.key[:addressLen]).addr(), m.key[4], binary.BigEndian.Uint16(m.key[8:])})
		}
	}
	return c
}

// fullTold logs subscribers that came to the bound, and throttles the lines: a worm takes
// whole cities to it.
type fullTold struct {
	log            *slog.Logger
	limit          int
	began, reached throttle.Throttle
}

// closeFull programs the sets of the subscribers at the bound.
func (x *boundKeeper) closeFull(ctx context.Context) error {
	k := x.kernel
	full := k.crowded()
	if err := k.lock(ctx); err != nil {
		return err
	}
	defer k.unlock()
	if k.removed || full.equal(k.options.full) {
		return nil
	}
	before, told := k.options.full, &k.told
	told.limit = k.options.MaxSessions
	if err := k.programFull(ctx, full); err != nil {
		return err
	}
	told.tell(&told.began, full.began, before.began,
		"a subscriber has more sessions than nat.max_sessions_per_subscriber: it opens no new ones until it has an eighth less")
	told.tell(&told.reached, full.reached, before.reached,
		"a subscriber has more sessions through mappings than nat.max_sessions_per_subscriber, or than a 256th part of it while the conntrack table is nearly full: nobody opens new ones to it until it has an eighth less")
	return nil
}

// tell logs one subscriber that reached the bound, and the number of others since the last
// line.
func (f *fullTold) tell(thin *throttle.Throttle, now, before []netip.Addr, what string) {
	for _, inside := range now {
		if _, stands := slices.BinarySearchFunc(before, inside, netip.Addr.Compare); stands {
			continue
		}
		if suppressed, ok := thin.Allow(time.Now()); ok {
			f.log.Warn(what, "inside", inside, "limit", f.limit, "subscribers_at_limit", len(now), "suppressed", suppressed)
		}
	}
}

// The fill of the conntrack table.

// Fill is the fill of the namespace's conntrack table, and the number of subscribers that are
// kept from filling it.
type Fill struct {
	Entries, Limit int // of all addresses; a limit of 0 is unknown
	Full           int // subscribers that open no new sessions, because they have too many
}

// Fill returns the fill that Run reads once a second.
func (k *Kernel) Fill() Fill {
	f := Fill{Full: len(k.crowded().began)}
	if last := k.fill.last.Load(); last != nil {
		f.Entries, f.Limit = last.Entries, last.Limit
	}
	return f
}

// Shares of the conntrack table's limit, in percent: above the first two it is logged as
// filling, below the last as well again. In between subscribers have their reserves.
const fillWarning, fillAlarm, fillWell = 80, 95, 75

// fillWatch reads the fill of the conntrack table, and logs it near the limit: at the limit
// the kernel drops new flows of all subscribers, and reports that only in its own log.
type fillWatch struct {
	flows *conntrack.Table
	log   *slog.Logger
	last  atomic.Pointer[Fill] // without Full
	told  int                  // the share last logged
}

func (w *fillWatch) look(ctx context.Context) error {
	entries, limit, err := w.flows.Fill(ctx)
	if err != nil {
		return err
	}
	w.last.Store(&Fill{Entries: entries, Limit: limit})
	before := w.told
	if w.tell(ctx, entries, limit); w.told != before {
		w.flows.SetScarce(w.told > 0)
	}
	return nil
}

// tell logs each share once on the way up, and once when the table is well again.
func (w *fillWatch) tell(ctx context.Context, entries, limit int) {
	if limit == 0 {
		return
	}
	share, told := 100*entries/limit, w.told
	switch {
	case share >= fillAlarm:
		w.told = fillAlarm
	case share >= fillWarning:
		w.told = max(told, fillWarning)
	case share < fillWell:
		w.told = 0
	}
	if w.told == told {
		return
	}
	level, text := slog.LevelWarn, "the conntrack table fills: at its limit new flows of everybody are dropped; raise net.netfilter.nf_conntrack_max, and see who has the most (sessionctl session count)"
	switch w.told {
	case 0:
		level, text = slog.LevelInfo, "the conntrack table has room again"
	case fillAlarm:
		level = slog.LevelError
	}
	w.log.Log(ctx, level, text, "entries", entries, "limit", limit)
}
