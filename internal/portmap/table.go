package portmap

import (
	"container/heap"
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/sessiond/sessiond/internal/addrrange"
	"github.com/sessiond/sessiond/internal/addrtable"
	"github.com/sessiond/sessiond/internal/nat"
)

// A Table has the mappings of one group: those in force, and those that have ended and whose
// endpoints are in quarantine. It is not safe for concurrent use.
type Table struct {
	config  Config
	outside addrtable.Table[*addressPorts]
	owners  map[nat.Owner][]*nat.Mapping // in force
	held    map[nat.Owner][]*nat.Mapping // by PCP and ended, the oldest first
	due     dueTimes
	dueMost int // length of due at which outdated ones go
	inForce map[nat.MappingKind]int
	stored  int                  // mappings that are not configured, ended ones included
	cursor  map[uint8]netip.Addr // by protocol, the outside address that gave the last port
}

// addressPorts are the mappings of one outside address.
type addressPorts struct {
	at     map[protocolPort]*nat.Mapping
	used   map[uint8]int      // mappings by protocol, ended ones included
	cursor map[uint8]nat.Port // by protocol, the port that was given last
	full   map[uint8]bool     // by protocol: since a search by PCP found no port, none was freed
}

type protocolPort struct {
	protocol uint8
	port     nat.Port
}

func portOf(e nat.Endpoint) protocolPort { return protocolPort{e.Protocol, nat.Port(e.Port())} }

// New returns a Table with the configured mappings.
func New(c Config) *Table {
	t := &Table{owners: map[nat.Owner][]*nat.Mapping{}, held: map[nat.Owner][]*nat.Mapping{}, inForce: map[nat.MappingKind]int{}, cursor: map[uint8]netip.Addr{}}
	_, _ = t.Configure(c, time.Time{}) // nothing is in its way
	return t
}

// Config returns the bounds in force.
func (t *Table) Config() *Config { return &t.config }

// Len returns the number of mappings of a kind in force.
func (t *Table) Len(k nat.MappingKind) int { return t.inForce[k] }

// Stored returns the number of mappings that are not the configuration's, ended ones included.
func (t *Table) Stored() int { return t.stored }

// Empty reports whether the table has no mapping, and no endpoint in quarantine.
func (t *Table) Empty() bool { return t.outside.Len() == 0 }

// At returns the mapping of an outside endpoint, in force or ended.
func (t *Table) At(e nat.Endpoint) (nat.Mapping, bool) {
	if m := t.at(e); m != nil {
		return *m, true
	}
	return nat.Mapping{}, false
}

func (t *Table) at(e nat.Endpoint) *nat.Mapping {
	if ports, ok := t.outside.At(e.Addr()); ok {
		return ports.at[portOf(e)]
	}
	return nil
}

// Of yields the mappings in force of an owner that the configuration has room for, in the
// order in which they were made.
func (t *Table) Of(o nat.Owner) iter.Seq[nat.Mapping] {
	return func(yield func(nat.Mapping) bool) {
		for _, m := range t.owners[o] {
			if t.config.Has(m.Outside) && !yield(*m) {
				return
			}
		}
	}
}

// At the inside port of an owner.

// OfPort returns the mapping in force of a port of an owner.
func (t *Table) OfPort(o nat.Owner, protocol uint8, port nat.Port) (nat.Mapping, bool) {
	for _, m := range t.owners[o] {
		if m.Outside.Protocol == protocol && m.InsidePort == port {
			return *m, true
		}
	}
	return nat.Mapping{}, false
}

// Owns reports whether an owner has a mapping in force.
func (t *Table) Owns(o nat.Owner) bool { return len(t.owners[o]) > 0 }

// From yields all mappings, ended ones included, by outside address, port and protocol, from
// an endpoint on, inclusive. The table must not change meanwhile.
func (t *Table) From(e nat.Endpoint) iter.Seq[nat.Mapping] {
	return func(yield func(nat.Mapping) bool) {
		for outside, ports := range t.outside.From(e.Addr()) {
			list := slices.SortedFunc(maps.Values(ports.at), func(a, b *nat.Mapping) int { return a.Outside.Compare(b.Outside) })
			for _, m := range list {
				if outside == e.Addr() && m.Outside.Compare(e) < 0 {
					continue
				}
				if !yield(*m) {
					return
				}
			}
		}
	}
}

