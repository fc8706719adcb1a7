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
	growths   growthIndex
	timers    timers
	writes    PendingWrites
	removal   inspect.RemovalMode
	holdsSeen time.Time   // when the holds are checked next
	busy      int         // slots that an executor works for
	logged    bool        // writes name the holders of bindings
	now       time.Time   // time of the present call
	reaped    nat.Binding // of the present transition; kept here so that a pointer to it allocates nothing
}

// New returns a Machine without groups. sessions counts the conntrack entries of an inside
// address.
func New(engine *lsn.Engine, out Effects, sessions func(netip.Addr) int) *Machine {
	m := &Machine{
		out: out, engine: engine, sessions: sessions,
		groups: newGroupTable(), slots: newSlotIndex(),
		drains: newDrainIndex(), graces: newGraceIndex(), growths: growthIndex{}, timers: newTimers(out.WakeTimers), writes: newPendingWrites(),
	}
	m.online = newOnlineIndex(m.slots.userAt)
	return m
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

// Changes of records, in the order of the feed, and their counts.

// Apply applies a change of a record, in the order of the feed. A deletion ends
// the slot's tenure, and step closes the gate as next decides.
func (m *Machine) Apply(c *subscriber.Change, now time.Time) {
	m.now = now
	s := m.slots.at(c.Record.Inside())
	if s != nil && s.online && s.packed.Version().Compare(c.ID) >= 0 {
		t := outdated(s, c)
		t.At = now
		m.out.Emit(t)
		return // the slot's snapshot is newer
	}
	if c.Partial {
		if s == nil || !s.online {
			return // its record was deleted while the snapshot was taken; the feed will report that
		}
		if c.Kind == subscriber.Updated {
			m.counters(s, &c.Record)
			return
		}
		s.packed.Refresh(&c.Record) // the last counters, from the Stop
	}
	switch c.Kind {
	case subscriber.Deleted:
		if s == nil || !s.online {
			return
		}
		own := s.over == nil // else the binding, if there is one, is of an earlier session
		m.end(s, c.End, c.ID.Time())
		if own && c.Reason == subscriber.ReasonStop {
			m.grantGrace(s, c.Cause)
		}
	case subscriber.Created, subscriber.Updated:
		s = m.stand(s, &c.Record, c.ID.Time())
	}
	m.touch(s.packed.Group(), s.packed.Inside())
	m.step(s)
}

// End ends the slot of a missing record whose end no change reports.
func (m *Machine) End(s *Slot, reason subscriber.Reason, now time.Time) {
	m.now = now
	m.end(s, subscriber.End{Reason: reason}, now)
	m.touch(s.packed.Group(), s.packed.Inside())
	m.step(s)
}

// Evict cuts the binding of a slot, because its outside prefix was taken away: whatever
// the toggle, and in a grace time too. The record stays. A subscriber that is online gets
// a block again as at its Start, once no session is left; the engine must no longer give
// it one of the same prefix. Evict does nothing where there is no binding to cut.
func (m *Machine) Evict(s *Slot, now time.Time) {
	if s.phase == Idle || s.phase == Cut || s.stray {
		return
	}
	m.now = now
	ForwardsOf(m).noteFirst(s)
	s.evict(now)
	ForwardsOf(m).assign(s)
	m.touch(s.packed.Group(), s.packed.Inside())
	m.step(s)
}

func (m *Machine) end(s *Slot, why subscriber.End, at time.Time) {
	m.count(&s.packed, -1)
	s.end(why, at)
	m.recall(s)
	m.engine.Forget(s.packed.Group(), s.packed.Inside())
	if g := m.groups.named[s.packed.Group()]; g != nil {
		delete(g.evicted, s.packed.Inside())
	}
	m.emitChange(inspect.EventDeleted, why, &s.packed)
	ForwardsOf(m).assign(s)
}

// Stand puts a record in force, as read from the database, into the slot of its
// address.
func (m *Machine) Stand(r *subscriber.Packed, now time.Time) {
	m.now = now
	m.step(m.stand(m.slots.at(r.Inside()), r, now))
}

// stand puts a record in force into the slot of its address, and creates the
// slot if there is none. If the slot has a record of another session, that one
// ends first, even without a change in the feed.
func (m *Machine) stand(s *Slot, r *subscriber.Packed, at time.Time) *Slot {
	if s == nil {
		s = &Slot{}
		m.slots.put(r.Inside(), s)
	}
	if s.online && !s.packed.SameSession(r) {
		m.end(s, subscriber.End{Reason: subscriber.ReasonSuperseded}, at)
	}
	kind := inspect.EventUpdated
	if s.online {
		if r.RemovalHeld() != subscriber.ReasonNone && s.packed.RemovalHeld() == subscriber.ReasonNone {
			kind = inspect.EventRemovalHeld
		}
		m.refresh(s, r)
	} else {
		kind = inspect.EventCreated
		s.begin(r)
		m.count(r, +1)
	}
	m.expire(s)
	m.emitChange(kind, subscriber.End{Reason: r.RemovalHeld()}, r)
	return s
}

// counters applies an update of counters and times alone, as nearly all are.
func (m *Machine) counters(s *Slot, r *subscriber.Packed) {
	s.packed.Refresh(r)
	s.judged = unjudged
	m.expire(s)
	m.touch(s.packed.Group(), s.packed.Inside())
	m.emitChange(inspect.EventUpdated, subscriber.End{Reason: s.packed.RemovalHeld()}, &s.packed)
}

// Refresh puts newer data of the same session into its slot; older data changes
// nothing.
func (m *Machine) Refresh(r *subscriber.Packed, now time.Time) {
	m.now = now
	s := m.slots.at(r.Inside())
	if s == nil || !s.online || s.packed.Version().Compare(r.Version()) >= 0 {
		return
	}
	m.refresh(s, r)
	m.expire(s)
}

func (m *Machine) refresh(s *Slot, r *subscriber.Packed) {
	before, holder := holderOf(&s.packed), holderOf(r)
	m.count(&s.packed, -1)
	s.packed, s.judged = *r, unjudged
	m.count(r, +1)
	if holder == before {
		return
	}
	if b, err := m.engine.SetHolder(r.Group(), holder); err == nil {
		m.store(Write{Binding: b})
	}
	if g := m.groups.named[r.Group()]; g != nil && before.UserName != holder.UserName {
		ForwardsOf(m).assignUser(g, before.UserName)
		ForwardsOf(m).assign(s)
	}
}

// count adds a record to the counts and lists of records in force, or removes
// it.
func (m *Machine) count(r *subscriber.Packed, change int) {
	if change > 0 {
		m.online.add(r)
	} else {
		m.online.remove(r)
	}
	if client, _ := r.Reporter(); client != "" {
		m.out.Online(client, change)
	}
	g := m.groups.named[r.Group()]
	if g == nil {
		return
	}
	g.online += change
	if why := r.RemovalHeld(); why != subscriber.ReasonNone {
		g.held[why] += change
	}
	if r.Unconfirmed() {
		g.unconfirmed += change
	}
}

// The next step of a slot, and the start of it.

// Phase is how far database and kernel have followed one inside address.
// Between two phases the slot is busy: an executor works for it.
type Phase uint8

// The phases of a slot.
const (
	Idle     Phase = iota // no binding, and no kernel element
	Saved                 // a block is allocated and stored in the database
	Open                  // gate open, block map programmed
	Draining              // existing sessions pass, no new ones begin
	Returned              // as Draining, for a subscriber that came back in time: its binding is being stored
	Cut                   // gate closed and map elements gone; conntrack entries may be left
)

// facts are the inputs for the next step of a slot.
type facts struct {
	phase    Phase
	online   bool // a subscriber record is in force
	pending  bool // the subscriber waits for a block
	own      bool // the binding was allocated for the session of that record
	stray    bool // the kernel state has no binding
	evicted  bool // the outside address of the binding was taken away
	resized  bool // the kernel takes the ports of new sessions from other blocks than it should, or has other mappings
	removal  bool // the toggle subscriber_session_removal is on
	grace    bool // the grace time of the binding's subscriber runs
	same     bool // and the record in force is of that subscriber
	sessions int  // conntrack entries of the address, by the kernel's events
	empty    bool // the kernel was asked during the drain, and has none
}

// action is the next step of a slot.
type action uint8

const (
	stay      action = iota
	allocate         // take a block and store the binding
	flush            // delete conntrack entries that are older than the Start
	program          // open the gate
	drain            // let existing sessions end by themselves, or wait for the subscriber
	askIdle          // ask the kernel whether any session is left
	resume           // give the subscriber its binding and live sessions back
	closeGate        // cut: one transaction, packets stop
	reap             // delete the conntrack entries and prove that none is left
)

// next is the life cycle. A subscriber that ended is cut when removal is on,
// and drained when it is off or during a grace time. One whose outside address was
// taken away is always cut. An address whose session
// changed hands is always cut, regardless of toggle and grace time: the next
// holder inherits nothing (SES-07).
func next(f facts) action {
	switch f.phase {
	case Idle:
		if f.online && !f.pending {
			return allocate
		}
	case Saved:
		switch {
		case !f.online, !f.own, f.evicted:
			return closeGate
		case f.sessions > 0:
			return flush // DEL-06
		default:
			return program
		}
	case Open, Returned:
		switch {
		case f.stray, f.evicted:
			return closeGate
		case f.online && f.own && f.phase == Open && !f.resized:
			return stay
		case f.online && f.own:
			return program
		case f.same:
			return resume
		case !f.online && (f.grace || !f.removal):
			return drain // DEL-11
		default:
			return closeGate
		}
	case Draining:
		switch {
		case f.same && !f.stray:
			return resume
		case f.online, f.stray, f.evicted, !f.grace && (f.removal || f.empty):
			return closeGate
		case !f.grace:
			return askIdle
		}
	case Cut:
		return reap
	}
	return stay
}

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
		m.out.Reap(m.work(s))
	case program:
		m.out.Program(m.work(s))
	case drain:
		m.drain(s)
	case askIdle:
		m.askIdle(s)
	case resume:
		m.resume(s)
	case closeGate:
		m.close(s)
	}
	if !s.online && s.phase == Idle && !s.busy {
		m.engine.Forget(s.packed.Group(), s.packed.Inside())
		m.slots.remove(s.packed.Inside())
	}
}

