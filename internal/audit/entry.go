package audit

import (
	"encoding/json"
	"fmt"
	"time"
)

// Outcome is the outcome of an order, or of a part of one.
type Outcome string

// The outcomes. A change of stored data is DONE in the step that writes its entry. An order
// to the kernel is ORDERED before it is carried out, and has a second entry behind it; one
// without a second entry was interrupted.
const (
	Done      Outcome = "DONE"
	Ordered   Outcome = "ORDERED"
	Failed    Outcome = "FAILED"     // of the second entry
	TakenBack Outcome = "TAKEN_BACK" // a change that could not be put in force
)

// Bounds of an entry.
const (
	MaxReason    = 512  // octets of Entry.Reason
	MaxRequestID = 128  // octets of Entry.RequestID
	maxState     = 2048 // octets of Entry.Old and Entry.New
)

// Entry describes one change.
type Entry struct {
	Trail  string    `json:"trail"`  // the group, or DaemonTrail
	Number uint64    `json:"number"` // in its trail, from 1
	Before string    `json:"before"` // hash of the entry before; "" for the first
	At     time.Time `json:"at"`
	Node   string    `json:"node"` // the daemon

	Actor     string `json:"actor"`
	Role      string `json:"role,omitempty"`
	Source    string `json:"source,omitempty"`
	Method    string `json:"method"`
	Group     string `json:"group,omitempty"`
	RequestID string `json:"request_id,omitempty"`
	Reason    string `json:"reason,omitempty"`

	// RequestAt is the begin of the first attempt of the request with the RequestID. It tells
	// the requests apart that had the same identifier one after the other.
	RequestAt time.Time `json:"request_at,omitzero"`

	Part    int      `json:"part,omitempty"`  // of the order's entries, from 1
	Count   int      `json:"count"`           // of the subjects that were changed
	Keys    []string `json:"keys,omitempty"`  // these subjects: inside addresses, settings, prefixes, endpoints
	Old     string   `json:"old,omitempty"`   // the state before, where it is small
	New     string   `json:"new,omitempty"`   // the state after
	Outcome Outcome  `json:"outcome"`         //
	Of      uint64   `json:"of,omitempty"`    // of a second entry: the number of the ORDERED one
	Error   string   `json:"error,omitempty"` // of an outcome that is not DONE
}

// DaemonTrail names the trail of changes that belong to no group. No group has that name.
const DaemonTrail = "_"

// ID returns the entry's name, the same for ever: its trail and its number there.
func (e *Entry) ID() string { return fmt.Sprintf("%s/%d", e.Trail, e.Number) }

// ParseEntry reads the text of an entry.
func ParseEntry(text string) (Entry, error) {
	var e Entry
	if err := json.Unmarshal([]byte(text), &e); err != nil {
		return Entry{}, fmt.Errorf("audit entry: %w", err)
	}
	return e, nil
}

// bounded cuts a state that is too long.
func bounded(state string) string {
	if len(state) <= maxState {
		return state
	}
	return state[:maxState] + " ..."
}

// Filter selects entries; a zero field selects all.
type Filter struct {
	Actor, Method, Group, RequestID string
	RequestAt                       time.Time
	From, To                        time.Time // From <= At < To
}

// Match reports whether the filter selects an entry.
func (f *Filter) Match(e *Entry) bool {
	return (f.Actor == "" || f.Actor == e.Actor) &&
		(f.Method == "" || f.Method == e.Method) &&
		(f.Group == "" || f.Group == e.Group) &&
		(f.RequestID == "" || f.RequestID == e.RequestID) &&
		(f.RequestAt.IsZero() || f.RequestAt.Equal(e.RequestAt)) &&
		(f.From.IsZero() || !e.At.Before(f.From)) &&
		(f.To.IsZero() || e.At.Before(f.To))
}
