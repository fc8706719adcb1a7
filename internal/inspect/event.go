package inspect

import (
	"time"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// EventKind is one step in the life of a subscriber or its binding.
type EventKind uint8

// The events, in the order in which one subscriber can see them.
const (
	EventCreated  EventKind = iota + 1 // the record came into being
	EventUpdated                       // the record has newer data
	EventDeleted                       // the record ended; Reason says why
	EventBound                         // a block was given and the gate is open
	EventPending                       // the pool is exhausted; the subscriber waits for a block
	EventDraining                      // the record ended with the removal toggle off: sessions may idle out
	EventCut                           // the gate is closed and no map element is left
	EventReaped                        // no conntrack entry is left; the block is held
	EventReleased                      // the hold is over; anybody may get the block
)

// Event tells what happened to one subscriber.
type Event struct {
	At            time.Time
	Kind          EventKind
	Reason        subscriber.Reason // set for Deleted, and for what follows from it while known
	Subscriber    Subscriber        // after the event; for those after Deleted the last known record
	SessionsEnded int               // for Reaped: conntrack entries deleted
}