// In returns the number of mappings in force with a port of an outside prefix.
func (t *Table) In(outside netip.Prefix) (n int) {
	for a, ports := range t.outside.From(outside.Masked().Addr()) {
		if !outside.Contains(a) {
			break
		}
		for _, m := range ports.at {
			if !m.Ended() {
				n++
			}
		}
	}
	return n
}

// Changes.

// Plan completes a mapping that is to be made: without an outside endpoint it chooses one, of
// the address prefer if that has a free port, else of any (RFC 6888 REQ-2). taken reports
// whether somebody else has an endpoint. Plan changes nothing but where the next search
// begins; Put makes the mapping.
func (t *Table) Plan(m nat.Mapping, prefer netip.Addr, taken func(nat.Endpoint) bool) (nat.Mapping, error) {
	if err := t.config.checkOwn(&m); err != nil {
		return m, err
	}
	if has := t.ofInside(&m); has != nil {
		return m, fmt.Errorf("%s port %d of %v is mapped to %v: %w; delete that mapping first", nat.ProtocolName(m.Outside.Protocol), m.InsidePort, m.Owner, has.Outside.AddrPort, ErrExists)
	}
	if err := t.mayHaveMore(&m); err != nil {
		return m, err
	}
	if m.Outside.IsValid() {
		if t.holdsMany(&m) && t.at(m.Outside) == nil {
			return m, fmt.Errorf("%v has ports in quarantine, which it gets first: %w", m.Owner, ErrFull)
		}
		return m, t.mayHave(&m, taken)
	}
	if len(t.config.Outside) == 0 {
		return m, fmt.Errorf("all outside prefixes of the group drain, %w for a mapping; add one, or put one back (sessionctl pool add)", ErrFull)
	}
	e, ok := t.choose(&m, prefer, taken)
	if !ok {
		return m, fmt.Errorf("all %d %s ports of each outside address are mapped or in quarantine, %w; widen static_ports, or add an outside prefix", t.config.Range.Len(), nat.ProtocolName(m.Outside.Protocol), ErrFull)
	}
	m.Outside = e
	return m, nil
}

// mayHaveMore returns an error if the owner of m has as many mappings of its kind as allowed.
func (t *Table) mayHaveMore(m *nat.Mapping) error {
	own := 0
	for _, has := range t.owners[m.Owner] {
		if has.Kind == m.Kind {
			own++
		}
	}
	switch {
	case m.Kind == nat.MappingPCP && own >= t.config.PCP:
		return fmt.Errorf("%v has %d mappings, %w for more (pcp.mappings)", m.Owner, own, ErrQuota)
	case m.Kind == nat.MappingStatic && t.config.PerOwner > 0 && own >= t.config.PerOwner:
		return fmt.Errorf("%v has %d mappings, %w for more; delete one, or raise static_mappings_per_owner", m.Owner, own, ErrFull)
	}
	return nil
}

// holdsMany reports whether the binding of a mapping by PCP has as many ports of the protocol in
// quarantine as it may have mappings. It gets these again before others then, or a subscriber that
// asks and deletes without end would take all ports from its neighbors.
func (t *Table) holdsMany(m *nat.Mapping) bool {
	n := 0
	if m.Kind == nat.MappingPCP {
		for _, has := range t.held[m.Owner] {
			if has.Outside.Protocol == m.Outside.Protocol && has.BoundAt.Equal(m.BoundAt) {
				n++
			}
		}
	}
	return n > 0 && n >= t.config.PCP
}

// again returns the endpoint that a binding has had in quarantine for longest.
func (t *Table) again(m *nat.Mapping, taken func(nat.Endpoint) bool) (nat.Endpoint, bool) {
	for _, has := range t.held[m.Owner] {
		if has.Outside.Protocol == m.Outside.Protocol && has.BoundAt.Equal(m.BoundAt) && t.config.Has(has.Outside) && !taken(has.Outside) {
			return has.Outside, true
		}
	}
	return nat.Endpoint{}, false
}

// ofInside returns the mapping in force of the owner's inside port and protocol of m, nil for none.
func (t *Table) ofInside(m *nat.Mapping) *nat.Mapping {
	for _, has := range t.owners[m.Owner] {
		if has.Outside.Protocol == m.Outside.Protocol && has.InsidePort == m.InsidePort {
			return has
		}
	}
	return nil
}

