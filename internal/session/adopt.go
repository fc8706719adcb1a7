package session

import (
	"net/netip"
	"slices"

	"github.com/sessiond/sessiond/internal/lsn"
	"github.com/sessiond/sessiond/internal/nftnat"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb"
)

// adoptLocked takes over, at the start, what stands in the kernel and in the
// stored bindings. What the kernel and the database agree on comes first, then
// what only the kernel has (live flows use it), then what only the database
// has; a block never gets a second owner (I1).
func (m *Manager) adoptLocked(g *group, o *observation, suspect bool) {
	live := make(map[netip.Addr]subscriberdb.Binding)
	for _, row := range o.stored {
		if !row.Held {
			live[row.Inside] = row
		}
	}
	for _, agree := range []bool{true, false} {
		for inside, e := range o.kernel {
			row, ok := live[inside]
			if agrees := ok && rowBlock(row) == entryBlock(e); agrees == agree {
				m.adoptEntryLocked(g, e, row, o)
			}
		}
	}
	for _, row := range o.sortedRows() {
		m.adoptRowLocked(g, row, o, suspect)
	}
	for inside := range o.kernel {
		m.adoptTenureLocked(g, m.slots.at(inside), o, suspect)
	}
	if (suspect || o.lost) && len(o.stored) == 0 {
		m.quarantineLocked(g)
	}
	g.adopted = true
}

// quarantineLocked keeps all free blocks of a group from everybody for a hold: the
// kernel was programmed, and which blocks were in quarantine went with the database
// (NAT-30).
func (m *Manager) quarantineLocked(g *group) {
	m.engine.Quarantine(g.name, m.now())
	blocks, until := m.engine.Quarantined(g.name)
	m.log.Warn("free blocks wait for a hold: the kernel was programmed, and the database knows none of its bindings; new subscribers wait for a block meanwhile",
		"group", g.name, "blocks", blocks, "until", until)
}

// adoptEntryLocked makes a slot of what the kernel holds for one address.
func (m *Manager) adoptEntryLocked(g *group, e nftnat.Entry, row subscriberdb.Binding, o *observation) {
	b := lsn.Binding{
		Group: g.name, Block: entryBlock(e), State: lsn.Active, AllocatedAt: m.now(),
		Holder: lsn.Holder{Inside: e.Inside},
	}
	if rowBlock(row) == b.Block {
		b.Holder, b.AllocatedAt, b.ReleasedAt = rowHolder(row), row.AllocatedAt, row.ReleasedAt
	} else {
		row = subscriberdb.Binding{}
		if r, ok := o.record(e.Inside); ok {
			packed := r.Pack()
			b.Holder = holderOf(&packed)
		}
	}
	s := newSlot(recordOf(g.name, b.Holder), b.Block)
	stands := m.standsLocked(s, e, row, o)
	if stands == draining {
		b.State, b.GraceUntil = lsn.Draining, row.GraceUntil
		m.draining[e.Inside] = struct{}{}
	}
	if err := m.engine.Restore(b); err != nil {
		m.log.Error("kernel element belongs to no binding, will be removed",
			"group", g.name, "inside", e.Inside, "outside", e.Outside, "first_port", e.First, "err", err)
		s.stray = true
	} else if !row.GraceUntil.IsZero() {
		m.adoptGraceLocked(s, row)
	}
	m.enterLocked(s, stands)
	m.slots.put(e.Inside, s)
}

// standsLocked says in which phase a kernel entry and its stored binding are. A
// narrowed gate whose binding is stored as that of the session which is online
// was about to be opened again.
func (m *Manager) standsLocked(s *slot, e nftnat.Entry, row subscriberdb.Binding, o *observation) phase {
	if e.Gate != nftnat.Draining {
		return open
	}
	r, ok := o.record(e.Inside)
	if ok && row.Inside == e.Inside && row.ReleasedAt.IsZero() && s.record().SameSession(&r) {
		return returned
	}
	return draining
}

// adoptRowLocked makes a slot of a stored binding that the kernel lacks.
func (m *Manager) adoptRowLocked(g *group, row subscriberdb.Binding, o *observation, suspect bool) {
	if s := m.slots.at(row.Inside); s != nil && !s.stray && s.block == rowBlock(row) && !row.Held {
		return // the kernel has it
	}
	b := restoredBinding(row)
	s := m.slots.at(row.Inside)
	if s != nil && !row.Held {
		// The address is served from another block; this one must have been in use.
		b.State, b.ReleasedAt = lsn.Held, m.now()
		b.HoldUntil = b.ReleasedAt.Add(g.config.Hold)
	}
	if latest := m.now().Add(g.config.Hold); b.State == lsn.Held && b.HoldUntil.After(latest) {
		b.HoldUntil = latest // written under a clock that was ahead
	}
	if err := m.engine.Restore(b); err != nil {
		m.log.Error("stored binding cannot be restored, dropped", "group", g.name,
			"inside", row.Inside, "outside", row.Outside, "first_port", row.First, "err", err)
		return // the comparison that follows removes the row
	}
	if b.State == lsn.Held {
		return
	}
	s = newSlot(recordOf(g.name, b.Holder), b.Block)
	m.enterLocked(s, saved)
	m.slots.put(row.Inside, s)
	if _, ok := o.records[row.Inside]; !ok && !row.GraceUntil.IsZero() {
		s.end(subscriber.ReasonStop, m.now()) // known to be over, and no session is left to come back to
		s.boundTenure = s.tenure
		return
	}
	m.adoptTenureLocked(g, s, o, suspect)
}

