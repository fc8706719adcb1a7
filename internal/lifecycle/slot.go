package lifecycle

import (
	"net/netip"
	"time"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// A Slot is the state of one inside address. It exists while a record is in
// force or the kernel has remains of the address.
type Slot struct {
	packed subscriber.Packed // the record in force, or the last one
	online bool
	busy   bool     // an executor works for this slot
	stray  bool     // kernel state found without a binding
	judged judgment // the guard's, about the missing record
	phase  Phase

	flushed bool // conntrack entries from before its Start are gone, DEL-06

	over *teardown // of the binding whose tenure ended

	// tenure counts the sessions that held the address. A binding belongs to the
	// tenure for which it was allocated, so a change of holders is noticed even if
	// the feed ends one session and begins the next in the same batch.
	tenure, boundTenure uint64

	// The ports for new sessions: programmed, or being programmed. Usually the binding's
	// nat.Blocks range; always blocks of it. Unset when idle.
	block  nat.Block
	resize resizing // the way in which block has changed, and is not programmed yet

	ports *slotForwards // nil for no mappings
}

// resizing is a change of the ports for new sessions of an open gate.
type resizing uint8

const (
	unresized   resizing = iota
	turned               // to other blocks of the binding
	grewInPlace          // to more ports around the present ones
	grewApart            // to a new block
	grewBeside           // to a new block, with another one than the present ports that it adjoins
)

func newSlot(r subscriber.Record, b nat.Block) *Slot { return &Slot{packed: r.Pack(), block: b} }

// Record unpacks the record. One or two fields are cheaper to read from Packed.
func (s *Slot) Record() subscriber.Record { return s.packed.Record() }

// Packed returns the record in force, or the last one. It must not be changed.
func (s *Slot) Packed() *subscriber.Packed { return &s.packed }

// Inside returns the inside address.
func (s *Slot) Inside() netip.Addr { return s.packed.Inside() }

// Group returns the name of the group that serves the address.
func (s *Slot) Group() string { return s.packed.Group() }

// Key returns the key of the record.
func (s *Slot) Key() subscriber.Key {
	return subscriber.Key{Group: s.packed.Group(), Inside: s.packed.Inside()}
}

// Moves reports whether new sessions are about to get ports of another range, in which those
// of present sessions may not lie.
func (s *Slot) Moves() bool {
	return s.resize == turned || s.resize == grewApart || s.resize == grewBeside
}

// Online reports whether the record is in force.
func (s *Slot) Online() bool { return s.online }

// Busy reports whether an executor works for the slot.
func (s *Slot) Busy() bool { return s.busy }

// Stray reports whether the slot is kernel state without a binding.
func (s *Slot) Stray() bool { return s.stray }

// Phase returns the slot's phase.
func (s *Slot) Phase() Phase { return s.phase }

// Own reports whether the binding is of the session that holds the address, or held it last.
func (s *Slot) Own() bool { return s.phase != Idle && s.tenure == s.boundTenure && !s.stray }

// Tenure returns the number of sessions that have held the address.
func (s *Slot) Tenure() uint64 { return s.tenure }

// Held reports whether a guard suspends the removal of the missing record.
func (s *Slot) Held() bool { return s.judged == held }

// A teardown keeps the holder of a binding that is being torn down, because the
// address may have its next holder already.
type teardown struct {
	record subscriber.Packed
	why    subscriber.End
	at     time.Time

	graceUntil time.Time // the subscriber may resume its sessions until then; zero for no grace time
	evicted    bool      // its outside address was taken away: it is cut in any case
	elements   int       // number of map elements that its narrowing and its cut remove
	cutAt      time.Time // when the gate had closed; zero before, and if packets bypassed it
}

// Ended returns the record, the reason and the time of the end of the binding
// that is being torn down; ok is false for none.
func (s *Slot) Ended() (record *subscriber.Packed, why subscriber.End, at time.Time, ok bool) {
	if s.over == nil {
		return nil, subscriber.End{}, time.Time{}, false
	}
	return &s.over.record, s.over.why, s.over.at, true
}

// GraceUntil returns the end of the grace time; zero for none.
func (s *Slot) GraceUntil() time.Time {
	if s.over == nil {
		return time.Time{}
	}
	return s.over.graceUntil
}

// InGrace reports whether a grace time of the slot runs at the time now.
func (s *Slot) InGrace(now time.Time) bool {
	return s.over != nil && now.Before(s.over.graceUntil)
}

// Removal describes the removal of the binding whose tenure is over.
func (s *Slot) Removal(kind inspect.RemovalKind) inspect.Removal {
	return inspect.Removal{Kind: kind, Record: s.over.record.Record(), Reason: s.over.why.Reason, Since: s.over.at}
}

// begin starts a new tenure for the record.
func (s *Slot) begin(r *subscriber.Packed) {
	s.packed, s.online, s.judged = *r, true, unjudged
	s.tenure++
}

// end ends the tenure. The first end after the allocation of a binding is the
// binding's own.
func (s *Slot) end(why subscriber.End, at time.Time) {
	s.online = false
	if s.over == nil && s.phase != Idle {
		s.over = &teardown{record: s.packed, why: why, at: at}
	}
}

// evict ends the slot's binding, for which the tenure may go on.
func (s *Slot) evict(at time.Time) {
	if s.over == nil {
		s.over = &teardown{record: s.packed, why: subscriber.End{Reason: subscriber.ReasonPoolRemoved}, at: at}
	}
	s.over.evicted, s.over.graceUntil = true, time.Time{}
}

// Awaited reports whether the binding is allocated, and stored or being stored,
// and its gate is not open yet.
func (s *Slot) Awaited() bool { return s.phase == Saved || s.phase == Returned }

// Wanted returns the entry that an executor has to program, given the phase
// that the slot is going to.
func (s *Slot) Wanted() nat.Entry {
	if s.Awaited() {
		return nat.Entry{Inside: s.packed.Inside(), Gate: nat.GateOpen, Block: s.block, Forwards: s.Forwards()}
	}
	return s.Expected()
}

// Expected returns the entry that the kernel holds for a slot at rest. In all phases but
// these three that is a closed gate, the zero Gate.
func (s *Slot) Expected() nat.Entry {
	e := nat.Entry{Inside: s.packed.Inside()}
	switch s.phase {
	case Open:
		e.Gate, e.Block, e.Forwards = nat.GateOpen, s.block, s.Forwards()
	case Draining, Returned:
		e.Gate, e.Block = nat.GateDraining, s.block
	}
	return e
}

func holderOf(r *subscriber.Packed) nat.Holder {
	return nat.Holder{
		Inside: r.Inside(), Identity: r.Identity(),
		UserName: r.UserName(), AcctSessionID: r.AcctSessionID(),
	}
}

// HolderRecord returns a record with the data of a binding's holder, for an
// address without a record.
func HolderRecord(group string, h nat.Holder) subscriber.Record {
	return subscriber.Record{
		Key:       subscriber.Key{Group: group, Inside: h.Inside},
		SessionID: subscriber.SessionID{AcctSessionID: h.AcctSessionID},
		UserName:  h.UserName,
	}
}