// mayHave returns an error unless the mapping's outside endpoint is free for its owner.
func (t *Table) mayHave(m *nat.Mapping, taken func(nat.Endpoint) bool) error {
	switch has := t.at(m.Outside); {
	case has != nil && !has.Ended():
		return fmt.Errorf("%v is mapped to port %d of %v: %w; name another port, or none", m.Outside, has.InsidePort, has.Owner, ErrExists)
	case has != nil && !mayReclaim(m, has):
		return fmt.Errorf("%v was of %v, and is in quarantine until %s (hold): %w; name another port, or none", m.Outside, has.Owner, has.HoldUntil.UTC().Format(time.RFC3339), ErrExists)
	case m.Kind == nat.MappingPCP && !t.mayAsk(m):
		return fmt.Errorf("%v: %w by PCP: it is well-known, of PCP itself, or beside a port of another owner", m.Outside, ErrExists)
	case taken(m.Outside):
		return fmt.Errorf("%v is in a block that a subscriber got before static_ports: %w; name another port, or none", m.Outside, ErrExists)
	}
	return nil
}

// mayReclaim reports whether a mapping may have the endpoint of an ended one in its quarantine:
// its owner's own. A binding of the same inside address is another owner's, unless the client
// shows that it is the one from before by its nonce, which others do not know (RFC 6887
// section 14).
func mayReclaim(m, ended *nat.Mapping) bool {
	if ended.Owner != m.Owner || ended.Kind != m.Kind {
		return false
	}
	again := m.Nonce != [12]byte{} && m.Nonce == ended.Nonce && m.InsidePort == ended.InsidePort
	return m.Kind != nat.MappingPCP || again || m.BoundAt.Equal(ended.BoundAt)
}

// mayAsk reports whether a subscriber may get the endpoint of m by PCP. The port of the other
// protocol beside it is of nobody else: a client that asks for one often asks for both
// (RFC 6886 section 3.3).
func (t *Table) mayAsk(m *nat.Mapping) bool {
	if !t.config.mayAsk(m.Outside) {
		return false
	}
	other := nat.Endpoint{Protocol: nat.ProtocolTCP + nat.ProtocolUDP - m.Outside.Protocol, AddrPort: m.Outside.AddrPort}
	beside := t.at(other)
	return beside == nil || beside.Owner == m.Owner
}

// choose returns a free outside endpoint: that of the owner's mapping of the same inside port
// of another protocol, if it is free, else the next one on the preferred address, else the
// next one on any.
func (t *Table) choose(m *nat.Mapping, prefer netip.Addr, taken func(nat.Endpoint) bool) (nat.Endpoint, bool) {
	if m.Kind == nat.MappingPCP {
		return t.chooseAsked(m, prefer, taken)
	}
	if e, ok := t.besideOwn(m, taken, func(has *nat.Mapping) bool { return has.InsidePort == m.InsidePort }); ok {
		return e, true
	}
	if prefer.Is4() && addrrange.InOne(t.config.Outside, prefer) {
		if e, ok := t.freeOf(prefer, m.Outside.Protocol, taken); ok {
			return e, true
		}
	}
	for a := range t.addressesFrom(t.cursor[m.Outside.Protocol]) {
		if e, ok := t.freeOf(a, m.Outside.Protocol, taken); ok {
			t.cursor[m.Outside.Protocol] = a
			return e, true
		}
	}
	return nat.Endpoint{}, false
}

// chooseAsked is choose for a mapping by PCP. The client learns one outside address, that of its
// binding (RFC 6888 REQ-2): it gets no port of another one, and none that it may not ask for.
func (t *Table) chooseAsked(m *nat.Mapping, outside netip.Addr, taken func(nat.Endpoint) bool) (e nat.Endpoint, ok bool) {
	if !outside.Is4() || !addrrange.InOne(t.config.Outside, outside) {
		return e, false
	}
	blocked := false // by a block, which goes without a word to the table
	unusable := func(e nat.Endpoint) bool {
		want := *m
		want.Outside = e
		if e.Addr() != outside || !t.mayAsk(&want) {
			return true
		}
		if taken(e) {
			blocked = true
			return true
		}
		return false
	}
	if t.holdsMany(m) {
		return t.again(m, unusable)
	}
	if e, ok = t.besideOwn(m, unusable, func(has *nat.Mapping) bool { return has.InsidePort == m.InsidePort }); ok {
		return e, true
	}
	ports, known := t.outside.At(outside)
	if !known || !ports.full[m.Outside.Protocol] {
		if e, ok = t.freeOf(outside, m.Outside.Protocol, unusable); ok {
			return e, true
		}
		if known && !blocked {
			ports.full[m.Outside.Protocol] = true
		}
	}
	return t.besideOwn(m, unusable, func(*nat.Mapping) bool { return true })
}

