package session

import (
	"context"
	"log/slog"
	"net/netip"
	"time"

	"github.com/sessiond/sessiond/internal/clock"
	"github.com/sessiond/sessiond/internal/lifecycle"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/queue"
	"github.com/sessiond/sessiond/internal/subscriberdb"
)

// reapTime is how long cut addresses gather under load. Their packets have
// stopped already; each proof costs a visit to all processors and several
// exchanges with the kernel, for any number of addresses.
const reapTime = 12 * time.Millisecond

// batchMost bounds the batch of an executor. A start queues a million pieces of
// work; each needs memory, and is reported under the lock.
const batchMost = 16_384

// keepMost is the largest batch of writes, and the capacity that is kept for
// smaller ones.
const keepMost = 4096

// executorKernel programs entries and deletes conntrack entries.
type executorKernel interface {
	Apply(ctx context.Context, entries []nat.Entry) error
	Bypassed() bool                                  // whether packets of established sessions pass by the gates
	NoteBlocks(inside netip.Addr, blocks nat.Blocks) // for the next Reap of the address
	Reap(ctx context.Context, inside []netip.Addr) ([]nat.Reaped, error)
}

// bindingStore writes and removes stored bindings.
type bindingStore interface {
	SaveBindings(ctx context.Context, group string, put []nat.Binding, remove []nat.Place) error
	SaveLogged(ctx context.Context, group string, list []subscriberdb.LoggedWrite) (anew bool, err error)
}

// executors carry out the life cycle's effects in database and kernel, each
// kind of work from a queue of its own, and report the results.
type executors struct {
	*sharedState
	kernel executorKernel
	store  bindingStore
	health *databaseHealth
	leases *groupLeases
	natLog *natLogKeeper

	applied chan struct{} // gets a token when the kernel has a batch of entries

	saves     *queue.Queue[lifecycle.Write]
	opens     *queue.Queue[lifecycle.Work]
	cuts      *queue.Queue[lifecycle.Work]
	reaps     *queue.Queue[lifecycle.Work]
	lingering *queue.Queue[lifecycle.Work] // reaps whose conntrack entries keep coming back
}

func newExecutors(s *sharedState, kernel executorKernel, store bindingStore, h *databaseHealth, l *groupLeases, n *natLogKeeper) *executors {
	return &executors{
		sharedState: s, kernel: kernel, store: store, health: h, leases: l, natLog: n,
		saves: queue.New[lifecycle.Write](keepMost), opens: queue.New[lifecycle.Work](batchMost), cuts: queue.New[lifecycle.Work](batchMost),
		reaps: queue.New[lifecycle.Work](batchMost), lingering: queue.New[lifecycle.Work](batchMost),
	}
}

// tasks returns the executors' tasks; each runs until its context ends.
func (x *executors) tasks() []func(context.Context) error {
	return []func(context.Context) error{x.runSaves, x.runCuts, x.runOpens, x.runReaps, x.runLingering}
}

// Gates.

// runCuts closes and narrows gates, all queued ones in one transaction. Cuts
// have an executor of their own, so that they never wait behind openings.
func (x *executors) runCuts(ctx context.Context) error {
	return x.runApply(ctx, x.cuts, x.closed)
}

// closed reports a closed or narrowed gate, and whether packets pass by it.
func (x *executors) closed(s *lifecycle.Slot, now time.Time) {
	x.life.Closed(s, x.kernel.Bypassed(), now)
}

// runOpens opens gates.
func (x *executors) runOpens(ctx context.Context) error {
	return x.runApply(ctx, x.opens, x.life.Programmed)
}

func (x *executors) runApply(ctx context.Context, q *queue.Queue[lifecycle.Work], report func(*lifecycle.Slot, time.Time)) error {
	var batch []lifecycle.Work
	var entries []nat.Entry
	for {
		var err error
		if batch, err = q.Dequeue(ctx, batch); err != nil {
			return err
		}
		if entries, err = x.apply(ctx, batch, entries, report); err != nil {
			return err
		}
	}
}

// apply programs the entries that the kernel should hold for a batch of slots,
// given the phases that they are going to, and reports that to the life cycle.
// It reuses the memory of entries, and returns it.
func (x *executors) apply(ctx context.Context, batch []lifecycle.Work, entries []nat.Entry, report func(*lifecycle.Slot, time.Time)) ([]nat.Entry, error) {
	err := retry(ctx, x.log, "program the kernel", logErrors, func(ctx context.Context) error {
		entries = entries[:0]
		x.mu.RLock()
		for _, w := range batch {
			entries = append(entries, w.Slot.Wanted())
		}
		x.mu.RUnlock()
		return x.kernel.Apply(ctx, entries)
	})
	if err != nil {
		return entries, err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	now := x.now()
	for _, w := range batch {
		report(w.Slot, now)
	}
	x.settleLocked()
	signal(x.applied)
	return entries, nil
}

// Conntrack entries.

// runReaps deletes the conntrack entries of all queued cut addresses at once,
// with the kernel's proof that none is left. Addresses whose entries keep
// coming back must not delay others: they go to runLingering.
func (x *executors) runReaps(ctx context.Context) error {
	return x.reapAll(ctx, x.reaps, 0)
}

// runLingering retries, every retryMost, the reaps that runReaps could not
// prove.
func (x *executors) runLingering(ctx context.Context) error {
	return x.reapAll(ctx, x.lingering, retryMost)
}

func (x *executors) reapAll(ctx context.Context, q *queue.Queue[lifecycle.Work], after time.Duration) error {
	for batch := []lifecycle.Work(nil); ; {
		var err error
		if batch, err = q.Dequeue(ctx, batch); err != nil {
			return err
		}
		if err := clock.Sleep(ctx, after); err != nil {
			return err
		}
		inside := make([]netip.Addr, len(batch))
		x.mu.RLock()
		for i, w := range batch {
			inside[i] = w.Inside
			if b, ok := x.life.Engine().Live(w.Slot.Group(), w.Inside); ok {
				x.kernel.NoteBlocks(w.Inside, b.Blocks)
			}
		}
		x.mu.RUnlock()
		var proofs []nat.Reaped
		err = retry(ctx, x.log, "delete conntrack entries", logErrors, func(ctx context.Context) error {
			var err error
			proofs, err = x.kernel.Reap(ctx, inside)
			return err
		})
		if err != nil {
			return err
		}
		x.lingering.Push(x.reaped(batch, proofs)...)
		if len(batch) >= busyBatch {
			if err := clock.Sleep(ctx, reapTime); err != nil {
				return err
			}
		}
	}
}

// reaped ends the teardowns that are proved, and returns the others. The
// proofs are in the order of the batch.
func (x *executors) reaped(batch []lifecycle.Work, proofs []nat.Reaped) (unproved []lifecycle.Work) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, w := range batch {
		if len(proofs) == 0 || proofs[0].Inside != w.Inside {
			unproved = append(unproved, w)
			continue
		}
		x.life.Reaped(w.Slot, &proofs[0], x.now())
		proofs = proofs[1:]
	}
	x.settleLocked()
	return unproved
}

