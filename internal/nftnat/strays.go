package nftnat

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/sessiond/sessiond/internal/addrrange"
	"github.com/sessiond/sessiond/internal/conntrack"
	"github.com/sessiond/sessiond/internal/cpubarrier"
)

// strayEvery is the least time between two log lines about translation by others.
const strayEvery = time.Minute

// tellStrays logs that others translate flows of subscribers: the first chain of type nat with
// a matching rule decides on a new flow, and a chain at an earlier priority than ours takes
// the flows of all subscribers.
func (k *Kernel) tellStrays(ctx context.Context) error {
	var told time.Time
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-k.flows.Strays():
		}
		newest, count := k.flows.Strayed()
		if time.Since(told) < strayEvery || k.known.at(newest.Inside.As4()).outside == address(newest.Outside.As4()) {
			continue
		}
		told = time.Now()
		others, err := k.Translators(ctx)
		if err != nil {
			k.report(ctx, err)
		}
		k.log.Error("others translate subscribers' flows: their addresses and ports are not those of their bindings",
			"inside", newest.Inside, "seen_as", newest.Outside, "flows", count, "nat_chains_of_others", others,
			"do", "take inside addresses out of those rules, or set their priority behind srcnat")
	}
}

// Strays are flows of subscribers that others translated.
type Strays struct {
	Count  uint64          // since the start
	Newest conntrack.Stray // the zero value without any
}

// Strays counts the flows of subscribers that others translated.
func (k *Kernel) Strays() Strays {
	newest, count := k.flows.Strayed()
	return Strays{Count: count, Newest: newest}
}

// Translators lists the chains of others that may translate outgoing packets, in order of
// priority, as "table FAMILY NAME, chain NAME, priority N". Chains of iptables-legacy are not
// among them.
func (k *Kernel) Translators(context.Context) ([]string, error) {
	conn, err := nftables.New(nftables.WithNetNSFd(k.ns.FD()))
	if err != nil {
		return nil, fmt.Errorf("list nat chains: %w", err)
	}
	chains, err := conn.ListChains()
	if err != nil {
		return nil, fmt.Errorf("list nat chains: %w", err)
	}
	chains = slices.DeleteFunc(chains, func(c *nftables.Chain) bool {
		return c.Type != nftables.ChainTypeNAT || c.Hooknum == nil || *c.Hooknum != *nftables.ChainHookPostrouting || c.Priority == nil ||
			c.Table.Family == nftables.TableFamilyIPv4 && c.Table.Name == k.options.Table
	})
	slices.SortFunc(chains, func(a, b *nftables.Chain) int { return int(*a.Priority) - int(*b.Priority) })
	var list []string
	for _, c := range chains {
		family := "inet"
		switch c.Table.Family {
		case nftables.TableFamilyIPv4:
			family = "ip"
		case nftables.TableFamilyIPv6:
			continue
		}
		list = append(list, fmt.Sprintf("table %s %s, chain %s, priority %d", family, c.Table.Name, c.Name, *c.Priority))
	}
	return list, nil
}

// Flows that began while nothing translated.

// sweepWhenDue deletes, each time the table was put right, the conntrack entries that began
// while nothing translated. Where others use conntrack too, it confirms such a flow
// untranslated, and the flow would be dropped for as long as its ends try.
func (k *Kernel) sweepWhenDue(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-k.sweep:
			n, labels, err := k.sweepUntranslated(ctx)
			if n > 0 {
				k.log.Warn("conntrack entries that began while nothing translated were deleted", "entries", n)
			}
			if err == nil {
				err = k.relabel(ctx, labels)
			}
			k.report(ctx, err)
		}
	}
}

// askSweep makes a sweep due.
func (k *Kernel) askSweep() {
	select {
	case k.sweep <- struct{}{}:
	default: // due already
	}
}

// sweepUntranslated deletes the entries of flows between inside and outside, begun from either
// side, whose inside address is not translated, or was translated by others into an address of
// no pool. It returns their number, and the labels of all entries. It waits until packets in
// flight are through, then walks the conntrack table.
func (k *Kernel) sweepUntranslated(ctx context.Context) (deleted int, labels conntrack.Labels, err error) {
	if err := cpubarrier.Wait(ctx); err != nil {
		return 0, labels, err
	}
	local, err := k.routes.localAddresses()
	if err != nil {
		return 0, labels, err
	}
	if err := k.lock(ctx); err != nil {
		return 0, labels, err
	}
	outside := k.options.OutsidePrefixes // only replaced as a whole
	k.unlock()
	inside := *k.inside.Load()
	var found []conntrack.Entry
	err = k.flows.Dump(ctx, func(e conntrack.Entry) error {
		labels.Or(e.Labels)
		if untranslated(e, inside, outside, local) && !keepsAddress(e, *k.noNAT.Load()) {
			found = append(found, e)
		}
		return nil
	})
	for _, e := range found {
		if err != nil {
			break
		}
		err = k.flows.DeleteEntry(ctx, e)
		deleted++
	}
	return deleted, labels, err
}

// untranslated reports whether an entry belongs to a subscriber's flow that the table would
// not let begin, and that keeps the subscriber from beginning it anew. An entry whose other
// end is the machine itself, such as that of a redirected flow, is none.
func untranslated(e conntrack.Entry, inside, outside []netip.Prefix, local map[netip.Addr]bool) bool {
	incoming := addrrange.InOne(inside, e.Orig.Dst) && e.Reply.Src == e.Orig.Dst
	switch {
	case local[e.Orig.Src], local[e.Reply.Src]:
		return false
	case addrrange.InOne(inside, e.Orig.Src):
		return !addrrange.InOne(outside, e.Reply.Dst) && !addrrange.InOne(inside, e.Reply.Src)
	}
	return incoming
}