func (m *Machine) facts(s *Slot) facts {
	f := facts{
		phase:   s.phase,
		online:  s.online,
		own:     s.tenure == s.boundTenure && !s.stray,
		stray:   s.stray,
		evicted: s.over != nil && s.over.evicted,
		resized: s.resize != unresized || s.remapped(),
		removal: m.removal == inspect.RemovalOn,
		grace:   s.InGrace(m.now),
	}
	if f.grace && f.online {
		b, ok := m.engine.Live(s.packed.Group(), s.packed.Inside())
		f.same = ok && b.Identity != "" && b.Identity == s.packed.Identity()
	}
	switch s.phase {
	case Idle:
		f.pending = s.online && m.engine.IsPending(s.packed.Group(), s.packed.Inside())
	case Saved:
		if !s.flushed {
			f.sessions = m.sessions(s.packed.Inside())
		}
	case Draining:
		d := m.drains.of(s.packed.Inside())
		f.empty = d != nil && d.empty
	}
	return f
}

// work marks a slot busy, and returns it for an executor.
func (m *Machine) work(s *Slot) Work {
	s.busy = true
	m.busy++
	return Work{s, s.packed.Inside()}
}

// done ends an executor's work for the slot, and starts the next step.
func (m *Machine) done(s *Slot) {
	s.busy = false
	m.busy--
	m.touch(s.packed.Group(), s.packed.Inside())
	m.step(s)
}

