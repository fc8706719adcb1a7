package session

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/lsn"
	"github.com/sessiond/sessiond/internal/nftnat"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb"
)

// save is one write to the stored bindings.
type save struct {
	binding lsn.Binding
	remove  bool       // the block is free again
	slot    netip.Addr // who waits for the write; zero when nobody does
}

const (
	retryFirst = 50 * time.Millisecond
	retryMost  = 2 * time.Second
)

// insist calls try until it succeeds or ctx ends, waiting longer each time. It
// logs the first failure and the recovery.
func (m *Manager) insist(ctx context.Context, what string, try func(context.Context) error) error {
	for wait := retryFirst; ; wait = min(2*wait, retryMost) {
		err := try(ctx)
		if err == nil {
			if wait > retryFirst {
				m.log.Info("works again", "what", what)
			}
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if wait == retryFirst {
			m.log.Error("failed, retrying", "what", what, "err", err)
		}
		if err := pause(ctx, wait); err != nil {
			return err
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// runSaves writes bindings to the database, many in one round trip.
func (m *Manager) runSaves(ctx context.Context) error {
	for {
		batch, err := m.saves.take(ctx)
		if err != nil {
			return err
		}
		for name, w := range coalesce(batch) {
			err := m.insist(ctx, "store bindings", func(ctx context.Context) error {
				return m.store.SaveBindings(ctx, name, w.put, w.remove)
			})
			if err != nil {
				return err
			}
		}
		m.saved(batch)
		if err := m.gatherMore(ctx, len(batch)); err != nil {
			return err
		}
	}
}

type writes struct {
	put    []subscriberdb.Binding
	remove []subscriberdb.Block
}

// coalesce keeps the last write of each block, by group.
func coalesce(batch []save) map[string]*writes {
	last := make(map[lsn.Block]int, len(batch))
	for i, s := range batch {
		last[s.binding.Block] = i
	}
	byGroup := map[string]*writes{}
	for i, s := range batch {
		if last[s.binding.Block] != i {
			continue
		}
		w := byGroup[s.binding.Group]
		if w == nil {
			w = &writes{}
			byGroup[s.binding.Group] = w
		}
		if s.remove {
			w.remove = append(w.remove, subscriberdb.Block{Outside: s.binding.Outside, First: uint16(s.binding.First)})
		} else {
			w.put = append(w.put, storedBinding(s.binding))
		}
	}
	return byGroup
}

func (m *Manager) saved(batch []save) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, b := range batch {
		if m.unsaved[b.binding.Block]--; m.unsaved[b.binding.Block] == 0 {
			delete(m.unsaved, b.binding.Block)
		}
		m.touchLocked(subscriber.Key{Group: b.binding.Group, Inside: b.binding.Inside})
		if s := m.slots[b.slot]; s != nil && b.slot.IsValid() {
			m.restLocked(s)
			m.stepLocked(s)
		}
	}
	m.settleLocked()
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

func (m *Manager) runApply(ctx context.Context, q *queue[netip.Addr], done func([]netip.Addr)) error {
	for {
		batch, err := q.take(ctx)
		if err != nil {
			return err
		}
		err = m.insist(ctx, "program the kernel", func(ctx context.Context) error {
			return m.kernel.Apply(ctx, m.wanted(batch))
		})
		if err != nil {
			return err
		}
		done(batch)
	}
}

// wanted is what the kernel should hold for each address of a batch, given the
// phase the slot is on its way to.
func (m *Manager) wanted(batch []netip.Addr) []nftnat.Entry {
	m.mu.RLock()
	defer m.mu.RUnlock()
	entries := make([]nftnat.Entry, 0, len(batch))
	for _, inside := range batch {
		s := m.slots[inside]
		if s == nil {
			entries = append(entries, nftnat.Entry{Inside: inside})
			continue
		}
		if s.awaited() {
			entries = append(entries, s.entry(nftnat.Open))
			continue
		}
		entries = append(entries, s.expected())
	}
	return entries
}

func (m *Manager) openDone(batch []netip.Addr) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, inside := range batch {
		s := m.slots[inside]
		if s == nil {
			continue
		}
		if s.awaited() {
			m.enterLocked(s, open)
			m.publishLocked(inspect.EventBound, s)
		}
		m.restLocked(s)
		m.stepLocked(s)
	}
	m.settleLocked()
}

func (m *Manager) cutDone(batch []netip.Addr) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	for _, inside := range batch {
		s := m.slots[inside]
		if s == nil {
			continue
		}
		switch s.phase {
		case cut:
			if s.over != nil {
				m.observer.StopToCut(now.Sub(s.over.at))
			}
			m.receiptCutLocked(s, now)
			m.publishLocked(inspect.EventCut, s)
		case draining:
			m.drainsLocked(s)
		}
		m.restLocked(s)
		m.stepLocked(s)
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

func (m *Manager) reapAll(ctx context.Context, q *queue[netip.Addr], after time.Duration) error {
	for {
		batch, err := q.take(ctx)
		if err != nil {
			return err
		}
		if err := pause(ctx, after); err != nil {
			return err
		}
		var receipts []nftnat.Receipt
		err = m.insist(ctx, "delete conntrack entries", func(ctx context.Context) error {
			var err error
			receipts, err = m.kernel.Reap(ctx, batch)
			return err
		})
		if err != nil {
			return err
		}
		m.reaped(receipts)
		m.lingering.push(unproved(batch, receipts)...)
	}
}

// unproved returns the addresses that have no receipt.
func unproved(batch []netip.Addr, receipts []nftnat.Receipt) []netip.Addr {
	if len(receipts) == len(batch) {
		return nil
	}
	proved := make(map[netip.Addr]bool, len(receipts))
	for _, r := range receipts {
		proved[r.Inside] = true
	}
	return slices.DeleteFunc(batch, func(a netip.Addr) bool { return proved[a] })
}

func (m *Manager) reaped(receipts []nftnat.Receipt) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range receipts {
		s := m.slots[r.Inside]
		if s == nil {
			continue
		}
		if s.phase == cut {
			m.finishLocked(s, r)
		}
		m.restLocked(s)
		m.stepLocked(s)
	}
	m.settleLocked()
}

// finishLocked ends a teardown whose receipt is in.
func (m *Manager) finishLocked(s *slot, r nftnat.Receipt) {
	if s.over != nil {
		m.observer.StopToReaped(r.At.Sub(s.over.at))
		m.observer.Removed(s.group(), s.over.reason)
	}
	m.log.Debug("reaped", "inside", r.Inside, "deleted", r.Deleted)
	m.receiptReapedLocked(s, r)
	m.releaseLocked(s, r.Deleted)
}
