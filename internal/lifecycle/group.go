package lifecycle

import (
	"net/netip"

	"github.com/sessiond/sessiond/internal/guard"
	"github.com/sessiond/sessiond/internal/lsn"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// A Group is what the life cycle knows of one LSN group.
type Group struct {
	Name   string
	Config lsn.GroupConfig
	Guard  *guard.Guard
	Inside []netip.Prefix // whose addresses belong to the group; of several that match, the longest

	// Recent are the latest changes by inside address, while the feed is taken up anew; nil
	// else. A grace time whose Stop was not read is found there.
	Recent map[netip.Addr][]subscriber.Change

	online      int // records that stand
	unconfirmed int // of these, records written back that no BNG has confirmed yet
	held        map[subscriber.Reason]int
	phases      [Cut + 1]int            // slots with a binding
	touched     map[netip.Addr]struct{} // addresses that changed during a comparison; nil outside
}

// NewGroup returns a group with nobody in it.
func NewGroup(c lsn.GroupConfig, limits guard.Limits) *Group {
	return &Group{Name: c.Name, Config: c, Inside: append([]netip.Prefix(nil), c.Inside...), Guard: guard.New(limits), held: map[subscriber.Reason]int{}}
}

// Online counts the records that stand.
func (g *Group) Online() int { return g.online }

// Unconfirmed counts the records that were written back, and that no BNG has confirmed yet.
func (g *Group) Unconfirmed() int { return g.unconfirmed }

// Held counts the subscribers whose removal a guard holds, by reason. It must not be changed.
func (g *Group) Held() map[subscriber.Reason]int { return g.held }

// In counts the slots with a binding in a phase.
func (g *Group) In(p Phase) int { return g.phases[p] }

// Touched reports whether the address changed since [GroupTable.WatchTouches].
func (g *Group) Touched(inside netip.Addr) bool {
	_, touched := g.touched[inside]
	return touched
}

// A GroupTable has the groups that are served, by name.
type GroupTable struct {
	named     map[string]*Group
	comparing int // groups whose touched is kept
}

func newGroupTable() GroupTable { return GroupTable{named: map[string]*Group{}} }

// Add has a group served.
func (t *GroupTable) Add(g *Group) { t.named[g.Name] = g }

// Named returns the group of a name, nil for none.
func (t *GroupTable) Named(name string) *Group { return t.named[name] }

// Of returns the group that an inside address is looked for in, nil for none.
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

// WatchTouches has the addresses of a group remembered that change from now on, or
// forgets them.
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

// touch notes for a comparison that runs that an address of a group changed.
func (t *GroupTable) touch(group string, inside netip.Addr) {
	if t.comparing == 0 {
		return
	}
	if g := t.named[group]; g != nil && g.touched != nil {
		g.touched[inside] = struct{}{}
	}
}

// ForgetGroup has the machine forget a group with all of its slots.
func (m *Machine) ForgetGroup(name string) {
	var gone []*Slot
	for _, s := range m.slots.All() {
		if s.Group() == name {
			gone = append(gone, s)
		}
	}
	for _, s := range gone {
		if s.online {
			m.count(&s.packed, -1)
		}
		m.slots.remove(s.Inside())
	}
	delete(m.groups.named, name)
}

// ServerOf returns the group that an address is served in, nil for none: it need not be
// the one that its prefix is in since the last reload.
func (m *Machine) ServerOf(inside netip.Addr) *Group {
	if s := m.slots.at(inside); s != nil {
		return m.groups.Named(s.Group())
	}
	return m.groups.Of(inside)
}