// touch records for a running comparison that an address of a group changed.
func (m *Machine) touch(group string, inside netip.Addr) {
	if m.groups.comparing == 0 {
		return
	}
	if g := m.groups.named[group]; g != nil && g.touched != nil {
		g.touched[inside] = struct{}{}
	}
}

// store requests a write of a binding.
func (m *Machine) store(w Write) {
	place := w.Binding.Place()
	w.Again = m.writes.Of(place) > 0
	if !w.Remove && w.Binding.State != nat.Held {
		w.Holder = holderToLog(m, &w.Binding)
	}
	m.writes.places[place]++
	m.out.Store(w)
}

// allocate takes a block for the slot. If the pool is exhausted the subscriber
// is pending, and is served when a block is freed (NAT-37).
func (m *Machine) allocate(s *Slot) {
	b, err := m.engine.Allocate(s.packed.Group(), holderOf(&s.packed), m.now)
	if err != nil {
		if live, ok := m.engine.Live(s.packed.Group(), s.packed.Inside()); ok { // served while it waited
			b, err = live, nil
		}
	}
	switch {
	case errors.Is(err, lsn.ErrExhausted): // logged once for each group, for all that wait
		m.emit(inspect.EventPending, s)
	case err != nil:
		m.out.Fault("allocate block", s.Key(), err)
	default: // stored before it is programmed
		ForwardsOf(m).setFirst(s, &b)
		s.block, s.boundTenure, s.over, s.flushed = b.Range(), s.tenure, nil, false
		m.enter(s, Saved)
		m.work(s)
		ForwardsOf(m).assign(s)
		m.store(Write{Binding: b, Slot: s})
	}
}

