package lifecycle

import (
	"net/netip"
	"time"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// Stored reports that a write to the stored bindings is done.
func (m *Machine) Stored(w *Write, now time.Time) {
	m.now = now
	b := &w.Binding
	if n := m.unstored[b.Block]; n > 1 {
		m.unstored[b.Block] = n - 1
	} else {
		delete(m.unstored, b.Block)
	}
	if m.comparing > 0 {
		m.touchKey(subscriber.Key{Group: b.Group, Inside: b.Inside})
	}
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
		m.receiptCut(s)
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
		m.receiptReaped(s, proof)
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

// Asked reports that the kernel was asked whether sessions of a drain are left.
func (m *Machine) Asked(d *Drain) { d.asked = false }

// Emptied reports that the kernel has no session of the drain left, for certain.
func (m *Machine) Emptied(d *Drain, now time.Time) {
	m.now = now
	if s := m.slots.at(d.Inside); s != nil && d == m.draining[d.Inside] {
		d.empty = true
		m.step(s)
	}
}

// StepDraining gives the slot of an address its next step, if it drains.
func (m *Machine) StepDraining(inside netip.Addr, now time.Time) {
	m.now = now
	if s := m.slots.at(inside); s != nil && s.phase == Draining {
		m.step(s)
	}
}

// The receipt of a teardown is kept with the binding: while it is CUT in the
// engine, from its hold on in the database too.

// receiptCut notes that the gate has closed.
func (m *Machine) receiptCut(s *Slot) {
	if s.stray || s.over == nil {
		return
	}
	m.keepReceipt(s, nat.Receipt{CutAt: m.now, Elements: s.over.elements})
}

// receiptReaped notes that no conntrack entry is left; the hold begins now.
func (m *Machine) receiptReaped(s *Slot, proof *nat.Reaped) {
	if s.stray {
		return
	}
	var r nat.Receipt
	if b, ok := m.engine.Live(s.Group(), s.Inside()); ok && b.Receipt != nil {
		r = *b.Receipt
	}
	r.ReapedAt, r.ReleasedAt = proof.At, m.now
	r.Deleted, r.Proof = proof.Deleted, proof.Proof
	m.keepReceipt(s, r)
}

func (m *Machine) keepReceipt(s *Slot, r nat.Receipt) {
	if _, err := m.engine.SetReceipt(s.Group(), s.Inside(), r); err != nil {
		m.out.Fault("keep receipt", s.Key(), err)
	}
}
