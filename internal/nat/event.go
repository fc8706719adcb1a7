package nat

import (
	"fmt"
	"net/netip"
	"time"
)

// Event is an entry in the log of a NAT (RFC 8158), about one block of ports or one limit. The
// events of a block are one Allocated, any number of Interim, and one Released; the times
// between do not overlap those of another holder of one of its ports.
type Event struct {
	Kind   EventKind
	At     time.Time // UTC; of Released not before the proof that no session is left
	Since  time.Time // Interim, Released: At of the block's Allocated
	Group  string
	Block           // Allocated, Interim, Released; its Outside alone for PortsExhausted, where it is known
	Holder Identity // zero for AddressesExhausted
	Limit  Limit    // LimitReached
	Most   int      // LimitReached: the value of the limit
}

// AsInterim makes an Interim event, at a time, of the Allocated event of a block that is in
// service.
func (e *Event) AsInterim(now time.Time) {
	e.Kind, e.Since = Interim, e.At
	if now.After(e.At) {
		e.At = now
	}
}

// Identity is who held a block, as it was known when the event was written. Strings are raw
// octets.
type Identity struct {
	Inside           netip.Addr
	UserName         string
	Client, NAS      string // see subscriber.SessionID
	NASAddress       netip.Addr
	AcctSessionID    string
	CallingStationID string
	IPv6Prefixes     []netip.Prefix // Framed-IPv6-Prefix and Delegated-IPv6-Prefix
}

// EventKind is the kind of an Event.
type EventKind uint8

// The kinds of events, each with its natEvent of RFC 8158 (section 5, table 1).
const (
	Allocated          EventKind = iota + 1 // a block was assigned, also a further one: 16
	Interim                                 // a block is still assigned: 16 again, for collectors that missed it
	Released                                // a block is no longer assigned, and has no sessions: 17
	AddressesExhausted                      // a subscriber gets no block, because no address has one left: 3
	PortsExhausted                          // a subscriber gets no further block, because its address has none left: 12
	LimitReached                            // a subscriber was refused new sessions at one of its Limits: 13
)

var eventKindNames = [...]string{
	Allocated: "allocated", Interim: "interim", Released: "released",
	AddressesExhausted: "addresses_exhausted", PortsExhausted: "ports_exhausted", LimitReached: "limit_reached",
}

// String returns the kind's lower-case name.
func (k EventKind) String() string {
	if int(k) < len(eventKindNames) && eventKindNames[k] != "" {
		return eventKindNames[k]
	}
	return fmt.Sprintf("EventKind(%d)", uint8(k))
}

// ParseEventKind is the reverse of String.
func ParseEventKind(name string) (EventKind, bool) {
	for k := Allocated; int(k) < len(eventKindNames); k++ {
		if eventKindNames[k] == name {
			return k, true
		}
	}
	return 0, false
}
