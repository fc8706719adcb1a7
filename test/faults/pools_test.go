package faults

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// secondPool comes to the default group, drains and goes, while the group is in use (NAT-27).
var secondPool = netip.MustParsePrefix("198.51.100.2/32")

type poolState string

const (
	poolAbsent   poolState = "absent"
	poolGiving   poolState = "giving blocks"
	poolDraining poolState = "draining"
)

// A poolChange is a command about the second pool.
type poolChange string

const (
	poolAdd    poolChange = "add"
	poolDrain  poolChange = "drain"
	poolRemove poolChange = "remove" // refused while there are live bindings
	poolCut    poolChange = "remove --allow-disruption"
)

// secondPoolState is what the model knows of the second pool.
type secondPoolState struct {
	state   poolState
	drained time.Time // when its drain was answered
}

// planPool draws a change of the second pool now and then; choosePool says which, when the
// round begins.
func (w *world) planPool() []op {
	if drawn := w.rng.IntN(300); drawn < 100 {
		return []op{{kind: opPool, drawn: drawn}}
	}
	return nil
}

// choosePool decides on the change, by the state of the pool. Before bindings are cut their
// flows are closed, and their subscribers are known to lose their blocks.
func (w *world) choosePool(ops []op) error {
	for i := range ops {
		o := &ops[i]
		if o.kind != opPool {
			continue
		}
		switch state := w.second.state; {
		case state == poolAbsent, state == poolDraining && o.drawn < 25:
			o.pool = poolAdd
		case state == poolGiving:
			o.pool = poolDrain
		case o.drawn < 60:
			o.pool = poolRemove
		default:
			o.pool = poolCut
		}
		w.note("pool %s %s", o.pool, secondPool)
		if o.pool == poolCut {
			return w.evict()
		}
	}
	return nil
}

// evict closes the flows of those with blocks of the second pool, and exempts them from the
// check that they keep these. The pool's mappings end.
func (w *world) evict() error {
	for _, m := range w.madeMappings() {
		if secondPool.Contains(m.outside.Addr()) {
			w.drop(m)
		}
	}
	gone := map[*line]bool{}
	for l, b := range w.blocks {
		if secondPool.Contains(b.Outside) {
			delete(w.blocks, l)
		}
	}
	for _, f := range w.flows {
		gone[f.line] = secondPool.Contains(f.block.Outside)
	}
	return w.dropFlows(gone)
}

// changePool carries the change out. A removal that was not answered may have been done.
func (b *burst) changePool(ctx context.Context, o op) error {
	args := append([]string{"pool"}, strings.Fields(string(o.pool))...)
	args = append(args, secondPool.String(), "--group", defaultGroup.name)
	if o.pool == poolRemove || o.pool == poolCut {
		args = append(args, "--yes")
	}
	refused := false
	err := b.insist(ctx, func(ctx context.Context) error {
		_, err := b.w.Daemon.Ctl(ctx, args...)
		switch {
		case err == nil:
		case o.pool == poolRemove && strings.Contains(err.Error(), "live bindings: "):
			refused = true
			return nil
		case (o.pool == poolRemove || o.pool == poolCut) && strings.Contains(err.Error(), "not found"):
			return nil
		}
		return err
	})
	switch {
	case err != nil:
		return err
	case refused:
		b.w.report.refusals.Add(1)
	case o.pool == poolAdd:
		b.w.second = secondPoolState{state: poolGiving}
	case o.pool == poolDrain:
		b.w.second = secondPoolState{state: poolDraining, drained: time.Now()}
	default:
		b.w.second = secondPoolState{state: poolAbsent}
	}
	return nil
}

// secondPool: it is listed, and drains, as was ordered. While it drains it gives nobody a
// block (NAT-27).
func (c *comparison) secondPool() {
	want := c.second.state
	have := poolAbsent
	for _, p := range c.s.pools {
		if p.Prefix != secondPool.String() {
			continue
		}
		switch {
		case !p.Draining:
			have = poolGiving
		case want == poolDraining || p.Used > 0: // else its last blocks are in their hold
			have = poolDraining
		}
	}
	if have != want {
		c.differ("pool %s is %s, want %s (NAT-27)", secondPool, have, want)
	}
	if want != poolDraining {
		return
	}
	for field, row := range c.s.stored {
		outside, _ := netip.ParseAddrPort(field)
		if secondPool.Contains(outside.Addr()) && !row.Held && row.Allocated.After(c.second.drained.Add(clocks)) {
			c.differ("pool %s drains since %v, and gave %s to %s at %v (NAT-27)", secondPool, c.second.drained, field, row.Inside, row.Allocated)
		}
	}
}

// poolsLost is called when sessiond starts with an empty database: it knows the pools of the
// configuration alone, and cuts the others' bindings.
func (w *world) poolsLost() error {
	if w.second.state == poolAbsent {
		return nil
	}
	w.second = secondPoolState{state: poolAbsent}
	return w.evict()
}

// removePool takes the second pool away at the end of the world, when it has no bindings.
func (w *world) removePool(ctx context.Context) error {
	if w.second.state == poolAbsent {
		return nil
	}
	if _, err := w.Daemon.Ctl(ctx, "pool", "remove", secondPool.String(), "--yes"); err != nil {
		return fmt.Errorf("without bindings: %w", err)
	}
	w.second = secondPoolState{state: poolAbsent}
	return w.Until(ctx, "the route of the removed pool to go", func() (bool, error) {
		var s snapshot
		err := errors.Join(w.lookForeign(ctx, &s))
		return !strings.Contains(s.routes, "blackhole "+secondPool.Addr().String()+" "), err
	})
}
