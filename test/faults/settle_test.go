package faults

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

const (
	restWithin      = 40 * time.Second
	slowRest        = 5 * time.Second // more than this shows that something waited for a comparison, or a busy machine
	reconcileEach   = 40              // snapshots
	reconnectWithin = 5 * time.Second // of sessiond to Redis
)

// settle waits until everything agrees with the model, and then checks the flows and that
// blocks were kept.
func (w *world) settle(ctx context.Context, broken []fault) error {
	w.crowded = has(broken, func(f fault) bool { return f.crowds })
	s, err := w.rest(ctx, broken)
	if err != nil {
		return err
	}
	w.rested = time.Now()
	if v := w.holds.violations(); len(v) > 0 {
		return errors.New(strings.Join(v, "\n"))
	}
	if err := errors.Join(w.keptBlocks(s), w.noLeaks(), w.settleFlows(ctx, s), w.refuses(ctx, s)); err != nil {
		return err
	}
	w.bound, w.waited = map[netip.Addr]bool{}, map[*line]*session{}
	for inside := range (&comparison{world: w, s: s}).live() {
		w.bound[inside] = true
	}
	for _, l := range w.model.lines {
		if l.online != nil && !w.bound[l.inside] {
			w.waited[l] = l.online
		}
	}
	if s.mostBlocks > 1 {
		w.report.several.Add(1)
	}
	return errors.Join(w.countDrops(ctx), w.exceedRate(ctx, s), w.openFlows(ctx, s))
}

// rest compares snapshots with the model until nothing differs.
func (w *world) rest(ctx context.Context, broken []fault) (*snapshot, error) {
	reconcile := has(broken, func(f fault) bool { return f.reconcile })
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, restWithin)
	defer cancel()
	var s *snapshot
	var last []string
	looks := 0
	err := w.Until(ctx, "everything to be at rest", func() (bool, error) {
		if reconcile && looks%reconcileEach == 0 {
			if err := w.reconcile(ctx, broken); err != nil {
				return false, err
			}
		}
		looks++
		w.report.looks.Add(1)
		var err error
		if s, err = w.look(ctx); err != nil {
			if ctx.Err() == nil { // else the differences before are the reason
				last = []string{err.Error()}
			}
			return false, nil
		}
		if bad := w.forbidden(s); len(bad) > 0 {
			return false, errors.New(strings.Join(bad, "\n"))
		}
		if differ := w.differences(s); len(differ) > 0 {
			last = differ
			return false, nil
		}
		if err := w.lookForeign(ctx, s); err != nil {
			return false, err
		}
		if differ := w.besides(s); len(differ) > 0 {
			last = differ
			return false, nil
		}
		return true, nil
	})
	if err != nil {
		return nil, fmt.Errorf("%w:\n  %s", err, strings.Join(last, "\n  "))
	}
	if took := time.Since(began); took > slowRest {
		w.logf("at rest only after %v; the last to come right was\n  %s", took.Round(time.Millisecond), strings.Join(last, "\n  "))
	}
	return s, nil
}

// reconcile requests a reconcile. After a fault of Redis, sessiond refuses it until it is
// connected again: after many failed dials the client library (go-redis v9.23.0) dials only
// once a second, and returns the error of the last dial meanwhile.
func (w *world) reconcile(ctx context.Context, broken []fault) error {
	redis := has(broken, func(f fault) bool { return f.area == inRedis })
	limited, cancel := context.WithTimeout(ctx, reconnectWithin)
	defer cancel()
	var last error
	err := w.Until(limited, "sessiond to reconcile", func() (bool, error) {
		_, last = w.Daemon.Ctl(ctx, "reconcile")
		if redis && last != nil && strings.Contains(last.Error(), "dial unix "+w.Redis.Socket) {
			return false, nil
		}
		return true, last
	})
	if err != nil && err != last { // the time is over
		return fmt.Errorf("%w: %w", err, last)
	}
	return err
}

// keptBlocks checks that subscribers who stayed online still have what was their first block. Of
// several blocks the kernel alone shows those with sessions.
func (w *world) keptBlocks(s *snapshot) error {
	c := &comparison{world: w, s: s}
	live := c.live()
	var errs []error
	for l, before := range w.blocks {
		now, ok := live[l.inside]
		if l.online != nil && l.online == w.holders[l] && (!ok || now.Outside != before.Outside || !slices.Contains(now.Blocks, before.Blocks[0]) && !(w.adopted && len(before.Blocks) > 1)) {
			errs = append(errs, fmt.Errorf("%s stayed online and had %v, has %v", l.inside, &before, now))
		}
	}
	w.blocks, w.holders = map[*line]binding{}, map[*line]*session{}
	for _, l := range w.model.lines {
		if b, ok := live[l.inside]; ok && l.online != nil {
			w.blocks[l], w.holders[l] = *b, l.online
		}
	}
	return errors.Join(errs...)
}

// end ends all sessions and checks that nothing is left of them.
func (w *world) end(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	w.left = 0
	if !w.model.removal {
		w.model.removal = true
		if _, err := w.Daemon.Ctl(ctx, "settings", "set", "subscriber_session_removal=on"); err != nil {
			return err
		}
	}
	if err := w.tick(ctx); err != nil {
		return err
	}
	var ops []op
	for _, l := range w.model.lines {
		if l.online != nil {
			ops = append(ops, op{kind: opStop, line: l, session: l.online})
			l.end()
		}
	}
	w.holds.takeReceipts()
	before := w.counts
	if err := w.start(ctx, ops).wait(); err != nil {
		return err
	}
	if err := errors.Join(w.settle(ctx, nil), w.countsRight(ops, before)); err != nil {
		return err
	}
	err := w.Until(ctx, "all blocks to be free", func() (bool, error) {
		s, err := w.look(ctx)
		return err == nil && len(s.bindings) == 0 && len(s.stored) == 0 && len(s.gates) == 0 && len(s.entries) == 0, err
	})
	return errors.Join(err, w.endMappings(ctx), w.removePool(ctx))
}