// besideOwn returns a free endpoint beside one that the owner has, or has in quarantine, for
// another protocol.
func (t *Table) besideOwn(m *nat.Mapping, taken func(nat.Endpoint) bool, fits func(*nat.Mapping) bool) (nat.Endpoint, bool) {
	for _, list := range [][]*nat.Mapping{t.owners[m.Owner], t.held[m.Owner]} {
		for _, has := range list {
			e := nat.Endpoint{Protocol: m.Outside.Protocol, AddrPort: has.Outside.AddrPort}
			if fits(has) && addrrange.InOne(t.config.Outside, e.Addr()) && t.config.Has(e) && t.at(e) == nil && !taken(e) {
				return e, true
			}
		}
	}
	return nat.Endpoint{}, false
}

// addressesFrom yields each address that gives ports once, beginning with one.
func (t *Table) addressesFrom(from netip.Addr) iter.Seq[netip.Addr] {
	return func(yield func(netip.Addr) bool) {
		at := max(0, slices.IndexFunc(t.config.Outside, func(p netip.Prefix) bool { return from.IsValid() && p.Contains(from) }))
		for i := range len(t.config.Outside) + 1 { // the part of the first prefix before from comes last
			p := t.config.Outside[(at+i)%len(t.config.Outside)].Masked()
			a := p.Addr()
			if i == 0 && from.IsValid() && p.Contains(from) {
				a = from
			}
			for ; p.Contains(a) && (i < len(t.config.Outside) || a != from); a = a.Next() {
				if !yield(a) {
					return
				}
			}
			if !from.IsValid() && i+1 == len(t.config.Outside) {
				return
			}
		}
	}
}

// freeOf returns the next free endpoint of an outside address.
func (t *Table) freeOf(a netip.Addr, protocol uint8, taken func(nat.Endpoint) bool) (nat.Endpoint, bool) {
	r := t.config.Range
	ports, ok := t.outside.At(a)
	if !ok {
		ports = &addressPorts{}
	}
	if ports.used[protocol] >= r.Len() {
		return nat.Endpoint{}, false
	}
	next := int(ports.cursor[protocol]) + 1
	if !r.contains(nat.Port(next)) || next > int(r.Last) {
		next = int(r.First)
	}
	for range r.Len() {
		e := nat.Endpoint{Protocol: protocol, AddrPort: netip.AddrPortFrom(a, uint16(next))}
		if ports.at[portOf(e)] == nil && !taken(e) {
			return e, true
		}
		if next++; next > int(r.Last) {
			next = int(r.First)
		}
	}
	return nat.Endpoint{}, false
}

// Put makes a mapping, or puts back one that was stored, ended ones too. It returns false, and
// changes nothing, where another one has its endpoint, or its owner's inside port. Its own
// endpoint in quarantine it takes back.
func (t *Table) Put(m nat.Mapping) bool {
	if has := t.at(m.Outside); has != nil {
		if !has.Ended() || !mayReclaim(&m, has) && !m.Configured {
			return false
		}
		t.Remove(m.Outside)
	}
	if !m.Ended() && t.ofInside(&m) != nil {
		return false
	}
	ports, ok := t.outside.At(m.Outside.Addr())
	if !ok {
		ports = &addressPorts{at: map[protocolPort]*nat.Mapping{}, used: map[uint8]int{}, cursor: map[uint8]nat.Port{}, full: map[uint8]bool{}}
		t.outside.Put(m.Outside.Addr(), ports)
	}
	ports.at[portOf(m.Outside)] = &m
	ports.used[m.Outside.Protocol]++
	if !m.Configured {
		t.stored++
	}
	ports.cursor[m.Outside.Protocol] = nat.Port(m.Outside.Port())
	if !m.Ended() {
		t.owners[m.Owner] = append(t.owners[m.Owner], &m)
		t.inForce[m.Kind]++
	} else {
		t.hold(&m)
	}
	t.await(&m)
	return true
}

