package lifecycle

import (
	"net/netip"
	"time"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// Effects receives the requests and transitions of a Machine, in order. Its
// methods are called within calls of the Machine: they must not block, nor call
// the Machine.
type Effects interface {
	// Store requests a write to the stored bindings; [Machine.Stored] reports it.
	Store(Write)
	// Program requests that the gate of a slot be opened, with its map elements;
	// [Machine.Programmed] reports it.
	Program(Work)
	// Close requests that the gate of a slot be narrowed or closed, according to
	// its phase; [Machine.Closed] reports it.
	Close(Work)
	// Reap requests the deletion of the conntrack entries of a slot's address,
	// with a proof that none is left; [Machine.Reaped] reports it.
	Reap(Work)
	// AskIdle asks whether the kernel has any session left of a draining address;
	// [Drain.Answered] and [Machine.Emptied] report the answer.
	AskIdle(*Drain)
	// AskVacant asks whether the kernel has any session left in a block of an address, which
	// no new session gets; [Growths.Vacated] reports the answer.
	AskVacant(*Part)
	// EndSessions requests the end of the sessions of an address through mappings that
	// it no longer has.
	EndSessions(inside netip.Addr, through nat.Forwards)
	// MappingsEnded requests that mappings that ended with a binding be stored as ended.
	MappingsEnded([]nat.Mapping)
	// LookUp requests a look-up in the database of a record that seems to be gone
	// for the given reason.
	LookUp(subscriber.Key, subscriber.Reason)
	// WakeTimers reports that [Machine.NextDue] is earlier than before.
	WakeTimers()
	// Online reports a change of the number of records in force from a RADIUS
	// client.
	Online(client string, change int)
	// Emit reports a transition, for watchers, metrics and log.
	Emit(Transition)
	// Fault reports a contradiction between the machine and the engine: a defect.
	Fault(what string, key subscriber.Key, err error)
}

// Work is a slot for an executor, with its address. A slot has at most one
// piece of work under way.
type Work struct {
	Slot   *Slot
	Inside netip.Addr
}

// Write is one write to the stored bindings.
type Write struct {
	Binding nat.Binding
	Remove  bool  // the block is free again
	Again   bool  // an earlier write to the same place is under way
	Slot    *Slot // the slot that waits for the write; nil for none

	// For the NAT log, where there is one.
	Holder *nat.Identity // of a binding in service; nil where no more is known than the binding says
	Left   time.Time     // when blocks of the binding left service; zero for none
	Known  bool          // it was in force before
}

// A Transition is one thing that happened to a subscriber or a binding. Its
// pointers are valid until Emit returns.
type Transition struct {
	Kind inspect.EventKind
	At   time.Time
	Slot *Slot // nil for EventDeleted, for EventReleased, and for a record that the slot does not have

	// Record and End are set for changes of a record: EventCreated, EventUpdated,
	// EventDeleted, EventRemovalHeld. Record is set for EventLimitReached as well.
	Record *subscriber.Packed
	subscriber.End

	// Outdated marks a change of a record that the slot is ahead of: it is no step of the
	// slot. Where the change is partial, and not certainly of the session in the slot,
	// Record has only its key and its counters.
	Outdated bool

	// Binding is set for EventReaped and EventReleased: the slot may have another
	// binding by then.
	Binding *nat.Binding
	Growth  inspect.Growth // for EventBlockAdded, EventBlockReturned, EventBlockRefused
	Deleted int            // conntrack entries, for EventReaped
	Proved  time.Time      // time of the proof that none is left, for EventReaped
	Limits  []nat.Limit    // for EventLimitReached
}
