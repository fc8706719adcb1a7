package conntrack

import (
	"context"
	"fmt"
	"math"
	"net/netip"
	"slices"
)

// Probe asks the kernel for the known entries of the addresses and forgets those
// that are gone. The kernel also drops entries that have timed out, which it
// would otherwise do, and tell, up to a minute later. For addresses that wait
// for their last entry; the cost is that of their entries alone.
func (t *Table) Probe(ctx context.Context, inside []netip.Addr) error {
	set, err := newAsked(inside)
	if err != nil {
		return err
	}
	return t.pool.with(ctx, func(c *conn) error {
		for addr := range set {
			gone, err := c.probe(t.index.collect(nil, addr, math.MaxInt))
			t.index.forget(gone)
			if err != nil {
				return fmt.Errorf("probe conntrack entries of %v: %w", toAddr(addr), err)
			}
		}
		return nil
	})
}

// Entries calls fn, once each, with the entries that have one of the addresses in
// either tuple, from the kernel: at the cost of those alone when the index is complete,
// else at that of a dump. An error of fn ends it and is returned.
func (t *Table) Entries(ctx context.Context, inside []netip.Addr, fn func(Entry) error) error {
	set, err := newAsked(inside)
	if err != nil {
		return err
	}
	found, err := t.known(ctx, set)
	if err != nil {
		return t.dumpOf(ctx, set, fn)
	}
	found = once(found)
	return t.pool.with(ctx, func(c *conn) error {
		return c.get(found, func(f *flow) error { return fn(f.entry()) })
	})
}

// known returns the entries of addresses as far as the kernel has told, or
// errUnproved when the index cannot tell.
func (t *Table) known(ctx context.Context, addrs asked) (found []target, err error) {
	if err := t.consult(ctx, addrs); err != nil {
		return nil, err
	}
	for addr := range addrs {
		found = t.index.collect(found, addr, math.MaxInt)
	}
	return found, nil
}

// once leaves out what was found under another of its addresses already.
func once(found []target) []target {
	seen := map[key]struct{}{}
	return slices.DeleteFunc(found, func(x target) bool {
		if x.owners.n < 2 {
			return false
		}
		_, again := seen[x.key]
		seen[x.key] = struct{}{}
		return again
	})
}

func (t *Table) dumpOf(ctx context.Context, addrs asked, fn func(Entry) error) error {
	return t.pool.with(ctx, func(c *conn) error {
		return c.dump(func(flows []flow) error {
			for i := range flows {
				if o := flows[i].owners(addrs); o.n == 0 {
					continue
				}
				if err := fn(flows[i].entry()); err != nil {
					return err
				}
			}
			return nil
		})
	})
}
