package nftnat

import (
	"context"
	"slices"
	"time"
)

// boundInterval is how often the sessions of subscribers at the bound are asked for: some
// may have ended unannounced.
const boundInterval = 10 * time.Second

// keepBound closes those who have more sessions than Options.MaxSessions to new ones, and
// opens them when they have an eighth less. The index counts, and the kernel looks at a set
// for the first packet of a flow. That nftables counts by source itself (ct count) would be
// exact, but walks the subscriber's entries for each new flow: with 1,000, 10,000 and 50,000
// of them a flow took 1.3, 2.3 and 38 times as long (BenchmarkNewFlows).
func (k *Kernel) keepBound(ctx context.Context) error {
	tick := time.NewTicker(boundInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-k.flows.Crowds():
		case <-tick.C:
			if err := k.flows.Probe(ctx, k.flows.Crowded()); err != nil {
				k.report(ctx, err)
			}
		}
		k.report(ctx, k.closeFull(ctx))
	}
}

// closeFull makes the set that of the subscribers at the bound.
func (k *Kernel) closeFull(ctx context.Context) error {
	full := k.flows.Crowded()
	if err := k.take(ctx); err != nil {
		return err
	}
	defer k.give()
	if k.removed || slices.Equal(full, k.options.full) {
		return nil
	}
	before := k.options.full
	o := k.options
	o.full = full
	if err := k.configure(ctx, o); err != nil {
		return err
	}
	for _, inside := range full {
		if !slices.Contains(before, inside) {
			k.log.Warn("a subscriber has more sessions than nat.max_sessions_per_subscriber: it opens no new ones until it has an eighth less",
				"inside", inside, "sessions", k.flows.Count(inside), "limit", k.options.MaxSessions)
		}
	}
	return nil
}
