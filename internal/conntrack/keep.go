package conntrack

import (
	"context"
	"fmt"
	"time"
)

// rebuildRetry is the pause after a rebuild that failed.
const rebuildRetry = time.Second

// keepIndex builds the index and keeps rebuilding it. Only the first build must
// succeed: later the kernel has answered before, so it is asked again.
func (t *Table) keepIndex(ctx context.Context) error {
	if err := t.rebuildIndex(ctx); err != nil {
		return fmt.Errorf("build conntrack index: %w", err)
	}
	close(t.ready)
	told := uint64(0)
	timer := time.NewTimer(t.audit)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.listener.stale:
		case <-timer.C:
		}
		if n := t.listener.overruns.Load(); n != told {
			t.log.Warn("conntrack: events were lost, the index is rebuilt", "overruns", n)
			told = n
		}
		began, wait := time.Now(), t.audit
		if err := t.rebuildIndex(ctx); err != nil && ctx.Err() == nil {
			t.log.Error("conntrack: rebuild of the index failed", "error", err)
			wait = rebuildRetry
		}
		timer.Reset(wait)
		if err := rest(ctx, time.Since(began)); err != nil {
			return err
		}
	}
}

// rebuildIndex compares the index with a dump and mends it.
func (t *Table) rebuildIndex(ctx context.Context) error {
	t.index.beginRebuild()
	err := t.pool.with(ctx, func(c *conn) error {
		return c.dump(func(flows []flow) error {
			t.index.listed(flows)
			return nil
		})
	})
	if err != nil {
		t.index.abandonRebuild()
		return err
	}
	t.index.finishRebuild()
	t.rebuilds.Add(1)
	return nil
}
