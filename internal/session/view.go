package session

import (
	"net/netip"

	"github.com/sessiond/sessiond/internal/drift"
	"github.com/sessiond/sessiond/internal/lifecycle"
	"github.com/sessiond/sessiond/internal/lsn"
	"github.com/sessiond/sessiond/internal/nftnat"
	"github.com/sessiond/sessiond/internal/subscriberdb"
)

func (m *Manager) slotViewRLocked(s *lifecycle.Slot) drift.Slot {
	r := s.Record()
	return drift.Slot{
		Online: s.Online(), Identity: drift.IdentityOf(&r), Version: r.Version,
		Pending: s.Phase() == lifecycle.Idle && s.Online() && m.engine.IsPending(s.Group(), s.Inside()),
		Bound:   s.Phase() != lifecycle.Idle, Stray: s.Stray(),
		Element: elementView(s.Expected()), Block: s.Block(),
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
