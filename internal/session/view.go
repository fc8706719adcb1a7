package session

import (
	"net/netip"

	"github.com/sessiond/sessiond/internal/drift"
	"github.com/sessiond/sessiond/internal/lsn"
	"github.com/sessiond/sessiond/internal/nftnat"
	"github.com/sessiond/sessiond/internal/subscriberdb"
)

// views puts what was observed beside what the engine believes, but for what
// agrees at first sight. They are compared without the lock: what changes meanwhile
// is remembered as touched, and left for the next time.
func (m *Manager) views(g *group, o *observation) drift.Views {
	v := drift.Views{
		Database: drift.Database{Records: o.records, Bindings: make(map[drift.Place]drift.Binding, len(o.stored))},
		Engine:   drift.Engine{Slots: map[netip.Addr]drift.Slot{}, Bindings: map[drift.Place]drift.Binding{}},
		Kernel:   drift.Kernel{Elements: make(map[netip.Addr]drift.Element, len(o.kernel))},
	}
	for block, row := range o.stored {
		v.Database.Bindings[placeOf(block)] = rowView(row)
	}
	for inside, e := range o.kernel {
		v.Kernel.Elements[inside] = elementView(e)
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	for inside, s := range walk(m.mu.RLocker(), m.slots.all()) {
		if s.group() == g.name && !s.agrees(o.agreed[inside]) {
			m.showRLocked(&v, s, o.agreed[inside])
		}
	}
	for from, more := (netip.Addr{}), true; more; more = from.IsValid() {
		from = m.engine.BindingsFrom(g.name, from, breathEvery, func(b lsn.Binding) {
			if _, so := o.storedSo[b.Block]; !so {
				v.Engine.Bindings[placeOf(b.Block)] = bindingView(b)
			}
		})
		breathe(m.mu.RLocker())
	}
	return v
}

// agrees reports whether nothing about a slot can differ.
func (s *slot) agrees(a agreement) bool {
	return s.online && s.phase == open && !s.stray && a == agreesRecord|agreesElement
}

// showRLocked puts a slot into the views, and beside it what was found to be as it
// says.
func (m *Manager) showRLocked(v *drift.Views, s *slot, a agreement) {
	inside := s.inside()
	v.Engine.Slots[inside] = m.slotViewRLocked(s)
	if a&agreesRecord != 0 {
		v.Database.Records[inside] = s.packed
	}
	if a&agreesElement != 0 {
		v.Kernel.Elements[inside] = elementView(s.expected())
	}
}

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
