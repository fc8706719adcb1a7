package conntrack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sessiond/sessiond/internal/cpubarrier"
)

// rebuildRetry is the pause after a rebuild that failed.
const rebuildRetry = time.Second

// keepIndex builds the index and keeps rebuilding it. Only a failure of the first build is
// returned: later failures are logged and retried, because the kernel has answered before.
func (t *Table) keepIndex(ctx context.Context) error {
	// A packet in flight may have begun an entry before the subscription, without an event.
	// The dump must not come before that entry is in the table.
	if err := cpubarrier.Wait(ctx); err != nil {
		return err
	}
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
		missed := t.index.errors().missed
		if n := t.listener.overruns.Load(); n != told {
			t.log.Warn("conntrack: events were lost, the index is rebuilt", "overruns", n)
			told = n
		}
		began, wait := time.Now(), t.audit
		if err := t.rebuildIndex(ctx); err != nil && ctx.Err() == nil {
			t.log.Error("conntrack: rebuild of the index failed", "error", err)
			wait = rebuildRetry
		}
		if n := t.index.errors().missed - missed; n > 0 {
			t.log.Error("conntrack: entries began without an event; removals are proved by table passes until an audit finds none", "entries", n)
		}
		timer.Reset(wait)
		if err := rest(ctx, time.Since(began)); err != nil {
			return err
		}
	}
}

// rebuildIndex compares the index with a dump and repairs it.
func (t *Table) rebuildIndex(ctx context.Context) error {
	t.learnOwn()
	t.index.beginRebuild()
	t.heedEvents()
	buckets := read(t.sysctls.buckets)
	err := t.pool.with(ctx, func(c *conn) error {
		return c.dump(func(flows []flow) error {
			t.index.listed(flows)
			return nil
		})
	})
	if err == nil {
		err = t.waitEventsApplied(ctx)
	}
	if err != nil {
		t.index.abandonRebuild()
		return err
	}
	if !bytes.Equal(buckets, read(t.sysctls.buckets)) {
		t.listener.garbled() // a dump misses entries while the kernel resizes its table
	}
	if !t.heedEvents() && !t.quiet.Load() {
		t.log.Warn("conntrack: nf_conntrack_events is 0 or cannot be read; sessions are counted by audits alone, and removals proved by table passes")
	}
	t.rebuilds.Add(1)
	return t.pool.with(ctx, func(c *conn) error { return t.index.finishRebuild(c.probe) })
}

// heedEvents makes the index incomplete until the next rebuild while the kernel does not
// send all events, and reports whether it does.
func (t *Table) heedEvents() (told bool) {
	if told = !t.quiet.Load() && t.sysctls.told(); !told {
		t.index.lost()
	}
	return told
}

// waitEventsApplied returns once the events of all dumped entries have been applied, or
// lost.
func (t *Table) waitEventsApplied(ctx context.Context) error {
	if err := cpubarrier.Wait(ctx); err != nil {
		return err
	}
	if err := t.listener.catchUp(ctx); err != nil && !errors.Is(err, errBehind) {
		return err
	}
	return nil
}