// adoptTenureLocked says whose the adopted kernel state is. Without a record it
// counts as online: the comparison that follows ends it, or has its record
// written back; a draining one, and one with a grace time, is known to be over.
func (m *Manager) adoptTenureLocked(g *group, s *slot, o *observation, suspect bool) {
	if s.online || s.over != nil && s.over.graceUntil.IsZero() {
		return
	}
	r, ok := o.records[s.inside()]
	switch {
	case s.phase == draining, s.over != nil:
		s.end(subscriber.ReasonNone, m.now())
		m.recallLocked(s)
		if ok {
			s.begin(&r)
		}
	case !ok:
		bound := s.record()
		bound.Unconfirmed = suspect
		packed := bound.Pack()
		s.begin(&packed)
		s.boundTenure = s.tenure
	default:
		own := s.packed.SameSession(&r)
		s.begin(&r)
		if own {
			s.boundTenure = s.tenure
		} else {
			s.over = &ending{record: s.packed, reason: subscriber.ReasonSuperseded, at: m.now()}
			m.recallLocked(s)
		}
	}
	if s.online {
		m.countLocked(&s.packed, +1)
		m.expireLocked(s)
	}
}

func recordOf(group string, h lsn.Holder) subscriber.Record {
	return subscriber.Record{
		Key:       subscriber.Key{Group: group, Inside: h.Inside},
		SessionID: subscriber.SessionID{AcctSessionID: h.AcctSessionID},
		UserName:  h.UserName,
	}
}

func entryBlock(e nftnat.Entry) lsn.Block {
	return lsn.Block{Outside: e.Outside, First: lsn.Port(e.First), Last: lsn.Port(e.Last)}
}

func rowBlock(b subscriberdb.Binding) lsn.Block {
	return lsn.Block{Outside: b.Outside, First: lsn.Port(b.First), Last: lsn.Port(b.Last)}
}

func rowHolder(b subscriberdb.Binding) lsn.Holder {
	return lsn.Holder{Inside: b.Inside, Identity: b.Identity, UserName: b.UserName, AcctSessionID: b.AcctSessionID}
}

func restoredBinding(b subscriberdb.Binding) lsn.Binding {
	state := lsn.Active
	if b.Held {
		state = lsn.Held
	}
	return lsn.Binding{
		Group: b.Group, Block: rowBlock(b), Holder: rowHolder(b), State: state,
		AllocatedAt: b.AllocatedAt, ReleasedAt: b.ReleasedAt, HoldUntil: b.HoldUntil,
		Receipt: restoredReceipt(b.Receipt),
	}
}

// storedBinding is the database's form of a binding. Its receipt, if it has one, is
// put into the room.
func storedBinding(b *lsn.Binding, room *subscriberdb.Receipt) subscriberdb.Binding {
	stored := subscriberdb.Binding{
		Group: b.Group, Inside: b.Inside, Outside: b.Outside,
		First: uint16(b.First), Last: uint16(b.Last), Held: b.State == lsn.Held,
		Identity: b.Identity, UserName: b.UserName, AcctSessionID: b.AcctSessionID,
		AllocatedAt: b.AllocatedAt, ReleasedAt: b.ReleasedAt, HoldUntil: b.HoldUntil,
		GraceUntil: b.GraceUntil,
	}
	if b.Receipt != nil {
		*room = storedReceipt(b.Receipt)
		stored.Receipt = room
	}
	return stored
}

// sortedRows returns the stored bindings, live ones first, so that a held one
// never keeps a live one out.
func (o *observation) sortedRows() []subscriberdb.Binding {
	rows := make([]subscriberdb.Binding, 0, len(o.stored))
	for _, row := range o.stored {
		rows = append(rows, row)
	}
	slices.SortFunc(rows, func(a, b subscriberdb.Binding) int {
		switch {
		case a.Held == b.Held:
			return a.Inside.Compare(b.Inside)
		case b.Held:
			return -1
		}
		return 1
	})
	return rows
}
