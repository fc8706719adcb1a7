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

// Touched reports whether the address changed since [Machine.WatchTouches].
func (g *Group) Touched(inside netip.Addr) bool {
	_, touched := g.touched[inside]
	return touched
}

// AddGroup has the machine serve a group.
func (m *Machine) AddGroup(g *Group) { m.groups[g.Name] = g }

// ForgetGroup has the machine forget a group with all of its slots.
func (m *Machine) ForgetGroup(name string) {
	var gone []*Slot
	for _, s := range m.slots.all() {
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
	delete(m.groups, name)
}

// GroupOf returns the group of an inside address, nil for none.
func (m *Machine) GroupOf(inside netip.Addr) *Group {
	var found *Group
	bits := -1
	for _, g := range m.groups {
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
func (m *Machine) WatchTouches(g *Group, on bool) {
	if g.touched != nil {
		m.comparing--
	}
	g.touched = nil
	if on {
		g.touched = map[netip.Addr]struct{}{}
		m.comparing++
	}
}

// touch notes for a comparison that runs that the slot's address changed.
func (m *Machine) touch(s *Slot) {
	if m.comparing > 0 {
		m.touchKey(s.Key())
	}
}

func (m *Machine) touchKey(k subscriber.Key) {
	if g := m.groups[k.Group]; g != nil && g.touched != nil {
		g.touched[k.Inside] = struct{}{}
	}
}
