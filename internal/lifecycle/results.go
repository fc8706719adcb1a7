package lifecycle

import (
	"time"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/nat"
)

// Stored reports that a write to the stored bindings is done.
func (m *Machine) Stored(w *Write, now time.Time) {
	m.now = now
	b := &w.Binding
	m.writes.end(b.Block)
	m.groups.touch(b.Group, b.Inside)
	if w.Slot != nil {
		m.rest(w.Slot)
		m.step(w.Slot)
	}
}

// Programmed reports that the gate of a slot is open, with its elements.
func (m *Machine) Programmed(s *Slot, now time.Time) {
	m.now = now
	if s.Awaited() {
		m.enter(s, Open)
		m.emit(inspect.EventBound, s)
	}
	m.rest(s)
	m.step(s)
}

// Closed reports that the gate of a slot is narrowed or closed.
func (m *Machine) Closed(s *Slot, now time.Time) {
	m.now = now
	switch s.phase {
	case Cut:
		if !s.stray && s.over != nil {
			m.keepReceipt(s, cutReceipt(s, m.now))
		}
		m.emit(inspect.EventCut, s)
	case Draining:
		m.tellDrain(s)
	}
	m.rest(s)
	m.step(s)
}

// Reaped reports that no conntrack entry of a slot is left.
func (m *Machine) Reaped(s *Slot, proof *nat.Reaped, now time.Time) {
	m.now = now
	switch s.phase {
	case Cut:
		if !s.stray {
			b, _ := m.engine.Live(s.Group(), s.Inside())
			m.keepReceipt(s, reapedReceipt(&b, proof, m.now))
		}
		m.release(s, proof)
	case Saved:
		s.flushed = true
	}
	m.rest(s)
	m.step(s)
}

// release puts the block of a reaped slot into quarantine.
func (m *Machine) release(s *Slot, proof *nat.Reaped) {
	m.enter(s, Idle)
	t := Transition{Kind: inspect.EventReaped, At: m.now, Slot: s, Deleted: proof.Deleted, Proved: proof.At}
	if s.stray {
		m.out.Emit(t)
		s.stray, s.block = false, nat.Block{}
		return
	}
	b, err := m.engine.Hold(s.Group(), s.Inside(), m.now)
	if err != nil {
		m.out.Fault("hold block", s.Key(), err)
		m.out.Emit(t)
		return
	}
	m.reaped = b
	t.Binding = &m.reaped
	m.out.Emit(t)
	s.block, s.over = nat.Block{}, nil
	m.store(Write{Binding: b})
	if b.HoldUntil.Before(m.holdsSeen) {
		m.out.WakeTimers()
	}
}

// Emptied reports that the kernel certainly has no session of the drain left.
func (m *Machine) Emptied(d *Drain, now time.Time) {
	m.now = now
	if s := m.slots.at(d.Inside); s != nil && d == m.drains.of(d.Inside) {
		d.empty = true
		m.step(s)
	}
}

// The receipt of a teardown is kept with the binding: while it is CUT in the
// engine, from its hold on in the database too.

// cutReceipt returns the receipt of a slot whose gate has closed.
func cutReceipt(s *Slot, now time.Time) nat.Receipt {
	return nat.Receipt{CutAt: now, Elements: s.over.elements}
}

// reapedReceipt returns the receipt of a binding without conntrack entries; its
// hold begins now.
func reapedReceipt(b *nat.Binding, proof *nat.Reaped, now time.Time) nat.Receipt {
	var r nat.Receipt
	if b.Receipt != nil {
		r = *b.Receipt
	}
	r.ReapedAt, r.ReleasedAt = proof.At, now
	r.Deleted, r.Proof = proof.Deleted, proof.Proof
	return r
}

func (m *Machine) keepReceipt(s *Slot, r nat.Receipt) {
	if _, err := m.engine.SetReceipt(s.Group(), s.Inside(), r); err != nil {
		m.out.Fault("keep receipt", s.Key(), err)
	}
}
