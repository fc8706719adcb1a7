package session

import (
	"net/netip"
	"time"

	"github.com/sessiond/sessiond/internal/lsn"
	"github.com/sessiond/sessiond/internal/nftnat"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// A slot is all that is known of one inside address. It exists while a record
// stands or anything of the address is left in the kernel.
type slot struct {
	packed subscriber.Packed // the record that stands, or the last one that stood
	online bool
	busy   bool    // an executor works for this slot
	stray  bool    // kernel state found without a binding
	judged verdict // of the guard, about the record that is gone by other hands
	phase  phase

	flushed bool // what was there before its Start is gone, DEL-06

	over *ending // the tenure that the binding was made for, once it ended

	// tenure counts the sessions that held the address. A binding belongs to
	// the tenure it was made for, so a change of hands cannot go unseen even
	// when the feed ends one session and begins the next in the same batch.
	tenure, boundTenure uint64

	block lsn.Block // what is, or is being, programmed; unset when idle
}

func newSlot(r subscriber.Record, b lsn.Block) *slot { return &slot{packed: r.Pack(), block: b} }

// record unpacks the record. What one or two fields are wanted of is better asked
// of packed.
func (s *slot) record() *subscriber.Record {
	r := s.packed.Record()
	return &r
}

func (s *slot) inside() netip.Addr { return s.packed.Inside() }

func (s *slot) group() string { return s.packed.Group() }

func (s *slot) key() subscriber.Key { return subscriber.Key{Group: s.group(), Inside: s.inside()} }

func (s *slot) gone() bool { return !s.online && s.phase == idle && !s.busy }

// work is a slot that an executor works for, and its address.
type work struct {
	slot   *slot
	inside netip.Addr
}

func (s *slot) work() work { return work{s, s.inside()} }

// An ending remembers whose binding is being torn down, after the address may
// have found its next holder.
type ending struct {
	record subscriber.Packed
	reason subscriber.Reason
	at     time.Time

	graceUntil time.Time // the subscriber may take its sessions up again until then; zero for not
	elements   int       // map elements that its cut removes
}

// begin opens a new tenure for the record.
func (s *slot) begin(r *subscriber.Packed) {
	s.packed, s.online, s.judged = *r, true, unjudged
	s.tenure++
}

// end closes the tenure. The first ending after a binding was made is the
// binding's own.
func (s *slot) end(reason subscriber.Reason, at time.Time) {
	s.online = false
	if s.over == nil && s.phase != idle {
		s.over = &ending{record: s.packed, reason: reason, at: at}
	}
}

// awaited says that the binding is allocated, and stored or about to be, and that
// its gate is not open yet.
func (s *slot) awaited() bool { return s.phase == saved || s.phase == returned }

// entry is what the kernel should hold for the slot once gate stands.
func (s *slot) entry(gate nftnat.Gate) nftnat.Entry {
	if gate == nftnat.Closed {
		return nftnat.Entry{Inside: s.inside()}
	}
	return nftnat.Entry{
		Inside: s.inside(), Gate: gate,
		Outside: s.block.Outside, First: uint16(s.block.First), Last: uint16(s.block.Last),
	}
}

// expected is what the kernel holds for a slot at rest.
func (s *slot) expected() nftnat.Entry {
	switch s.phase {
	case open:
		return s.entry(nftnat.Open)
	case draining, returned:
		return s.entry(nftnat.Draining)
	}
	return s.entry(nftnat.Closed)
}

func holderOf(r *subscriber.Packed) lsn.Holder {
	return lsn.Holder{
		Inside: r.Inside(), Identity: r.Identity(),
		UserName: r.UserName(), AcctSessionID: r.AcctSessionID(),
	}
}