// End ends a mapping in force: its endpoint goes into quarantine. It returns the ended one.
func (t *Table) End(e nat.Endpoint, now time.Time) (nat.Mapping, bool) {
	m := t.at(e)
	if m == nil || m.Ended() {
		return nat.Mapping{}, false
	}
	t.disown(m)
	m.HoldUntil = now.Add(t.config.Hold)
	t.hold(m)
	t.await(m)
	return *m, true
}

// EndAsked ends the mappings in force that the subscriber at an inside address asked for by PCP,
// except those of the binding that was allocated at kept. It returns the ended ones.
func (t *Table) EndAsked(inside netip.Addr, kept, now time.Time) (ended []nat.Mapping) {
	for _, m := range slices.Clone(t.owners[nat.Owner{Inside: inside}]) {
		if m.Kind == nat.MappingPCP && !m.BoundAt.Equal(kept) {
			one, _ := t.End(m.Outside, now)
			ended = append(ended, one)
		}
	}
	return ended
}

// Renew gives a mapping in force the lifetime, and the peer, of a renewed one. It returns false
// where it is not in force any more, for the binding.
func (t *Table) Renew(renewed *nat.Mapping) bool {
	m := t.at(renewed.Outside)
	if m == nil || m.Ended() || !m.BoundAt.Equal(renewed.BoundAt) {
		return false
	}
	m.ExpiresAt, m.Peer = renewed.ExpiresAt, renewed.Peer
	t.await(m)
	return true
}

// disown takes a mapping in force from its owner.
func (t *Table) disown(m *nat.Mapping) {
	t.inForce[m.Kind]--
	removeFrom(t.owners, m)
}

// hold notes that a mapping has ended.
func (t *Table) hold(m *nat.Mapping) {
	if m.Kind == nat.MappingPCP {
		t.held[m.Owner] = append(t.held[m.Owner], m)
	}
}

// removeFrom takes a mapping from those of its owner.
func removeFrom(of map[nat.Owner][]*nat.Mapping, m *nat.Mapping) {
	left := slices.DeleteFunc(of[m.Owner], func(x *nat.Mapping) bool { return x == m })
	if len(left) == 0 {
		delete(of, m.Owner)
		return
	}
	of[m.Owner] = left
}

// Remove forgets a mapping, and frees its endpoint.
func (t *Table) Remove(e nat.Endpoint) {
	m := t.at(e)
	if m == nil {
		return
	}
	if m.Ended() {
		removeFrom(t.held, m)
	} else {
		t.disown(m)
	}
	if !m.Configured {
		t.stored--
	}
	ports, _ := t.outside.At(e.Addr())
	delete(ports.at, portOf(e))
	clear(ports.full)
	if ports.used[e.Protocol]--; len(ports.at) == 0 {
		t.outside.Remove(e.Addr())
	}
}

// Configure replaces the bounds and the configured mappings. It returns the configured ones that
// end, those that begin, and the others that have had no room until now. The endpoint of one that
// ends goes into quarantine, except that another configured one may take it at once: a person has
// given it to that owner. An error names a mapping in the way, with the remedy, and nothing has
// changed then.
func (t *Table) Configure(c Config, now time.Time) (changed Changes, err error) {
	if err := t.MayConfigure(c); err != nil {
		return changed, err
	}
	wanted := make(map[nat.Endpoint]*nat.Mapping, len(c.Configured))
	inTheWay := map[nat.Endpoint]bool{} // of mappings by PCP, which give way
	for i := range c.Configured {
		wanted[c.Configured[i].Outside] = &c.Configured[i]
		if has := t.ofInside(&c.Configured[i]); has != nil {
			inTheWay[has.Outside] = true
		}
	}
	for m := range t.From(nat.Endpoint{}) {
		want := wanted[m.Outside]
		switch {
		case m.Ended():
		case m.Configured && (want == nil || *want != m), m.Kind == nat.MappingPCP && (want != nil || inTheWay[m.Outside] || !c.Has(m.Outside)):
			changed.Ended = append(changed.Ended, m)
			changed.Unstored = changed.Unstored || !m.Configured
		}
	}
	for i := range changed.Ended {
		t.Remove(changed.Ended[i].Outside)
	}
	for m := range t.From(nat.Endpoint{}) {
		if !m.Ended() && !t.config.Has(m.Outside) && c.Has(m.Outside) {
			changed.Begun = append(changed.Begun, m)
		}
	}
	t.config = c
	for _, ports := range t.outside.From(netip.Addr{}) {
		clear(ports.full)
	}
	for i := range c.Configured {
		if t.Put(c.Configured[i]) {
			changed.Begun = append(changed.Begun, c.Configured[i])
		}
	}
	for _, m := range changed.Ended {
		if c.Has(m.Outside) {
			m.Configured, m.HoldUntil = false, now.Add(c.Hold)
			changed.Unstored = t.Put(m) || changed.Unstored
		}
	}
	return changed, nil
}