// enter takes a slot to its next phase. Strays have no binding to count.
func (m *Machine) enter(s *Slot, p Phase) {
	if g := m.groups.named[s.packed.Group()]; g != nil && !s.stray {
		g.phases[s.phase]--
		g.phases[p]++
	}
	s.phase = p
	if p != Open {
		delete(m.growths, s.packed.Inside())
	}
}

func (m *Machine) drain(s *Slot) {
	b, err := m.engine.Drain(s.packed.Group(), s.packed.Inside(), s.over.at)
	if err != nil {
		m.out.Fault("drain binding", s.Key(), err)
		return
	}
	if until := s.over.graceUntil; !until.IsZero() {
		b = m.markGrace(s, until)
	}
	m.store(Write{Binding: b})
	s.over.elements = 2 * s.Expected().Forwards.Len()
	m.enter(s, Draining)
	m.drains.begin(s.packed.Inside())
	m.out.Close(m.work(s))
}

// askIdle asks the kernel whether the draining slot has any session left.
func (m *Machine) askIdle(s *Slot) {
	if d := m.drains.of(s.packed.Inside()); d != nil && !d.asked {
		d.asked = true
		m.out.AskIdle(d)
	}
}

func (m *Machine) close(s *Slot) {
	if !s.stray {
		if _, err := m.engine.Cut(s.packed.Group(), s.packed.Inside(), s.over.at); err != nil {
			m.out.Fault("cut binding", s.Key(), err)
		}
		s.over.elements += s.Expected().Elements()
	}
	delete(m.drains.at, s.packed.Inside())
	if g := m.groups.named[s.packed.Group()]; g != nil {
		ForwardsOf(m).endAsked(g, s.packed.Inside(), time.Time{})
	}
	m.enter(s, Cut)
	m.out.Close(m.work(s))
}

// Results of executors.

// Stored reports that a write to the stored bindings is done.
func (m *Machine) Stored(w *Write, now time.Time) {
	m.now = now
	b := &w.Binding
	if place := b.Place(); m.writes.places[place] > 1 {
		m.writes.places[place]--
	} else {
		delete(m.writes.places, place)
	}
	m.touch(b.Group, b.Inside)
	if w.Slot != nil {
		ForwardsOf(m).stored(w.Slot)
		m.done(w.Slot)
	}
}

// Programmed reports that the gate of a slot is open, with its elements.
func (m *Machine) Programmed(s *Slot, now time.Time) {
	m.now = now
	if s.Awaited() {
		m.enter(s, Open)
		m.emit(inspect.EventBound, s)
	}
	if grew, ok := growthOf[s.resize]; ok {
		m.out.Emit(Transition{Kind: inspect.EventBlockAdded, At: now, Slot: s, Growth: grew})
	}
	s.resize = unresized
	ForwardsOf(m).done(s)
	m.done(s)
}