// Stored bindings.

// runSaves writes bindings to the database, many in one round trip.
func (x *executors) runSaves(ctx context.Context) error {
	byGroup := map[string]*writes{}
	for batch := []lifecycle.Write(nil); ; {
		var err error
		if batch, err = x.saves.Dequeue(ctx, batch); err != nil {
			return err
		}
		if err := x.save(ctx, batch, byGroup); err != nil {
			return err
		}
		if err := gatherMore(ctx, len(batch)); err != nil {
			return err
		}
	}
}

// save carries out a batch of writes, and reports them to the life cycle. It
// reuses the memory of byGroup.
func (x *executors) save(ctx context.Context, batch []lifecycle.Write, byGroup map[string]*writes) error {
	coalesce(batch, byGroup, x.natLog.logged)
	for name, w := range byGroup {
		if len(w.put)+len(w.remove)+len(w.logged) == 0 {
			continue
		}
		err := retry(ctx, x.log, "store bindings", x.health.Severity, func(ctx context.Context) error {
			if err := x.leases.Check(ctx, name); err != nil {
				return err
			}
			if !x.natLog.logged {
				return x.store.SaveBindings(ctx, name, w.put, w.remove)
			}
			anew, err := x.store.SaveLogged(ctx, name, w.logged)
			if anew {
				x.natLog.ask(name)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	now := x.now()
	for i := range batch {
		x.life.Stored(&batch[i], now)
	}
	x.settleLocked()
	return nil
}

// writes are the writes to the stored bindings of one group.
type writes struct {
	put    []nat.Binding
	remove []nat.Place
	logged []subscriberdb.LoggedWrite // in place of put and remove, where the NAT is logged
}

// coalesce replaces the writes of the previous batch, by group, by the last
// write of each place in this one. A logged write has the last time at which blocks left
// service.
func coalesce(batch []lifecycle.Write, byGroup map[string]*writes, logged bool) {
	for _, w := range byGroup {
		if cap(w.put) > max(keepMost, 4*len(w.put)) || cap(w.logged) > max(keepMost, 4*len(w.logged)) { // far more than was used
			*w = writes{}
		}
		clear(w.put)
		clear(w.logged)
		w.put, w.remove, w.logged = w.put[:0], w.remove[:0], w.logged[:0]
	}
	var last map[nat.Place]int // the index of the last write, for places with several
	for i := range batch {
		if s := &batch[i]; s.Again {
			if last == nil {
				last = map[nat.Place]int{}
			}
			last[s.Binding.Place()] = i
		}
	}
	for i := range batch {
		s := &batch[i]
		if last != nil {
			if n, ok := last[s.Binding.Place()]; ok && n != i {
				if final := &batch[n]; s.Left.After(final.Left) {
					final.Left = s.Left
				}
				continue
			}
		}
		w := byGroup[s.Binding.Group]
		if w == nil {
			w = &writes{}
			byGroup[s.Binding.Group] = w
		}
		switch {
		case logged:
			w.logged = append(w.logged, subscriberdb.LoggedWrite{Binding: &s.Binding, Remove: s.Remove, Holder: s.Holder, Left: s.Left, Known: s.Known})
		case s.Remove:
			w.remove = append(w.remove, s.Binding.Place())
		default:
			w.put = append(w.put, s.Binding)
		}
	}
}

// Repetition until success.

const (
	retryFirst = 50 * time.Millisecond
	retryMost  = time.Second
)

// retry calls try until it succeeds or ctx ends, with growing pauses from
// retryFirst to retryMost. It logs the first failure, with the level that
// severity returns after it, and the recovery.
func retry(ctx context.Context, log *slog.Logger, what string, severity func(context.Context) slog.Level, try func(context.Context) error) error {
	var level slog.Level
	for wait := retryFirst; ; wait = min(2*wait, retryMost) {
		err := try(ctx)
		if err == nil {
			if wait > retryFirst {
				log.Log(ctx, min(level, slog.LevelInfo), "works again", "task", what)
			}
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if wait == retryFirst {
			level = severity(ctx)
			log.Log(ctx, level, "failed, retrying", "task", what, "error", err)
		}
		if err := clock.Sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// logErrors is the severity of a failure with no other explanation.
func logErrors(context.Context) slog.Level { return slog.LevelError }
