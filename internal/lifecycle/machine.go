package lifecycle

import (
	"errors"
	"net/netip"
	"time"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/lsn"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// A Machine is the life cycle of all groups of one daemon.
//
// Methods that change state take the present time. It may go back only as far
// as a clock that is set.
type Machine struct {
	out      Effects
	engine   *lsn.Engine
	sessions func(netip.Addr) int // conntrack entries of an address, by the kernel's events

	groups    GroupTable
	slots     SlotIndex
	online    OnlineIndex // slots with a record in force
	drains    DrainIndex
	graces    GraceIndex
	timers    timers
	writes    PendingWrites
	removal   inspect.RemovalMode
	holdsSeen time.Time   // when the holds are checked next
	busy      int         // slots that an executor works for
	now       time.Time   // time of the present call
	reaped    nat.Binding // of the present transition; kept here so that a pointer to it allocates nothing
}

// New returns a Machine without groups. sessions counts the conntrack entries of an inside
// address.
func New(engine *lsn.Engine, out Effects, sessions func(netip.Addr) int) *Machine {
	return &Machine{
		out: out, engine: engine, sessions: sessions,
		groups: newGroupTable(), slots: newSlotIndex(), online: newOnlineIndex(),
		drains: newDrainIndex(), graces: newGraceIndex(), timers: newTimers(), writes: newPendingWrites(),
	}
}

// SetEngine replaces the engine of a Machine that has no slots.
func (m *Machine) SetEngine(e *lsn.Engine) { m.engine = e }

// Engine returns the engine, which only the Machine may change.
func (m *Machine) Engine() *lsn.Engine { return m.engine }

// Slot returns the slot of an inside address, nil for none.
func (m *Machine) Slot(inside netip.Addr) *Slot { return m.slots.at(inside) }

// Slots returns the slots in the order of their addresses.
func (m *Machine) Slots() *SlotIndex { return &m.slots }

// Groups returns the served groups.
func (m *Machine) Groups() *GroupTable { return &m.groups }

// Online returns the online addresses, in the order of lists.
func (m *Machine) Online() *OnlineIndex { return &m.online }

// Drains returns the drains under way.
func (m *Machine) Drains() *DrainIndex { return &m.drains }

// Graces returns the addresses with a grace time.
func (m *Machine) Graces() *GraceIndex { return &m.graces }

// Writes returns the writes to stored bindings under way.
func (m *Machine) Writes() *PendingWrites { return &m.writes }

// Busy returns the number of slots that an executor works for.
func (m *Machine) Busy() int { return m.busy }

// SetRemoval sets the treatment of the sessions of ended subscribers. The
// caller then steps the draining slots ([Machine.Step]).
func (m *Machine) SetRemoval(mode inspect.RemovalMode) { m.removal = mode }

// Step starts the next step of a slot, if it needs one and no executor works
// for it, and removes a slot of which nothing is left.
func (m *Machine) Step(s *Slot, now time.Time) {
	m.now = now
	m.step(s)
}

func (m *Machine) step(s *Slot) {
	if s.busy {
		return
	}
	switch next(m.facts(s)) {
	case allocate:
		m.allocate(s)
	case flush, reap:
		m.work(s)
		m.out.Reap(s.work())
	case program:
		m.work(s)
		m.out.Program(s.work())
	case drain:
		m.drain(s)
	case askIdle:
		m.askIdle(s)
	case resume:
		m.resume(s)
	case closeGate:
		m.close(s)
	}
	if s.gone() {
		m.engine.Forget(s.Group(), s.Inside())
		m.slots.remove(s.Inside())
	}
}

func (m *Machine) facts(s *Slot) facts {
	f := facts{
		phase:   s.phase,
		online:  s.online,
		own:     s.tenure == s.boundTenure && !s.stray,
		stray:   s.stray,
		removal: m.removal == inspect.RemovalOn,
		grace:   s.InGrace(m.now),
	}
	if f.grace && f.online {
		b, ok := m.engine.Live(s.Group(), s.Inside())
		f.same = ok && b.Identity != "" && b.Identity == s.packed.Identity()
	}
	switch s.phase {
	case Idle:
		f.pending = s.online && m.engine.IsPending(s.Group(), s.Inside())
	case Saved:
		if !s.flushed {
			f.sessions = m.sessions(s.Inside())
		}
	case Draining:
		d := m.drains.of(s.Inside())
		f.empty = d != nil && d.empty
	}
	return f
}

func (m *Machine) work(s *Slot) {
	s.busy = true
	m.busy++
}

// rest ends an executor's work for the slot.
func (m *Machine) rest(s *Slot) {
	s.busy = false
	m.busy--
	m.touch(s)
}

// touch records for a running comparison that the slot's address changed.
func (m *Machine) touch(s *Slot) {
	if m.groups.comparing > 0 {
		m.groups.touch(s.Group(), s.Inside())
	}
}

// store requests a write of a binding.
func (m *Machine) store(w Write) {
	m.writes.begin(w.Binding.Block)
	m.out.Store(w)
}

// allocate takes a block for the slot. If the pool is exhausted the subscriber
// is pending, and is served when a block is freed (NAT-37).
func (m *Machine) allocate(s *Slot) {
	b, err := m.engine.Allocate(s.Group(), holderOf(&s.packed), m.now)
	if err != nil {
		if live, ok := m.engine.Live(s.Group(), s.Inside()); ok { // served while it waited
			b, err = live, nil
		}
	}
	switch {
	case errors.Is(err, lsn.ErrExhausted): // logged once for each group, for all that wait
		m.emit(inspect.EventPending, s)
	case err != nil:
		m.out.Fault("allocate block", s.Key(), err)
	default: // stored before it is programmed
		s.block, s.boundTenure, s.over, s.flushed = b.Block, s.tenure, nil, false
		m.enter(s, Saved)
		m.work(s)
		m.store(Write{Binding: b, Slot: s})
	}
}

// enter takes a slot to its next phase. Strays have no binding to count.
func (m *Machine) enter(s *Slot, p Phase) {
	if g := m.groups.Named(s.Group()); g != nil && !s.stray {
		g.phases[s.phase]--
		g.phases[p]++
	}
	s.phase = p
}

func (m *Machine) drain(s *Slot) {
	b, err := m.engine.Drain(s.Group(), s.Inside(), s.over.at)
	if err != nil {
		m.out.Fault("drain binding", s.Key(), err)
		return
	}
	if until := s.over.graceUntil; !until.IsZero() {
		b = m.markGrace(s, until)
	}
	m.store(Write{Binding: b})
	m.work(s)
	m.enter(s, Draining)
	m.drains.begin(s.Inside())
	m.out.Close(s.work())
}

// askIdle asks the kernel whether the draining slot has any session left.
func (m *Machine) askIdle(s *Slot) {
	if d := m.drains.of(s.Inside()); d != nil && !d.asked {
		d.asked = true
		m.out.AskIdle(d)
	}
}

func (m *Machine) close(s *Slot) {
	if !s.stray {
		if _, err := m.engine.Cut(s.Group(), s.Inside(), s.over.at); err != nil {
			m.out.Fault("cut binding", s.Key(), err)
		}
		s.over.elements = s.Expected().Elements()
	}
	m.drains.end(s.Inside())
	m.work(s)
	m.enter(s, Cut)
	m.out.Close(s.work())
}

// emit reports a transition of the slot.
func (m *Machine) emit(kind inspect.EventKind, s *Slot) {
	m.out.Emit(Transition{Kind: kind, At: m.now, Slot: s})
}

// emitChange reports a change of the record itself.
func (m *Machine) emitChange(kind inspect.EventKind, reason subscriber.Reason, r *subscriber.Packed) {
	t := Transition{Kind: kind, At: m.now, Record: r, Reason: reason}
	if kind != inspect.EventDeleted {
		t.Slot = m.slots.at(r.Inside())
	}
	m.out.Emit(t)
}
