package lifecycle

import (
	"net/netip"
	"time"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// A Slot is all that is known of one inside address. It exists while a record
// stands or anything of the address is left in the kernel.
type Slot struct {
	packed subscriber.Packed // the record that stands, or the last one that stood
	online bool
	busy   bool     // an executor works for this slot
	stray  bool     // kernel state found without a binding
	judged judgment // of the guard, about the record that is gone by other hands
	phase  Phase

	flushed bool // conntrack entries from before its Start are gone, DEL-06

	over *teardown // of the binding whose tenure ended

	// tenure counts the sessions that held the address. A binding belongs to
	// the tenure it was made for, so a change of hands cannot go unseen even
	// when the feed ends one session and begins the next in the same batch.
	tenure, boundTenure uint64

	block nat.Block // that is, or is being, programmed; unset when idle
}

func newSlot(r subscriber.Record, b nat.Block) *Slot { return &Slot{packed: r.Pack(), block: b} }

// Record unpacks the record. One or two fields are cheaper to read from Packed.
func (s *Slot) Record() subscriber.Record { return s.packed.Record() }

// Packed returns the record that stands, or the last one that stood. It must not be changed.
func (s *Slot) Packed() *subscriber.Packed { return &s.packed }

// Inside returns the inside address.
func (s *Slot) Inside() netip.Addr { return s.packed.Inside() }

// Group returns the name of the group that serves the address.
func (s *Slot) Group() string { return s.packed.Group() }

// Key returns the key of the record.
func (s *Slot) Key() subscriber.Key { return subscriber.Key{Group: s.Group(), Inside: s.Inside()} }

// Online reports whether the record stands.
func (s *Slot) Online() bool { return s.online }

// Busy reports whether an executor works for the slot.
func (s *Slot) Busy() bool { return s.busy }

// Stray reports whether the slot is kernel state that no binding accounts for.
func (s *Slot) Stray() bool { return s.stray }

// Phase returns how far database and kernel have followed.
func (s *Slot) Phase() Phase { return s.phase }

// Block returns the block that is, or is being, programmed; the zero Block when idle.
func (s *Slot) Block() nat.Block { return s.block }

// Tenure numbers the sessions that held the address.
func (s *Slot) Tenure() uint64 { return s.tenure }

// Held reports whether a guard holds the removal of the record that is gone.
func (s *Slot) Held() bool { return s.judged == held }

func (s *Slot) gone() bool { return !s.online && s.phase == Idle && !s.busy }

func (s *Slot) work() Work { return Work{s, s.Inside()} }

// A teardown remembers whose binding is being torn down, after the address may
// have found its next holder.
type teardown struct {
	record subscriber.Packed
	reason subscriber.Reason
	at     time.Time

	graceUntil time.Time // the subscriber may take its sessions up again until then; zero for not
	elements   int       // map elements that its cut removes
}

// Ended returns the record, the reason and the time of the end of the binding that is
// being torn down; ok is false while none is.
func (s *Slot) Ended() (record *subscriber.Packed, reason subscriber.Reason, at time.Time, ok bool) {
	if s.over == nil {
		return nil, 0, time.Time{}, false
	}
	return &s.over.record, s.over.reason, s.over.at, true
}

// GraceUntil returns until when the subscriber may come back to its sessions; zero for not.
func (s *Slot) GraceUntil() time.Time {
	if s.over == nil {
		return time.Time{}
	}
	return s.over.graceUntil
}

// InGrace reports whether a grace time of the slot runs at the time now.
func (s *Slot) InGrace(now time.Time) bool {
	until := s.GraceUntil()
	return !until.IsZero() && now.Before(until)
}

// Removal describes the removal of the binding whose tenure is over.
func (s *Slot) Removal(kind inspect.RemovalKind) inspect.Removal {
	return inspect.Removal{Kind: kind, Record: s.over.record.Record(), Reason: s.over.reason, Since: s.over.at}
}

// begin opens a new tenure for the record.
func (s *Slot) begin(r *subscriber.Packed) {
	s.packed, s.online, s.judged = *r, true, unjudged
	s.tenure++
}

// end closes the tenure. The first end after a binding was made is the binding's own.
func (s *Slot) end(reason subscriber.Reason, at time.Time) {
	s.online = false
	if s.over == nil && s.phase != Idle {
		s.over = &teardown{record: s.packed, reason: reason, at: at}
	}
}

// Awaited reports whether the binding is allocated, and stored or about to be, and its
// gate is not open yet.
func (s *Slot) Awaited() bool { return s.phase == Saved || s.phase == Returned }

// entry is the kernel's entry for the slot once gate stands.
func (s *Slot) entry(gate nat.Gate) nat.Entry {
	if gate == nat.GateClosed {
		return nat.Entry{Inside: s.Inside()}
	}
	return nat.Entry{Inside: s.Inside(), Gate: gate, Block: s.block}
}

// Expected is the entry that the kernel holds for a slot at rest.
func (s *Slot) Expected() nat.Entry {
	switch s.phase {
	case Open:
		return s.entry(nat.GateOpen)
	case Draining, Returned:
		return s.entry(nat.GateDraining)
	}
	return s.entry(nat.GateClosed)
}

// Wanted is the entry that an executor has to program, given the phase that the slot is
// on its way to.
func (s *Slot) Wanted() nat.Entry {
	if s.Awaited() {
		return s.entry(nat.GateOpen)
	}
	return s.Expected()
}

func holderOf(r *subscriber.Packed) nat.Holder {
	return nat.Holder{
		Inside: r.Inside(), Identity: r.Identity(),
		UserName: r.UserName(), AcctSessionID: r.AcctSessionID(),
	}
}
