package inspect

import (
	"sync"
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

// noticeOctets is what a notice takes besides its texts, encoded once: the structs
// of event, record and binding, and the fields of its message.
const noticeOctets = 1200

// textOctets is how often a text stands in memory: as it is, and encoded, where an
// octet that cannot be printed becomes three.
const textOctets = 4

// octets is about what the event takes in memory, together with its encoded form.
func (e *Event) octets() int {
	r := &e.Subscriber.Record
	texts := len(r.UserName) + len(r.NAS) + len(r.AcctSessionID) + len(r.CallingStationID) + len(r.Class)
	for _, s := range r.MoreClasses {
		texts += len(s)
	}
	addresses := len(r.FramedIPv6Addresses) + len(r.FramedIPv6Prefixes) + len(r.DelegatedPrefixes)
	return noticeOctets + textOctets*texts + 80*addresses
}

// Notice is one event as all who watch share it. It is not to be changed.
type Notice struct {
	Event
	once    sync.Once
	encoded []byte
	failed  error
}

// Encoded returns what encode makes of the event. It is made at the first call, and
// the same for all.
func (n *Notice) Encoded(encode func(*Event) ([]byte, error)) ([]byte, error) {
	n.once.Do(func() { n.encoded, n.failed = encode(&n.Event) })
	return n.encoded, n.failed
}
