package session

import (
	"context"
	"log/slog"
	"net/netip"
	"time"

	"github.com/sessiond/sessiond/internal/clock"
	"github.com/sessiond/sessiond/internal/lifecycle"
	"github.com/sessiond/sessiond/internal/nat"
)

const (
	// reapTime is how long cut addresses gather under load. Their packets have
	// stopped; each proof costs a visit to all processors and several exchanges with
	// the kernel, for however many addresses.
	reapTime = 12 * time.Millisecond

	retryFirst = 50 * time.Millisecond
	retryMost  = time.Second
)

// retry calls try until it succeeds or ctx ends, waiting longer each time. It
// logs the first failure and the recovery.
func (m *Manager) retry(ctx context.Context, what string, try func(context.Context) error) error {
	return m.retryLogged(ctx, what, try, func(context.Context) slog.Level { return slog.LevelError })
}

// retryLogged is insist whose lines are of the level that is asked for after the first
// failure.
func (m *Manager) retryLogged(ctx context.Context, what string, try func(context.Context) error, severity func(context.Context) slog.Level) error {
	var level slog.Level
	for wait := retryFirst; ; wait = min(2*wait, retryMost) {
		err := try(ctx)
		if err == nil {
			if wait > retryFirst {
				m.log.Log(ctx, min(level, slog.LevelInfo), "works again", "what", what)
			}
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if wait == retryFirst {
			level = severity(ctx)
			m.log.Log(ctx, level, "failed, retrying", "what", what, "err", err)
		}
		if err := clock.Sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// runCuts closes and narrows gates, all that are waiting in one transaction.
// Cuts have an executor of their own, so that they never queue behind openings.
func (m *Manager) runCuts(ctx context.Context) error {
	return m.runApply(ctx, m.cuts, m.cutDone)
}

// runOpens opens gates.
func (m *Manager) runOpens(ctx context.Context) error {
	return m.runApply(ctx, m.opens, m.openDone)
}

func (m *Manager) runApply(ctx context.Context, q *queue[lifecycle.Work], done func([]lifecycle.Work)) error {
	var batch []lifecycle.Work
	var entries []nat.Entry
	for {
		var err error
		if batch, err = q.take(ctx, batch); err != nil {
			return err
		}
		err = m.retry(ctx, "program the kernel", func(ctx context.Context) error {
			entries = m.wanted(batch, entries[:0])
			return m.kernel.Apply(ctx, entries)
		})
		if err != nil {
			return err
		}
		done(batch)
	}
}

// wanted appends what the kernel should hold for each address of a batch, given the
// phase the slot is on its way to.
func (m *Manager) wanted(batch []lifecycle.Work, entries []nat.Entry) []nat.Entry {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for _, w := range batch {
		entries = append(entries, w.Slot.Wanted())
	}
	return entries
}

func (m *Manager) openDone(batch []lifecycle.Work) { m.done(batch, m.life.Programmed) }

func (m *Manager) cutDone(batch []lifecycle.Work) { m.done(batch, m.life.Closed) }

// done reports a batch that an executor is done with.
func (m *Manager) done(batch []lifecycle.Work, report func(*lifecycle.Slot, time.Time)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	for _, w := range batch {
		report(w.Slot, now)
	}
	m.settleLocked()
}

// runReaps deletes the conntrack entries of cut addresses, all that are waiting
// in one go, and takes the kernel's word that none is left. Addresses whose
// entries keep coming back must not hold up the others: runLingering has them.
func (m *Manager) runReaps(ctx context.Context) error {
	return m.reapAll(ctx, m.reaps, 0)
}

// runLingering tries again, now and then, to reap what runReaps could not.
func (m *Manager) runLingering(ctx context.Context) error {
	return m.reapAll(ctx, m.lingering, retryMost)
}

func (m *Manager) reapAll(ctx context.Context, q *queue[lifecycle.Work], after time.Duration) error {
	for batch := []lifecycle.Work(nil); ; {
		var err error
		if batch, err = q.take(ctx, batch); err != nil {
			return err
		}
		if err := clock.Sleep(ctx, after); err != nil {
			return err
		}
		inside := make([]netip.Addr, len(batch))
		for i, w := range batch {
			inside[i] = w.Inside
		}
		var receipts []nat.Reaped
		err = m.retry(ctx, "delete conntrack entries", func(ctx context.Context) error {
			var err error
			receipts, err = m.kernel.Reap(ctx, inside)
			return err
		})
		if err != nil {
			return err
		}
		m.lingering.push(m.reaped(batch, receipts)...)
		if len(batch) >= busyBatch {
			if err := clock.Sleep(ctx, reapTime); err != nil {
				return err
			}
		}
	}
}

// reaped ends the teardowns that have a receipt, and returns the others. The
// receipts are in the order of the batch.
func (m *Manager) reaped(batch []lifecycle.Work, receipts []nat.Reaped) (unproved []lifecycle.Work) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, w := range batch {
		if len(receipts) == 0 || receipts[0].Inside != w.Inside {
			unproved = append(unproved, w)
			continue
		}
		m.life.Reaped(w.Slot, &receipts[0], m.now())
		receipts = receipts[1:]
	}
	m.settleLocked()
	return unproved
}
