package session

import (
	"context"
	"errors"
	"net/netip"

	"github.com/sessiond/sessiond/internal/lsn"
	"github.com/sessiond/sessiond/internal/nftnat"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb"
)

// observation is one look at a group from outside the engine: what the database
// and the kernel hold. Nearly all of that is as the engine has it; this is only
// noted then, or a look at a large group would take more memory than the group.
type observation struct {
	marker  subscriberdb.Marker
	marked  bool   // the database has its epoch marker
	since   string // where the engine stood in the feed before anything was read
	tail    string // end of the feed before the records were read
	rewound bool   // the feed has lost where the engine stood, and not by trimming
	records map[netip.Addr]subscriber.Packed
	stored  map[lsn.Block]subscriberdb.Binding
	kernel  map[netip.Addr]nftnat.Entry
	nobodys []netip.Addr // kernel elements of addresses in no group
	lost    bool         // the kernel was programmed before, and no group has its marker
	behind  bool         // the feed was not taken as far as this look saw
	anew    bool         // the feed is taken up anew behind this look: what it said before may not have been heard

	agreed   map[netip.Addr]agreement // by address, what is as the engine has it, and not in the maps above
	storedSo map[lsn.Block]struct{}   // bindings that are stored as they are
}

// agreement says in what the engine was found right about an address.
type agreement uint8

const (
	agreesRecord  agreement = 1 << iota // the record is the slot's
	agreesElement                       // the kernel holds what the slot says
)

// record returns the record that was seen at an address.
func (o *observation) record(inside netip.Addr) (subscriber.Record, bool) {
	packed, ok := o.records[inside]
	return packed.Record(), ok
}

// observe reads what the database and the kernel hold of a group.
func (m *Manager) observe(ctx context.Context, g *group) (*observation, error) {
	o := &observation{
		since:    m.positionOf(g),
		records:  map[netip.Addr]subscriber.Packed{},
		stored:   map[lsn.Block]subscriberdb.Binding{},
		kernel:   map[netip.Addr]nftnat.Entry{},
		agreed:   map[netip.Addr]agreement{},
		storedSo: map[lsn.Block]struct{}{},
	}
	var err error
	if o.marker, o.marked, err = m.store.Marker(ctx, g.name); err != nil {
		return nil, err
	}
	if o.tail, err = m.store.Tail(ctx, g.name); err != nil {
		return nil, err
	}
	if o.since != "" {
		if o.rewound, err = m.store.Rewound(ctx, g.name, o.since); err != nil {
			return nil, err
		}
	}
	if err := errors.Join(m.observeRecords(ctx, g, o), m.observeBindings(ctx, g, o)); err != nil {
		return nil, err
	}
	return o, m.observeKernel(ctx, g, o)
}

// observeRecords reads whole records only where the engine has none, as at the
// start, or has another version.
func (m *Manager) observeRecords(ctx context.Context, g *group, o *observation) error {
	keep := func(records []subscriber.Record) error {
		for i := range records {
			o.records[records[i].Inside] = records[i].Pack()
		}
		return nil
	}
	if !m.knowsRecords(g) {
		return m.store.Records(ctx, g.name, keep)
	}
	return m.store.Versions(ctx, g.name, func(standing []subscriberdb.Standing) error {
		unknown := m.unknownOf(g, o, standing)
		if len(unknown) == 0 {
			return nil
		}
		records, err := m.store.RecordsAt(ctx, g.name, unknown)
		if err != nil {
			return err
		}
		return keep(records)
	})
}

func (m *Manager) knowsRecords(g *group) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return g.online > 0
}

// unknownOf notes which records are as their slots have them, and returns where
// the others are.
func (m *Manager) unknownOf(g *group, o *observation, standing []subscriberdb.Standing) []netip.Addr {
	m.mu.RLock()
	defer m.mu.RUnlock()
	var unknown []netip.Addr
	for _, r := range standing {
		s := m.slots.at(r.Inside)
		if s != nil && s.online && s.group() == g.name && r.Version != "" && s.packed.Version() == subscriber.ParseVersion(r.Version) {
			o.agreed[r.Inside] |= agreesRecord
		} else {
			unknown = append(unknown, r.Inside)
		}
	}
	return unknown
}

func (m *Manager) observeBindings(ctx context.Context, g *group, o *observation) error {
	return m.store.BindingRows(ctx, g.name, func(rows []subscriberdb.BindingRow) error {
		m.mu.RLock()
		defer m.mu.RUnlock()
		for i := range rows {
			m.observeRowRLocked(g, o, &rows[i])
		}
		return nil
	})
}

func (m *Manager) observeRowRLocked(g *group, o *observation, row *subscriberdb.BindingRow) {
	if b, ok := m.engine.AtOutside(row.Outside, lsn.Port(row.First)); ok && b.Group == g.name {
		var receipt subscriberdb.Receipt
		if stored := storedBinding(&b, &receipt); row.Is(&stored) {
			o.storedSo[b.Block] = struct{}{}
			delete(o.stored, b.Block) // a row may come twice
			return
		}
		delete(o.storedSo, b.Block)
	}
	if b, ok := row.Binding(); ok {
		o.stored[rowBlock(b)] = b
	}
}

func (m *Manager) observeKernel(ctx context.Context, g *group, o *observation) error {
	entries, err := m.kernel.Entries(ctx)
	if err != nil {
		return err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	for _, e := range entries {
		switch m.serverOfLocked(e.Inside) {
		case g:
			if s := m.slots.at(e.Inside); s != nil && s.expected() == e {
				o.agreed[e.Inside] |= agreesElement
			} else {
				o.kernel[e.Inside] = e
			}
		case nil:
			o.nobodys = append(o.nobodys, e.Inside)
		}
	}
	return nil
}
