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
	record subscriber.Record // the record that stands, or the last one that stood
	online bool
	over   *ending // the tenure that the binding was made for, once it ended

	// tenure counts the sessions that held the address. A binding belongs to
	// the tenure it was made for, so a change of hands cannot go unseen even
	// when the feed ends one session and begins the next in the same batch.
	tenure, boundTenure uint64

	phase phase
	busy  bool      // an executor works for this slot
	block lsn.Block // what is, or is being, programmed; unset when idle
	stray bool      // kernel state found without a binding
}

func (s *slot) inside() netip.Addr { return s.record.Inside }

func (s *slot) gone() bool { return !s.online && s.phase == idle && !s.busy }

// An ending remembers whose binding is being torn down, after the address may
// have found its next holder.
type ending struct {
	record subscriber.Record
	reason subscriber.Reason
	at     time.Time
}

// begin opens a new tenure for the record.
func (s *slot) begin(r subscriber.Record) {
	s.record, s.online = r, true
	s.tenure++
}

// end closes the tenure. The first ending after a binding was made is the
// binding's own.
func (s *slot) end(reason subscriber.Reason, at time.Time) {
	s.online = false
	if s.over == nil && s.phase != idle {
		s.over = &ending{record: s.record, reason: reason, at: at}
	}
}

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
	case draining:
		return s.entry(nftnat.Draining)
	}
	return s.entry(nftnat.Closed)
}

func holderOf(r *subscriber.Record) lsn.Holder {
	return lsn.Holder{
		Inside: r.Inside, Identity: r.Identity(),
		UserName: r.UserName, AcctSessionID: r.AcctSessionID,
	}
}
