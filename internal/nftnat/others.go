package nftnat

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/sessiond/sessiond/internal/conntrack"
)

// strayEvery is how often it is told, at most, that others translate subscribers' flows.
const strayEvery = time.Minute

// tellStrays says when flows of subscribers are translated by others: the first chain of
// type nat that has a word on a new flow decides, and one at an earlier priority than ours
// takes everybody's.
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
	Count  uint64          // of those that began so far
	Newest conntrack.Stray // the zero value without any
}

// Strays tells of the flows of subscribers that others translated.
func (k *Kernel) Strays() Strays {
	newest, count := k.flows.Strayed()
	return Strays{Count: count, Newest: newest}
}

// Translators lists the chains of others that may translate what leaves, by order of their
// priority, as "table FAMILY NAME, chain NAME, priority N". Those of iptables-legacy are not
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
