package inspect

import (
	"sync"
	"time"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// EventKind is one step in the life of a subscriber or its binding.
type EventKind uint8

// The events; those of every life in the order in which they happen to a
// subscriber.
const (
	EventCreated  EventKind = iota + 1 // the record came into being
	EventUpdated                       // the record has newer data
	EventDeleted                       // the record ended for Reason
	EventBound                         // a block was allocated and the gate is open
	EventPending                       // the pool is exhausted; the subscriber waits for a block
	EventDraining                      // the record ended with the removal toggle off: sessions may idle out
	EventCut                           // the gate is closed and no map element is left
	EventReaped                        // no conntrack entry is left; the block is held
	EventReleased                      // the hold is over; any subscriber may get the block
	EventGrace                         // the record ended, and the sessions wait for its subscriber to come back
	EventObserved                      // the record ended in mode RemovalObserve: RemovalOn would have removed the sessions

	// These are numbered apart, because they have no place in that order.
	EventRemovalHeld    EventKind = 12 // a guard suspends the removal for Reason
	EventRemovalRefused EventKind = 13 // a held removal was refused: the subscriber stays
	EventLimitReached   EventKind = 14 // new sessions were refused at Limits, once a minute for a subscriber
	EventBlockAdded     EventKind = 15 // the subscriber uses most of its ports, and got a block more
	EventBlockReturned  EventKind = 16 // it has a block less, which is in its hold
	EventBlockRefused   EventKind = 17 // it uses most of its ports, and gets no further block
	EventListed         EventKind = 60 // no step: a watch that lists first begins with the subscribers online
)

// Growth says how the number of a subscriber's blocks changed, or why it did not.
type Growth string

// The growths, as metrics name them.
const (
	GrowthInPlace   Growth = "in_place"   // the new block adjoins the others
	GrowthApart     Growth = "apart"      // it does not; it is on the same outside address
	GrowthReturned  Growth = "returned"   // a block was given back
	GrowthMaxBlocks Growth = "max_blocks" // refused: the subscriber has as many as the group allows
	GrowthNoRoom    Growth = "no_room"    // refused: its outside address has no free block
)

// Growths are all of them.
var Growths = []Growth{GrowthInPlace, GrowthApart, GrowthReturned, GrowthMaxBlocks, GrowthNoRoom}

// Event is one event of one subscriber.
type Event struct {
	At             time.Time
	Kind           EventKind
	subscriber.End             // set for Deleted, and for the events that follow from it while known
	Subscriber     Subscriber  // after the event; for those after Deleted the last known record
	SessionsEnded  int         // for Reaped: conntrack entries deleted
	Limits         []nat.Limit // for LimitReached, in order

	// Late, of a change of the record, says that the daemon had read the record with this change, or
	// a later one, before the change came to it.
	Late bool
}

// noticeOctets is the memory of a notice besides its texts, encoded once: the
// structs of event, record and binding, and the fields of its message with a resume token.
const noticeOctets = 1400

// textOctets is the memory of a text per octet: the text itself, and its
// encoded form, in which an unprintable octet takes three.
const textOctets = 4

// octets estimates the memory of the event, together with its encoded form.
func (e *Event) octets() int {
	r := &e.Subscriber.Record
	texts := len(r.UserName) + len(r.NAS) + len(r.AcctSessionID) + len(r.CallingStationID) + len(r.Class)
	for _, s := range r.MoreClasses {
		texts += len(s)
	}
	addresses := len(r.FramedIPv6Addresses) + len(r.FramedIPv6Prefixes) + len(r.DelegatedPrefixes)
	return noticeOctets + textOctets*texts + 80*addresses
}

// Notice is one event that all watchers share, or one gap. For them it is immutable.
type Notice struct {
	Event
	gap     *Gap // nil for an event
	run     uint64
	seq     uint64
	octets  int // of memory, with those of the list; under the broadcaster's lock
	list    int // of these, the octets of its list of positions, if it is the oldest with it; likewise
	feeds   FeedPositions
	once    sync.Once
	encoded []byte
	failed  error
}

// NewNotice returns the notice of an event that one watcher gets, with the place behind it.
func NewNotice(e Event, behind Position) *Notice {
	return &Notice{Event: e, run: behind.Run, seq: behind.Seq, feeds: FeedPositions{Shared: behind.Feeds}}
}

// Position returns the place behind the event.
func (n *Notice) Position() Position {
	return Position{Run: n.run, Seq: n.seq, Feeds: n.feeds.List()}
}

// Encoded returns the event's encoded form, with its position. The first call makes it, with
// encode; all later calls return the same.
func (n *Notice) Encoded(encode func(*Notice) ([]byte, error)) ([]byte, error) {
	n.once.Do(func() { n.encoded, n.failed = encode(n) })
	return n.encoded, n.failed
}
