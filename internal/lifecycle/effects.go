package lifecycle

import (
	"net/netip"
	"time"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// Effects is where a Machine puts what is to be done, in order. A method is called within a
// call of the Machine: it must not block, nor call the Machine.
type Effects interface {
	// Store asks for a write to the stored bindings; [Machine.Stored] reports it.
	Store(Write)
	// Program asks for the gate of a slot to be opened, with its map elements;
	// [Machine.Programmed] reports it.
	Program(Work)
	// Close asks for the gate of a slot to be narrowed or closed, as its phase says;
	// [Machine.Closed] reports it.
	Close(Work)
	// Reap asks for the conntrack entries of a slot's address to be deleted, with a proof
	// that none is left; [Machine.Reaped] reports it.
	Reap(Work)
	// AskIdle asks whether the kernel has any session left of a draining address;
	// [Drain.Answered] and [Machine.Emptied] report it.
	AskIdle(*Drain)
	// LookUp asks for the record of a key, which seems to be gone for that reason, to be
	// looked up in the database.
	LookUp(subscriber.Key, subscriber.Reason)
	// WakeTimers says that [Machine.NextDue] is earlier than it was.
	WakeTimers()
	// Online tells that one more record that a RADIUS client reports stands, or one less.
	Online(client string, change int)
	// Emit tells of a transition. All that reports what happens (watchers, metrics, log)
	// reads these.
	Emit(Transition)
	// Fault tells of a contradiction between the machine and the engine: a defect.
	Fault(what string, key subscriber.Key, err error)
}

// Work is a slot that an executor works for, and its address. The slot has at most one
// piece of work out at a time.
type Work struct {
	Slot   *Slot
	Inside netip.Addr
}

// Write is one write to the stored bindings.
type Write struct {
	Binding nat.Binding
	Remove  bool  // the block is free again
	Slot    *Slot // that waits for the write; nil for none
}

// A Transition is one thing that happened to a subscriber or a binding. What it points to
// is valid until Emit returns.
type Transition struct {
	Kind inspect.EventKind
	At   time.Time
	Slot *Slot // nil for EventDeleted, and for EventReleased

	// Record and Reason are set for changes of a record: EventCreated, EventUpdated,
	// EventDeleted, EventRemovalHeld.
	Record *subscriber.Packed
	Reason subscriber.Reason

	// Binding is set for EventReaped and EventReleased: the slot may have another one by then.
	Binding *nat.Binding
	Deleted int       // conntrack entries, for EventReaped
	Proved  time.Time // when none was left, for EventReaped
}
