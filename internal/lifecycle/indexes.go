package lifecycle

import (
	"hash/maphash"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/sessiond/sessiond/internal/addrtable"
	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// A SlotIndex finds slots by inside address, and lists them in the order of
// addresses.
type SlotIndex struct {
	table addrtable.Table[slotPlace]
	other map[netip.Addr]*Slot // addresses that are not IPv4, which a record's key may contain
	len   int
}

type slotPlace struct {
	slot *Slot

	// A time no later than the address's timer; nanoseconds since 1970, 0 for
	// unknown.
	lookedAt int64
}

func newSlotIndex() SlotIndex { return SlotIndex{other: map[netip.Addr]*Slot{}} }

// at returns the slot of an address, or nil.
func (x *SlotIndex) at(inside netip.Addr) *Slot {
	if p := x.table.Place(inside); p != nil {
		return p.slot
	}
	if inside.Is4() {
		return nil
	}
	return x.other[inside]
}

// userAt returns the User-Name of the record at an address, "" for none.
func (x *SlotIndex) userAt(inside netip.Addr) string {
	if s := x.at(inside); s != nil {
		return s.packed.UserName()
	}
	return ""
}

// lookedAt returns a pointer to the address's lookedAt, nil for no slot. It is
// valid until a slot is added or removed.
func (x *SlotIndex) lookedAt(inside netip.Addr) *int64 {
	if p := x.table.Place(inside); p != nil {
		return &p.lookedAt
	}
	return nil
}

// put sets the slot of an address.
func (x *SlotIndex) put(inside netip.Addr, s *Slot) {
	if p := x.table.Place(inside); p != nil {
		p.slot = s
		return
	}
	if inside.Is4() {
		x.table.Put(inside, slotPlace{slot: s})
	} else {
		x.other[inside] = s
	}
	x.len = x.table.Len() + len(x.other)
}

// remove removes the slot of an address.
func (x *SlotIndex) remove(inside netip.Addr) {
	if inside.Is4() {
		x.table.Remove(inside)
	} else {
		delete(x.other, inside)
	}
	x.len = x.table.Len() + len(x.other)
}

// All yields every slot, as From does.
func (x *SlotIndex) All() iter.Seq2[netip.Addr, *Slot] { return x.From(netip.Addr{}) }

// Len returns the number of slots.
func (x *SlotIndex) Len() int { return x.len }

// From yields the slots in the order of addresses, from first (inclusive) on.
// Slots may be added and removed meanwhile: one that exists throughout is
// yielded once.
func (x *SlotIndex) From(first netip.Addr) iter.Seq2[netip.Addr, *Slot] {
	return func(yield func(netip.Addr, *Slot) bool) {
		for inside, p := range x.table.From(first) {
			if !yield(inside, p.slot) {
				return
			}
		}
		for _, inside := range slices.SortedFunc(maps.Keys(x.other), netip.Addr.Compare) {
			if s := x.other[inside]; s != nil && first.Compare(inside) <= 0 && !yield(inside, s) {
				return
			}
		}
	}
}

// An OnlineIndex finds the inside addresses of records in force by the filters
// of lists, and in their order. So a page costs time for its rows, and no walk
// over all. It takes 35 octets a subscriber, and about 1.5 us to add or remove
// a record (BenchmarkOnlineIndex), 1 us of it for the order of names.
type OnlineIndex struct {
	seed    maphash.Seed
	origins map[subscriber.Origin]*originOnline // those with online subscribers
	groups  map[string]*groupOnline             // those with online subscribers
	users   addrtable.Index                     // by hash of group and User-Name
	nases   addrtable.Index                     // by hash of group and NAS
	names   addrtable.Order                     // those with a User-Name, of all groups
}

// originOnline counts the online records of one origin. The group and the hash
// of the NAS are found with it in one look-up, for the price of a pointer's hash.
type originOnline struct {
	group   *groupOnline
	nas     inspect.NASKey // its Client is "" for records made by hand
	nasHash uint32
	records int
}

// groupOnline are the online addresses of one group.
type groupOnline struct {
	name  string
	salt  uint64 // for the hashes of names
	all   addrtable.Table[struct{}]
	held  addrtable.Table[struct{}] // of these, those with a suspended removal
	other map[netip.Addr]struct{}   // addresses that are not IPv4, which the other indexes omit
}

// newOnlineIndex returns an empty index. nameOf returns the User-Name of a record that was
// added, by its address.
func newOnlineIndex(nameOf func(netip.Addr) string) OnlineIndex {
	return OnlineIndex{
		seed: maphash.MakeSeed(), origins: map[subscriber.Origin]*originOnline{}, groups: map[string]*groupOnline{},
		names: addrtable.NewOrder(nameOf),
	}
}

// add adds a record in force.
func (x *OnlineIndex) add(r *subscriber.Packed) {
	o := x.origins[r.Origin()]
	if o == nil {
		o = x.addOrigin(r)
	}
	o.records++
	g, inside := o.group, r.Inside()
	if !inside.Is4() {
		g.other[inside] = struct{}{}
		return
	}
	g.all.Put(inside, struct{}{})
	if r.RemovalHeld() != subscriber.ReasonNone {
		g.held.Put(inside, struct{}{})
	}
	if o.nas.Name != "" {
		x.nases.Add(o.nasHash, inside)
	}
	if user := r.UserName(); user != "" {
		x.users.Add(x.hash(g, user), inside)
		x.names.Add(user, inside)
	}
}

// addOrigin adds the origin of a record, and its group if it is new.
func (x *OnlineIndex) addOrigin(r *subscriber.Packed) *originOnline {
	group := r.Group()
	g := x.groups[group]
	if g == nil {
		g = &groupOnline{name: group, salt: maphash.String(x.seed, group), other: map[netip.Addr]struct{}{}}
		x.groups[group] = g
	}
	client, nas := r.Reporter()
	o := &originOnline{group: g, nas: inspect.NASKey{Client: client, Name: nas}, nasHash: x.hash(g, nas)}
	x.origins[r.Origin()] = o
	return o
}

// remove removes a record that was added with the same content.
func (x *OnlineIndex) remove(r *subscriber.Packed) {
	o := x.origins[r.Origin()]
	if o == nil {
		return
	}
	if o.records--; o.records == 0 {
		delete(x.origins, r.Origin())
	}
	g, inside := o.group, r.Inside()
	g.all.Remove(inside)
	g.held.Remove(inside)
	delete(g.other, inside)
	if g.all.Len()+len(g.other) == 0 {
		delete(x.groups, g.name)
	}
	x.nases.Remove(o.nasHash, inside)
	if user := r.UserName(); user != "" {
		x.users.Remove(x.hash(g, user), inside)
		x.names.Remove(user, inside)
	}
}

// hash returns the hash of a name in a group.
func (x *OnlineIndex) hash(g *groupOnline, name string) uint32 {
	return uint32(maphash.String(x.seed, name) ^ g.salt)
}

// From yields, in order, the addresses of a group from first (inclusive) on
// that may match the filter. Addresses with an equal hash are among them.
func (x *OnlineIndex) From(group string, f *inspect.SubscriberFilter, first netip.Addr) iter.Seq[netip.Addr] {
	g := x.groups[group]
	switch {
	case g == nil:
		return g.with(nil, first)
	case f.UserName != "":
		return g.with(x.users.From(x.hash(g, f.UserName), first), first)
	case f.NAS != "":
		return g.with(x.nases.From(x.hash(g, f.NAS), first), first)
	case f.UserPrefix != "":
		if few, ok := x.fewNamed(f.UserPrefix); ok {
			i, _ := slices.BinarySearchFunc(few, first, netip.Addr.Compare)
			return g.with(slices.Values(few[i:]), first)
		}
	}
	return g.with(addressesOf(&g.all, first), first)
}

// namedFew is the largest number of addresses that is gathered and sorted for one page: under
// 1 ms of work (BenchmarkLists). If more names begin so, a walk meets them often enough.
const namedFew = 2048

// fewNamed returns, in order, the addresses of all groups whose User-Names begin with a text;
// false if they are many.
func (x *OnlineIndex) fewNamed(prefix string) (few []netip.Addr, ok bool) {
	for name, inside := range x.names.From(prefix, netip.Addr{}) {
		if !strings.HasPrefix(name, prefix) {
			break
		}
		if len(few) == namedFew {
			return nil, false
		}
		few = append(few, inside)
	}
	slices.SortFunc(few, netip.Addr.Compare)
	return few, true
}

// Named yields User-Names and addresses in this order, from behind an address under a name on.
// Records without a User-Name, and addresses that are not IPv4, are left out.
func (x *OnlineIndex) Named(name string, behind netip.Addr) iter.Seq2[string, netip.Addr] {
	return x.names.From(name, behind)
}

// HeldFrom is From for subscribers whose removal may be suspended.
func (x *OnlineIndex) HeldFrom(group string, first netip.Addr) iter.Seq[netip.Addr] {
	g := x.groups[group]
	if g == nil {
		return g.with(nil, first)
	}
	return g.with(addressesOf(&g.held, first), first)
}

// with yields IPv4 addresses, and then the others. The nil group has none.
func (g *groupOnline) with(ipv4 iter.Seq[netip.Addr], first netip.Addr) iter.Seq[netip.Addr] {
	return func(yield func(netip.Addr) bool) {
		if g == nil {
			return
		}
		for inside := range ipv4 {
			if !yield(inside) {
				return
			}
		}
		for _, inside := range slices.SortedFunc(maps.Keys(g.other), netip.Addr.Compare) {
			if first.Compare(inside) <= 0 && !yield(inside) {
				return
			}
		}
	}
}

// addressesOf yields the addresses of a table, nil for none, from first on.
func addressesOf(t *addrtable.Table[struct{}], first netip.Addr) iter.Seq[netip.Addr] {
	return func(yield func(netip.Addr) bool) {
		if t == nil {
			return
		}
		for inside := range t.From(first) {
			if !yield(inside) {
				return
			}
		}
	}
}

// Groups returns, in order, the groups with online subscribers: those that the
// filter admits ("" for all) and that do not sort before first.
func (x *OnlineIndex) Groups(filter, first string) []string {
	return NamesFrom(maps.Keys(x.groups), filter, first)
}

// NamesFrom returns, in order, the names that a filter admits ("" for all) and
// that do not sort before first.
func NamesFrom(names iter.Seq[string], filter, first string) []string {
	return slices.DeleteFunc(slices.Sorted(names), func(name string) bool {
		return name < first || filter != "" && name != filter
	})
}

// Count returns the number of records in force of a group, "" for all, and of a NAS, "" for
// all.
func (x *OnlineIndex) Count(group, nas string) (records int) {
	for _, o := range x.origins {
		if (group == "" || o.group.name == group) && (nas == "" || o.nas.Name == nas) {
			records += o.records
		}
	}
	return records
}

// ByNAS returns the number of records in force of each NAS, without those made
// by hand.
func (x *OnlineIndex) ByNAS() map[inspect.NASKey]int {
	counts := make(map[inspect.NASKey]int, len(x.origins))
	for _, o := range x.origins {
		if o.nas.Client != "" {
			counts[o.nas] += o.records
		}
	}
	return counts
}

// A Drain is one drain of an address. If the subscriber comes back and drains
// again, that is another Drain.
type Drain struct {
	Inside netip.Addr
	asked  bool // a question to the kernel is queued or under way
	empty  bool // the kernel has no session left
}

// Answered records that the question to the kernel about the drain has an
// answer.
func (d *Drain) Answered() { d.asked = false }

// A DrainIndex has the drains under way.
type DrainIndex struct{ at map[netip.Addr]*Drain }

func newDrainIndex() DrainIndex { return DrainIndex{map[netip.Addr]*Drain{}} }

func (x *DrainIndex) begin(inside netip.Addr) { x.at[inside] = &Drain{Inside: inside} }

// of returns the drain of an address, nil for none.
func (x *DrainIndex) of(inside netip.Addr) *Drain { return x.at[inside] }

// Addresses yields the draining inside addresses, in no order.
func (x *DrainIndex) Addresses() iter.Seq[netip.Addr] { return maps.Keys(x.at) }

// Len returns the number of drains.
func (x *DrainIndex) Len() int { return len(x.at) }

// A GraceIndex has, by group, the addresses with a grace time, for lists. It
// may have addresses whose subscriber is back: they stay until their timer is
// due.
type GraceIndex struct {
	groups map[string]*addrtable.Table[struct{}] // only groups that have any
}

func newGraceIndex() GraceIndex { return GraceIndex{map[string]*addrtable.Table[struct{}]{}} }

func (x *GraceIndex) add(group string, inside netip.Addr) {
	if !inside.Is4() {
		return
	}
	g := x.groups[group]
	if g == nil {
		g = new(addrtable.Table[struct{}])
		x.groups[group] = g
	}
	g.Put(inside, struct{}{})
}

// remove takes out an address.
func (x *GraceIndex) remove(inside netip.Addr) {
	for group, g := range x.groups {
		if g.Remove(inside); g.Len() == 0 {
			delete(x.groups, group)
		}
	}
}

// Groups returns, in order, the groups in which a grace time may run: those
// that the filter admits ("" for all) and that do not sort before first.
func (x *GraceIndex) Groups(filter, first string) []string {
	return NamesFrom(maps.Keys(x.groups), filter, first)
}

// From yields, in order, the addresses of a group with a grace time, from first
// (inclusive) on. The subscriber of some may be back.
func (x *GraceIndex) From(group string, first netip.Addr) iter.Seq[netip.Addr] {
	return addressesOf(x.groups[group], first)
}

// PendingWrites counts the writes to stored bindings that are under way.
type PendingWrites struct{ places map[nat.Place]int }

func newPendingWrites() PendingWrites { return PendingWrites{map[nat.Place]int{}} }

// Len counts the bindings with a write under way.
func (w *PendingWrites) Len() int { return len(w.places) }

// Of counts the writes under way to the stored binding of a place.
func (w *PendingWrites) Of(p nat.Place) int { return w.places[p] }

// In reports whether a write is under way to a binding at an outside address
// that the function selects.
func (w *PendingWrites) In(contains func(outside netip.Addr) bool) bool {
	for p := range w.places {
		if contains(p.Outside) {
			return true
		}
	}
	return false
}
