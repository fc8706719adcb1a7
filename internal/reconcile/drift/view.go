package drift

import (
	"iter"
	"net/netip"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// Views are three views of one group, of about the same time. The caller may
// leave out an address about which all three agree, from all of them, and a
// binding that is stored as it is.
type Views struct {
	Database Database
	Engine   Engine
	Kernel   Kernel
}

// Database is the content of Redis.
type Database struct {
	Records  map[netip.Addr]subscriber.Packed
	Bindings map[nat.Place]nat.Binding // stored
}

// Engine is sessiond's state of addresses at rest.
type Engine struct {
	Slots    map[netip.Addr]Slot
	Bindings map[nat.Place]nat.Binding // held ones included
}

// Kernel is the state that packets meet.
type Kernel struct {
	Elements map[netip.Addr]nat.Entry
	Sessions iter.Seq[Session] // nil where conntrack is not audited
}

// Slot is the engine's state of one inside address.
type Slot struct {
	Online   bool
	Identity Identity  // of the record in force, as the engine has it
	Version  string    // of that record
	Pending  bool      // waits for a block
	Bound    bool      // has a block, or its remains are being removed
	Stray    bool      // the kernel's elements have no binding, and are being removed
	Element  nat.Entry // the entry that the kernel should hold
	Blocks   nat.Blocks
	Forwards nat.Forwards // mappings whose sessions may go on
}

// Identity identifies the session and subscriber of a record.
type Identity struct {
	subscriber.SessionID
	UserName string
}

// IdentityOf returns the identity of a record.
func IdentityOf(r *subscriber.Record) Identity { return Identity{r.SessionID, r.UserName} }

// sameSession reports whether the record may be of the slot's session.
func (i *Identity) sameSession(r *subscriber.Record) bool {
	known := subscriber.Record{SessionID: i.SessionID, UserName: i.UserName}
	return known.SameSession(r)
}

func (i *Identity) sameAs(packed subscriber.Packed) bool {
	r := packed.Record()
	return i.sameSession(&r)
}

// Session is one conntrack entry of an inside address.
type Session struct {
	nat.Session
	Ref any // the caller's reference
}
