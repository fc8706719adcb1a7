package drift

import (
	"fmt"
	"net/netip"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// Newer is the kind of an operation that is no drift: the database has newer
// data of the same session.
const Newer inspect.DriftKind = ""

// Operation makes the views agree about one address or one block.
type Operation struct {
	Kind    inspect.DriftKind
	Inside  netip.Addr
	Blocks  nat.Blocks         // DriftBindingUnsaved, DriftBindingStale: those of the binding
	Element nat.Entry          // DriftElementOrphaned, DriftElementDiffers: the kernel's entry
	Record  *subscriber.Record // DriftRecordUnseen, Newer: the database's record
	Session Session            // DriftSessionOrphaned, DriftSessionOutOfBlock
	what    func(*Operation) string
}

// AboutRecord reports whether the operation changes the online state of an
// address. The other operations depend on that, so these come first.
func (o *Operation) AboutRecord() bool {
	switch o.Kind {
	case Newer, inspect.DriftRecordUnseen, inspect.DriftRecordUnbound, inspect.DriftBindingOrphaned:
		return true
	}
	return false
}

// What describes, for people, the difference and its repair.
func (o *Operation) What() string {
	if o.what == nil {
		return ""
	}
	return o.what(o)
}

// Diff returns the operations that make the views agree, those about records
// first. There is none for an address about which the views agree.
func Diff(v *Views) []Operation {
	d := differ{v: v}
	d.records()
	d.elements()
	d.bindings()
	if v.Kernel.Sessions != nil {
		for s := range v.Kernel.Sessions {
			d.session(s)
		}
	}
	return d.found
}

type differ struct {
	v     *Views
	found []Operation
}

func (d *differ) add(kind inspect.DriftKind, inside netip.Addr, o Operation, what func(*Operation) string) {
	o.Kind, o.Inside, o.what = kind, inside, what
	d.found = append(d.found, o)
}

// addRecord takes the record by value, so that records without a difference are
// not copied to the heap.
func (d *differ) addRecord(kind inspect.DriftKind, r subscriber.Record, what func(*Operation) string) {
	d.add(kind, r.Inside, Operation{Record: &r}, what)
}

// records compares the online subscribers.
func (d *differ) records() {
	for inside, packed := range d.v.Database.Records {
		r := packed.Record()
		s, ok := d.v.Engine.Slots[inside]
		switch {
		case !ok || !s.Online:
			d.addRecord(inspect.DriftRecordUnseen, r, recordUnseen)
		case !s.Identity.sameSession(&r):
			d.addRecord(inspect.DriftRecordUnseen, r, recordOfAnother)
		case subscriber.CompareVersions(r.Version, s.Version) > 0:
			d.addRecord(Newer, r, nil)
		}
	}
	for inside, s := range d.v.Engine.Slots {
		if !s.Online {
			continue
		}
		packed, ok := d.v.Database.Records[inside]
		switch {
		case !ok:
			d.add(inspect.DriftBindingOrphaned, inside, Operation{}, recordGone(s.Identity.UserName))
		case !s.Bound && !s.Pending && s.Identity.sameAs(packed):
			d.add(inspect.DriftRecordUnbound, inside, Operation{}, recordUnbound(s.Identity.UserName))
		}
	}
}

// elements compares the gates and blocks of addresses.
func (d *differ) elements() {
	for inside, e := range d.v.Kernel.Elements {
		s, ok := d.v.Engine.Slots[inside]
		switch {
		case s.Stray || nothing(&e):
		case !ok || closed(&s.Element): // also a block without a gate
			d.add(inspect.DriftElementOrphaned, inside, Operation{Element: e}, elementOrphaned)
		case closed(&e): // reported below
		case s.Element != e:
			d.add(inspect.DriftElementDiffers, inside, Operation{Element: e}, elementDiffers)
		}
	}
	for inside, s := range d.v.Engine.Slots {
		if s.Stray || closed(&s.Element) {
			continue
		}
		if e, ok := d.v.Kernel.Elements[inside]; !ok || closed(&e) {
			d.add(inspect.DriftElementMissing, inside, Operation{}, elementMissing)
		}
	}
}

// bindings compares the stored bindings with those in force.
func (d *differ) bindings() {
	for at, b := range d.v.Engine.Bindings {
		if row, ok := d.v.Database.Bindings[at]; !ok || !alike(&row, &b) {
			d.add(inspect.DriftBindingUnsaved, b.Inside, Operation{Blocks: b.Blocks}, bindingUnsaved)
		}
	}
	for at, row := range d.v.Database.Bindings {
		if _, ok := d.v.Engine.Bindings[at]; !ok {
			d.add(inspect.DriftBindingStale, row.Inside, Operation{Blocks: row.Blocks}, bindingStale)
		}
	}
}

// closed reports whether the kernel drops all packets of the address.
func closed(e *nat.Entry) bool { return e.Gate == nat.GateClosed }

// nothing reports whether the kernel has no element of the address.
func nothing(e *nat.Entry) bool {
	return closed(e) && !e.Outside.IsValid() && e.Forwards == nat.Forwards{}
}

// alike reports whether database and engine agree on a binding in the fields
// that matter.
func alike(a, b *nat.Binding) bool {
	return a.Inside == b.Inside && a.Blocks == b.Blocks && (a.State == nat.Held) == (b.State == nat.Held) && a.UserName == b.UserName
}

// session adds an operation if a conntrack entry is misplaced.
func (d *differ) session(s Session) {
	inside := s.Inside.Addr()
	slot := d.v.Engine.Slots[inside]
	if kind, wrong := slot.Misplaced(s); wrong {
		d.add(kind, inside, Operation{Session: s}, sessionMisplaced)
	}
}

// Misplaced returns the kind of drift of a session that its address's slot, the
// zero Slot for none, does not explain: the address has no blocks, or the port
// is outside them and of no mapping of the address (NAT-40). Sessions with the CGN itself are not translated, so
// they are ignored.
func (slot *Slot) Misplaced(s Session) (inspect.DriftKind, bool) {
	switch {
	case s.Outside == s.Inside:
		return "", false
	case !slot.Bound && !slot.Stray:
		return inspect.DriftSessionOrphaned, true
	case !slot.Stray && !slot.Blocks.Contains(s.Outside.Addr(), nat.Port(s.Outside.Port())) &&
		!slot.Forwards.Has(s.Forward()):
		return inspect.DriftSessionOutOfBlock, true
	}
	return "", false
}

// Texts about differences, for people. They are composed only when read,
// because there may be as many as subscribers.

func recordUnseen(o *Operation) string {
	return fmt.Sprintf("record %q has no slot; taken up", o.Record.UserName)
}

func recordOfAnother(*Operation) string { return "record is of another session; the earlier one ends" }

func recordGone(user string) func(*Operation) string {
	return func(*Operation) string { return fmt.Sprintf("record of %q is gone from the database", user) }
}

func recordUnbound(user string) func(*Operation) string {
	return func(*Operation) string { return fmt.Sprintf("subscriber %q has no block; allocated", user) }
}

func elementOrphaned(o *Operation) string {
	return fmt.Sprintf("kernel elements without a binding (%s); removed", elementText(&o.Element))
}

func elementDiffers(o *Operation) string {
	return fmt.Sprintf("kernel has %s; programmed anew", elementText(&o.Element))
}

// elementText describes the kernel's entry of an address, which may lack its
// block.
func elementText(e *nat.Entry) string {
	mappings := ""
	if n := e.Forwards.Len(); n > 0 {
		mappings = fmt.Sprintf(", mappings: %d", n)
	}
	if !e.Outside.IsValid() {
		return fmt.Sprintf("no block, gate %d%s", e.Gate, mappings)
	}
	return fmt.Sprintf("%s ports %d-%d, gate %d%s", e.Outside, e.First, e.Last, e.Gate, mappings)
}

func elementMissing(*Operation) string {
	return "gate or block element is missing in the kernel; programmed anew"
}

func bindingUnsaved(o *Operation) string {
	return fmt.Sprintf("binding of %s ports %s is not stored so; stored", o.Blocks.Outside, o.Blocks.Ports())
}

func bindingStale(o *Operation) string {
	return fmt.Sprintf("stored binding of %s ports %s is not in force; removed", o.Blocks.Outside, o.Blocks.Ports())
}

func sessionMisplaced(o *Operation) string {
	return fmt.Sprintf("session from %s as %s is in nobody's block; ended", o.Session.Inside, o.Session.Outside)
}
