package inspect

import (
	"iter"
	"time"
)

// Watch is a request for events.
type Watch struct {
	Filter   SubscriberFilter
	Kinds    EventKinds
	After    *Position     // go on behind it; nil: from now on
	Gaps     bool          // tell of lost events by messages, instead of ending the watch
	Progress time.Duration // a message with a position after this long without a message; 0: none
	Together bool          // a message may have several events

	// Busy reports whether the reader has work of its own to do between the events. Then a
	// message with a position comes as soon as there is no event, instead of a wait. Optional.
	Busy func() bool
}

// Message is one message of a watch: an event, or a gap, or, with neither, progress.
type Message struct {
	Notice *Notice // the event
	Gap    *Gap    // events that the watch did not get

	// Together are events of a watch that takes several, instead of Notice. They are the reader's
	// until the next message: one that clears them keeps none while it waits.
	Together []*Notice

	Position Position // of gaps and progress; an event has its own
}

// A Gap says that a watch did not get all events.
type Gap struct {
	Cause  GapCause
	Group  string // whose events are missing; empty: of any group
	Missed uint64 // number of events, whatever their subscribers; 0: unknown

	// ListAgain says that changes of records may be missing, so that only a new list shows who
	// is online. Otherwise only events of other kinds than RecordKinds are.
	ListAgain bool
}

// Before returns the messages of a watch that tells gaps, with the gap in its first message,
// which has only a position.
func (g Gap) Before(messages iter.Seq2[Message, error]) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		gap := &g
		for m, err := range messages {
			if gap != nil && err == nil {
				m.Gap, gap = gap, nil
			}
			if !yield(m, err) {
				return
			}
		}
	}
}

// GapCause is the cause of a Gap.
type GapCause uint8

// The causes.
const (
	GapBehind    GapCause = iota + 1 // the watcher was too slow, or away for too long
	GapRestarted                     // the position is of another run of the daemon
	GapFeed                          // a group was compared with the database instead of following its feed
)

// EventKinds is a set of kinds of events. The empty set has all.
type EventKinds uint64

// RecordKinds are the changes of records, which feeds have too.
var RecordKinds = KindsOf(EventCreated, EventUpdated, EventDeleted)

// KindsOf returns the set of the given kinds.
func KindsOf(kinds ...EventKind) EventKinds {
	var set EventKinds
	for _, k := range kinds {
		set |= 1 << k
	}
	return set
}

// Has reports whether the set has a kind.
func (s EventKinds) Has(k EventKind) bool { return s == 0 || s&(1<<k) != 0 }

// Within reports whether the set has no kind that the other lacks.
func (s EventKinds) Within(o EventKinds) bool { return o == 0 || s != 0 && s&^o == 0 }

// Match reports whether the watch is for that event.
func (w *Watch) Match(e *Event) bool {
	return w.Kinds.Has(e.Kind) && w.Filter.Match(&e.Subscriber.Record)
}
