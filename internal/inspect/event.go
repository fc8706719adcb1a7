package inspect

import (
	"time"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// EventKind is one step in the life of a subscriber or its binding.
type EventKind uint8

// The events, those of every life in the order in which a subscriber sees them.
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
	EventGrace                         // the record ended, and the sessions wait for its subscriber to come back
	EventObserved                      // the record ended in mode RemovalObserve: RemovalOn would have removed the sessions

	// Numbered apart, as they have no place in that order.
	EventRemovalHeld    EventKind = 12 // a guard holds the removal back; Reason says which
	EventRemovalRefused EventKind = 13 // a held removal was refused: the subscriber stays
)

// Event tells what happened to one subscriber.
type Event struct {
	At            time.Time
	Kind          EventKind
	Reason        subscriber.Reason // set for Deleted, and for what follows from it while known
	Subscriber    Subscriber        // after the event; for those after Deleted the last known record
	SessionsEnded int               // for Reaped: conntrack entries deleted
}
