package nftnat

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/conntrack"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/nftnat/wire"
	"github.com/sessiond/sessiond/internal/nlmsg"
)

// SetLimits replaces the limits of all subscribers. Sessions that are open stay so, whatever
// the new limits are.
func (x *boundKeeper) SetLimits(ctx context.Context, list []nat.PrefixLimits) error {
	k := x.kernel
	if err := k.lock(ctx); err != nil {
		return err
	}
	defer k.unlock()
	o := k.options
	o.Limits = slices.Clone(list)
	if err := k.flows.SetBounds(boundsOf(list)); err != nil {
		return err
	}
	if err := k.configure(ctx, o); err != nil {
		return errors.Join(err, k.flows.SetBounds(boundsOf(k.options.Limits)))
	}
	k.limited.Store(limited(&o))
	if !k.counts() {
		return nil
	}
	return k.programFull(ctx, k.crowded())
}

// counts reports whether the index has counted the present entries.
func (x *boundKeeper) counts() bool {
	k := x.kernel
	select {
	case <-k.flows.Ready():
		return true
	default:
		return false
	}
}

// Refusals lists the subscribers that were refused new sessions since the last call, by limit. It
// is to be called every few seconds: refusals are known for refusedKept. The dump of 60,000
// takes 0.3 s, and programming does not wait for it.
func (x *boundKeeper) Refusals(ctx context.Context) (list []nat.Refusal, err error) {
	k := x.kernel
	if !k.limited.Load() {
		return nil, nil
	}
	x.refusals.Lock()
	defer x.refusals.Unlock()
	conn, err := wire.Dial(k.ns.FD()) // requests on one connection take turns
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	now := time.Now()
	since := min(now.Sub(x.refusalsRead), refusedKept) + refusalsMargin
	for l := range nat.LimitCount {
		err := expiringElements(ctx, conn, k.known.table, setRefused(l), func(attrs []byte) (wanted bool) {
			left := time.Duration(nlmsg.Uint64(nlmsg.Attr(attrs, unix.NFTA_SET_ELEM_EXPIRATION))) * time.Millisecond
			ago := refusedKept - left
			key := parseKey(attrs)
			if len(key) != addressLen || ago > since {
				return false
			}
			list = append(list, nat.Refusal{Inside: address(key).addr(), Limit: l})
			return ago+refusalsMargin >= time.Since(now) // later ones are in the next call's list, too
		})
		if err != nil && !errors.Is(err, unix.ENOENT) { // others deleted the table
			return nil, fmt.Errorf("read the subscribers at their limits: %w", err)
		}
	}
	x.refusalsRead = now
	return list, nil
}

// refusalsMargin is more than the kernel's clock of elements is wrong.
const refusalsMargin = 50 * time.Millisecond

// forgetLimits deletes the elements of addresses without sessions in the sets of limits.
func (x *boundKeeper) forgetLimits(ctx context.Context, reaped []address) error {
	k := x.kernel
	if err := k.lock(ctx); err != nil {
		return err
	}
	defer k.unlock()
	if k.removed {
		return nil
	}
	if full := k.crowded(); k.counts() && !full.equal(k.options.full) {
		if err := k.programFull(ctx, full); err != nil {
			return err
		}
	}
	sets := []string{setNewSessions}
	for l := range nat.LimitCount {
		sets = append(sets, setRefused(l))
	}
	keys := keysOf(reaped)
	for _, name := range sets {
		if err := deletePresent(ctx, k.conn, k.options.Table, name, keys, k.conn.Commit, func(int) {}); err != nil {
			return fmt.Errorf("forget the limits of %d addresses: %w", len(reaped), err)
		}
	}
	return nil
}

func boundsOf(list []nat.PrefixLimits) []conntrack.Bounds {
	bounds := make([]conntrack.Bounds, len(list))
	for i, l := range list {
		bounds[i] = conntrack.Bounds{
			Prefixes: l.Inside, Entries: l.Sessions, Scarce: l.SessionsWhile(true), TCPPorts: l.TCPPorts, UDPPorts: l.UDPPorts,
		}
	}
	return bounds
}

// keepMapped fills in the ports that have mappings, of subscribers at a limit of ports: those
// that were known before, and those of subscribers that have reached it.
func (x *boundKeeper) keepMapped(c *crowded, before *crowded) {
	k := x.kernel
	type user struct {
		inside   netip.Addr
		protocol uint8
	}
	known := make(map[user][]uint16)
	for _, p := range before.mapped {
		u := user{p.inside, p.protocol}
		known[u] = append(known[u], p.port)
	}
	for _, kind := range []struct {
		limit    nat.Limit
		protocol uint8
	}{{nat.LimitTCPPorts, unix.IPPROTO_TCP}, {nat.LimitUDPPorts, unix.IPPROTO_UDP}} {
		for _, inside := range c.limited[kind.limit] {
			ports, ok := known[user{inside, kind.protocol}]
			if !ok {
				ports = k.flows.Ports(inside, kind.protocol)
			}
			for _, port := range ports[:min(len(ports), mappedMost-len(c.mapped))] {
				c.mapped = append(c.mapped, mappedPort{inside, kind.protocol, port})
			}
		}
	}
}

// programFull programs the sets of the subscribers at a bound or limit: only the differences,
// since a flood goes on until then. If that fails, the whole table is put right.
func (x *boundKeeper) programFull(ctx context.Context, full crowded) error {
	k := x.kernel
	k.keepMapped(&full, &k.options.full)
	o := k.options
	o.full = full
	r := ruleset{table: o.Table}
	var b wire.Batch
	r.planMembers(fullSets(&k.options), fullSets(&o), &b)
	if b.Size() > k.conn.Limit() {
		return k.configure(ctx, o)
	}
	if err := k.conn.Commit(ctx, &b); err != nil {
		if !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("program the subscribers at their limits: %w", err)
		}
		return k.configure(ctx, o)
	}
	k.options = o
	return nil
}

// planMembers changes the members of the same sets.
func (r *ruleset) planMembers(before, after []set, b *wire.Batch) {
	for i, want := range after {
		have := before[i]
		gone := lacking(have.members, want.members)
		b.Elements(wire.DelElements, wire.Op{Verb: "delete element", Object: want.name}, r.table, want.name, len(gone),
			func(dst []byte, i int) []byte { return appendKey(dst, gone[i].key) })
		want.members = lacking(want.members, have.members)
		r.addMembers(want, b)
	}
}

// lacking returns the members of a list that another one has not.
func lacking(list, other []member) (rest []member) {
	if len(list) == 0 {
		return nil
	}
	known := make(map[string][]byte, len(other))
	for _, m := range other {
		known[string(m.key)] = m.state
	}
	for _, m := range list {
		if state, ok := known[string(m.key)]; !ok || !bytes.Equal(state, m.state) {
			rest = append(rest, m)
		}
	}
	return rest
}
