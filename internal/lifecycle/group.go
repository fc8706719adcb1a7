package lifecycle

import (
	"net/netip"
	"time"

	"github.com/sessiond/sessiond/internal/guard"
	"github.com/sessiond/sessiond/internal/lsn"
	"github.com/sessiond/sessiond/internal/portmap"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// A Group is the life cycle's state of one LSN group.
type Group struct {
	Name   string
	Config lsn.GroupConfig
	Guard  *guard.Guard
	Inside []netip.Prefix // its addresses belong to the group; of several matches, the longest

	// Recent are the latest changes by inside address while the feed is taken up
	// again; nil otherwise. They show grace times whose Stop was not read.
	Recent map[netip.Addr][]subscriber.Change

	Mappings *portmap.Table        // those that outlive their sessions
	users    map[string]netip.Addr // by User-Name, the address that has the mappings of the user

	// By inside address of a session whose block was taken away, when it got its first block;
	// until it gets another one.
	evicted map[netip.Addr]time.Time

	online      int // records in force
	unconfirmed int // of these, records written back and not yet confirmed by a BNG
	held        map[subscriber.Reason]int
	phases      [Cut + 1]int            // slots with a binding
	touched     map[netip.Addr]struct{} // addresses that changed during a comparison; nil outside
}

// NewGroup returns a group without subscribers.
func NewGroup(c lsn.GroupConfig, limits guard.Limits) *Group {
	return &Group{
		Name: c.Name, Config: c, Inside: append([]netip.Prefix(nil), c.Inside...), Guard: guard.New(limits), held: map[subscriber.Reason]int{},
		Mappings: portmap.New(MappingConfig(&c)), users: map[string]netip.Addr{}, evicted: map[netip.Addr]time.Time{},
	}
}

// Online returns the number of records in force.
func (g *Group) Online() int { return g.online }

// Unconfirmed returns the number of records that were written back, and that no
// BNG has confirmed yet.
func (g *Group) Unconfirmed() int { return g.unconfirmed }

// Held returns the number of suspended removals, by reason. The caller must not
// change the map.
func (g *Group) Held() map[subscriber.Reason]int { return g.held }

// In returns the number of slots with a binding in a phase.
func (g *Group) In(p Phase) int { return g.phases[p] }

// Touched reports whether the address changed since [GroupTable.WatchTouches].
func (g *Group) Touched(inside netip.Addr) bool {
	_, touched := g.touched[inside]
	return touched
}

// A GroupTable has the served groups, by name.
type GroupTable struct {
	named     map[string]*Group
	comparing int // groups that record touched addresses
}

func newGroupTable() GroupTable { return GroupTable{named: map[string]*Group{}} }

// Add adds a group to serve.
func (t *GroupTable) Add(g *Group) { t.named[g.Name] = g }

// Named returns the group with a name, nil for none.
func (t *GroupTable) Named(name string) *Group { return t.named[name] }

// Of returns the group whose prefixes contain an inside address, nil for none.
func (t *GroupTable) Of(inside netip.Addr) *Group {
	var found *Group
	bits := -1
	for _, g := range t.named {
		for _, p := range g.Inside {
			if p.Bits() > bits && p.Contains(inside) {
				found, bits = g, p.Bits()
			}
		}
	}
	return found
}

// WatchTouches starts recording the addresses of a group that change, or stops
// it.
func (t *GroupTable) WatchTouches(g *Group, on bool) {
	if g.touched != nil {
		t.comparing--
	}
	g.touched = nil
	if on {
		g.touched = map[netip.Addr]struct{}{}
		t.comparing++
	}
}

// ForgetGroup removes a group with all of its slots.
func (m *Machine) ForgetGroup(name string) {
	var gone []*Slot
	for _, s := range m.slots.All() {
		if s.packed.Group() == name {
			gone = append(gone, s)
		}
	}
	for _, s := range gone {
		if s.online {
			m.count(&s.packed, -1)
		}
		m.slots.remove(s.packed.Inside())
	}
	delete(m.groups.named, name)
}

// ServerOf returns the group that serves an address, nil for none. After a
// reload it may differ from the group whose prefixes contain the address.
func (m *Machine) ServerOf(inside netip.Addr) *Group {
	if s := m.slots.at(inside); s != nil {
		return m.groups.named[s.packed.Group()]
	}
	return m.groups.Of(inside)
}

// Records that others removed go through the guard of their group before their
// end is announced. Of a wave that is too large it lets a part pass; the other
// records are written back, and wait for a person (DEL-13). Ends by a NAS or a
// person come as Deleted changes, and bypass the guard.

// judgment is the guard's answer about a slot's missing record, until the
// record is updated.
type judgment uint8

const (
	unjudged judgment = iota
	passed            // it may end
	held              // it is written back
)

// Passes reports whether the missing record of a slot, nil for none, may end
// for the reason. The guard is asked once for each record, however often its
// absence is noticed. alarm is the guard's answer if that exceeds its limit for
// the first time in this wave.
func (g *Group) Passes(s *Slot, why subscriber.Reason, now time.Time) (passes bool, alarm *guard.Answer) {
	if s == nil || !s.online || s.packed.Group() != g.Name {
		return true, nil // no subscriber is served
	}
	if s.judged != unjudged {
		return s.judged == passed, nil
	}
	answer := g.Guard.Ask(why, 1, g.online, now)
	if answer.First {
		alarm = &answer
	}
	if s.judged = passed; answer.Passed == 0 {
		s.judged = held
	}
	return s.judged == passed, alarm
}