// Changes are the mappings that a configuration took away, and those that it brought into force.
type Changes struct {
	Ended, Begun []nat.Mapping
	Unstored     bool // mappings that are stored are other ones than before
}

// MayConfigure returns the error that Configure would return. A stored mapping that has no room
// as it is, since a start without its ports, is in nobody's way. One that a subscriber asked for
// by PCP is not either: it ends.
func (t *Table) MayConfigure(c Config) error {
	for m := range t.From(nat.Endpoint{}) {
		if !m.Configured && !m.Ended() && m.Kind != nat.MappingPCP && t.config.Has(m.Outside) && !c.Has(m.Outside) {
			return fmt.Errorf("%v of %v would have no port of the group any more; delete it first (sessionctl mapping delete), or keep its outside prefix and static_ports", m.Outside, m.Owner)
		}
	}
	for i := range c.Configured {
		want := &c.Configured[i]
		if err := c.checkOwn(want); err != nil {
			return fmt.Errorf("configured mapping %v of %v: %w", want.Outside, want.Owner, err)
		}
		if has := t.at(want.Outside); has != nil && !has.Configured && !has.Ended() && has.Kind != nat.MappingPCP {
			return fmt.Errorf("configured mapping %v of %v: the endpoint is mapped to %v since %s; delete that mapping first, or write another port", want.Outside, want.Owner, has.Owner, has.CreatedAt.UTC().Format(time.RFC3339))
		}
		if has := t.ofInside(want); has != nil && !has.Configured && has.Kind != nat.MappingPCP {
			return fmt.Errorf("configured mapping %v of %v: its inside port %d is mapped to %v already; delete that mapping first, or take this one out", want.Outside, want.Owner, want.InsidePort, has.Outside.AddrPort)
		}
	}
	return nil
}

// Time.

// dueTimes is a heap of the times at which mappings have to be looked at; some may be outdated.
type dueTimes []dueTime

type dueTime struct {
	at      time.Time
	outside nat.Endpoint
}

func (d dueTimes) Len() int           { return len(d) }
func (d dueTimes) Less(i, j int) bool { return d[i].at.Before(d[j].at) }
func (d dueTimes) Swap(i, j int)      { d[i], d[j] = d[j], d[i] }
func (d *dueTimes) Push(x any)        { *d = append(*d, x.(dueTime)) }
func (d *dueTimes) Pop() any {
	last := len(*d) - 1
	x := (*d)[last]
	*d = (*d)[:last]
	return x
}

// dueAt returns when the mapping has to be looked at: the end of its quarantine or lifetime;
// zero for never.
func dueAt(m *nat.Mapping) time.Time {
	if m.Ended() {
		return m.HoldUntil
	}
	return m.ExpiresAt
}

func (t *Table) await(m *nat.Mapping) {
	at := dueAt(m)
	if at.IsZero() {
		return
	}
	heap.Push(&t.due, dueTime{at, m.Outside})
	if len(t.due) > t.dueMost { // mappings that were removed long before their time
		t.due = slices.DeleteFunc(t.due, func(d dueTime) bool { return !t.stands(d) })
		heap.Init(&t.due)
		t.dueMost = 2*len(t.due) + dueLeast
	}
}

// dueLeast is the number of outdated times that are always kept.
const dueLeast = 64

// stands reports whether the mapping of an endpoint is due at a time.
func (t *Table) stands(d dueTime) bool {
	m := t.at(d.outside)
	return m != nil && dueAt(m).Equal(d.at)
}

// Due returns a mapping whose lifetime, or whose quarantine if it has ended, is over at a
// time. Each is returned once; End or Remove it.
func (t *Table) Due(now time.Time) (nat.Mapping, bool) {
	for len(t.due) > 0 && !t.due[0].at.After(now) {
		d := heap.Pop(&t.due).(dueTime)
		if t.stands(d) {
			return *t.at(d.outside), true
		}
	}
	return nat.Mapping{}, false
}
