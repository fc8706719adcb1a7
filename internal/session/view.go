package session

import (
	"net/netip"

	"github.com/sessiond/sessiond/internal/drift"
	"github.com/sessiond/sessiond/internal/lsn"
	"github.com/sessiond/sessiond/internal/nftnat"
	"github.com/sessiond/sessiond/internal/subscriberdb"
)

func (m *Manager) slotViewRLocked(s *slot) drift.Slot {
	r := s.record()
	return drift.Slot{
		Online: s.online, Identity: drift.IdentityOf(r), Version: r.Version,
		Pending: s.phase == idle && s.online && m.engine.IsPending(s.group(), s.inside()),
		Bound:   s.phase != idle, Stray: s.stray,
		Element: elementView(s.expected()), Block: s.block,
	}
}

func bindingView(b lsn.Binding) drift.Binding {
	return drift.Binding{Inside: b.Inside, Last: b.Last, Held: b.State == lsn.Held, UserName: b.UserName}
}

func placeOf(b lsn.Block) drift.Place { return drift.Place{Outside: b.Outside, First: b.First} }

func rowView(b subscriberdb.Binding) drift.Binding {
	return drift.Binding{Inside: b.Inside, Last: lsn.Port(b.Last), Held: b.Held, UserName: b.UserName}
}

func elementView(e nftnat.Entry) drift.Element {
	return drift.Element{Gate: uint8(e.Gate), Outside: e.Outside, First: e.First, Last: e.Last}
}

// entryOf is the reverse of elementView.
func entryOf(inside netip.Addr, e drift.Element) nftnat.Entry {
	return nftnat.Entry{Inside: inside, Gate: nftnat.Gate(e.Gate), Outside: e.Outside, First: e.First, Last: e.Last}
}
