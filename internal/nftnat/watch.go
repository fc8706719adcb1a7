package nftnat

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sessiond/sessiond/internal/netns"
)

const (
	// watchInterval bounds the time until a deleted route is made anew, and until a failed
	// operation is tried again.
	watchInterval = time.Second

	// settleInterval is the time between two readings of the table without a notice.
	settleInterval = 30 * time.Second
)

// watch keeps the table and the routes as wanted until ctx ends.
func (k *Kernel) watch(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return k.listen(ctx) })
	g.Go(func() error { return k.tick(ctx) })
	g.Go(func() error { return k.sweepWhenDue(ctx) })
	g.Go(func() error { return k.quiet.run(ctx) })
	g.Go(func() error { return k.keepBound(ctx) })
	g.Go(func() error { return k.tellStrays(ctx) })
	g.Go(func() error {
		return k.barrier.Watch(ctx, func() error { return k.restoreBarrier(ctx) })
	})
	return g.Wait()
}

// listen puts the table right as soon as others touch it, such as by `nft flush ruleset` in a
// restart of the distribution's nftables service.
func (k *Kernel) listen(ctx context.Context) error {
	for {
		if err := k.notices.Wait(ctx); err != nil {
			return err
		}
		if err := k.lock(ctx); err != nil {
			return err
		}
		err := k.hear(ctx)
		k.unlock()
		k.report(ctx, err)
	}
}

func (k *Kernel) tick(ctx context.Context) error {
	ticker := time.NewTicker(watchInterval)
	defer ticker.Stop()
	settled := time.Now()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case now := <-ticker.C:
			due := now.Sub(settled) >= settleInterval
			if due {
				settled = now
			}
			if err := k.ns.Check(); errors.Is(err, netns.ErrReplaced) {
				return fmt.Errorf("%w: what is programmed is in the old one; start again to serve the new one", err)
			} else if due {
				k.report(ctx, err)
			}
			k.report(ctx, k.check(ctx, due))
			k.report(ctx, k.verify(ctx))
			k.report(ctx, k.fill.look(ctx))
		}
	}
}

func (k *Kernel) report(ctx context.Context, err error) {
	if err != nil && ctx.Err() == nil {
		k.log.Error("nftables table or routes cannot be put right", "table", k.options.Table, "error", err)
	}
}

// check restores missing routes, and puts the table right if that failed before; if
// whatever is set, in any case.
func (k *Kernel) check(ctx context.Context, whatever bool) error {
	if err := k.lock(ctx); err != nil {
		return err
	}
	defer k.unlock()
	if k.removed {
		return nil
	}
	if err := k.routes.restore(k.options.OutsidePrefixes); err != nil {
		return err
	}
	k.barrier.Restore()
	k.known.unsettled = k.known.unsettled || whatever
	return k.hear(ctx)
}

func (k *Kernel) restoreBarrier(ctx context.Context) error {
	if err := k.lock(ctx); err != nil {
		return err
	}
	defer k.unlock()
	if !k.removed {
		k.barrier.Restore()
	}
	return nil
}