// Closed reports that the gate of a slot is narrowed or closed. If packets bypassed the gate,
// through a flowtable, those of established sessions pass until the slot is reaped: the reap
// is the cut then.
func (m *Machine) Closed(s *Slot, bypassed bool, now time.Time) {
	m.now, s.resize = now, unresized
	switch s.phase {
	case Cut:
		if !s.stray && s.over != nil {
			s.over.cutAt = m.now
			if bypassed {
				s.over.cutAt = time.Time{}
			}
			m.keepReceipt(s, nat.Receipt{CutAt: s.over.cutAt, Elements: s.over.elements, End: s.over.why})
		}
		m.emit(inspect.EventCut, s)
	case Draining:
		m.tellDrain(s)
	}
	ForwardsOf(m).done(s)
	m.done(s)
}

// Reaped reports that no conntrack entry of a slot is left.
func (m *Machine) Reaped(s *Slot, proof *nat.Reaped, now time.Time) {
	m.now = now
	switch s.phase {
	case Cut:
		m.release(s, proof)
	case Saved:
		s.flushed = true
	}
	m.done(s)
}

// release puts the blocks of a reaped slot into quarantine, with the receipt of
// its teardown. The slot is idle then: [Machine.Tick] ends the quarantine.
func (m *Machine) release(s *Slot, proof *nat.Reaped) {
	m.enter(s, Idle)
	t := Transition{Kind: inspect.EventReaped, At: m.now, Slot: s, Deleted: proof.Deleted, Proved: proof.At}
	if s.stray {
		m.out.Emit(t)
		s.stray, s.block = false, nat.Block{}
		return
	}
	r := nat.Receipt{ReapedAt: proof.At, ReleasedAt: m.now, Elements: proof.Elements, Deleted: proof.Deleted, Proof: proof.Proof} // the hold begins now
	if s.over != nil {
		if r.CutAt = s.over.cutAt; r.CutAt.IsZero() {
			r.CutAt = proof.At
		}
		r.Elements += s.over.elements
		r.End = s.over.why
	}
	m.keepReceipt(s, r)
	b, err := m.engine.Hold(s.packed.Group(), s.packed.Inside(), m.now)
	if err != nil {
		m.out.Fault("hold block", s.Key(), err)
		m.out.Emit(t)
		return
	}
	m.reaped = b
	t.Binding = &m.reaped
	m.out.Emit(t)
	s.block, s.over = nat.Block{}, nil
	left := m.now
	if left.Before(proof.At) { // the clock was set back
		left = proof.At
	}
	m.store(Write{Binding: b, Left: left})
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

// keepReceipt stores the receipt of a teardown with its binding: while that is
// CUT in the engine, from its hold on in the database too.
func (m *Machine) keepReceipt(s *Slot, r nat.Receipt) {
	if _, err := m.engine.SetReceipt(s.packed.Group(), s.packed.Inside(), r); err != nil {
		m.out.Fault("keep receipt", s.Key(), err)
	}
}

// emit reports a transition of the slot.
func (m *Machine) emit(kind inspect.EventKind, s *Slot) {
	m.out.Emit(Transition{Kind: kind, At: m.now, Slot: s})
}

// outdated returns the transition of a change that the slot's record is ahead of, because the
// record was read with a later one. By then another session may hold the address, of which
// the transition must not tell.
func outdated(s *Slot, c *subscriber.Change) Transition {
	t := Transition{Kind: inspect.EventUpdated, Record: &c.Record, End: c.End, Outdated: true}
	switch c.Kind {
	case subscriber.Created:
		t.Kind = inspect.EventCreated
	case subscriber.Deleted:
		t.Kind = inspect.EventDeleted
		return t
	}
	if c.Partial && s.Record().StartedAt.After(c.Record.Record().UpdatedAt) || !s.packed.SameSession(&c.Record) {
		return t
	}
	if t.Slot = s; c.Partial {
		t.Record = &s.packed
	}
	return t
}

// emitChange reports a change of the record itself.
func (m *Machine) emitChange(kind inspect.EventKind, why subscriber.End, r *subscriber.Packed) {
	t := Transition{Kind: kind, At: m.now, Record: r, End: why}
	if kind != inspect.EventDeleted {
		t.Slot = m.slots.at(r.Inside())
	}
	m.out.Emit(t)
}
