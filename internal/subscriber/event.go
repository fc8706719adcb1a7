package subscriber

import (
	"net/netip"
	"time"
)

// EventKind is the Acct-Status-Type of an accounting event (RFC 2866 section 5.1).
type EventKind uint8

// The accounting events that change who is online.
const (
	EventStart EventKind = iota + 1
	EventInterim
	EventStop
	EventAccountingOn
	EventAccountingOff
)

// Event is one authenticated accounting request, freed of its wire format.
type Event struct {
	Kind EventKind
	SessionID
	UserName         string
	CallingStationID string
	NASAddress       netip.Addr    // zero when absent
	Inside           netip.Addr    // Framed-IP-Address; zero when absent or not an address (ACCT-24)
	At               time.Time     // event time, see EventTime
	SessionTime      time.Duration // Acct-Session-Time; negative when absent
	InputOctets      uint64
	OutputOctets     uint64
	TerminateCause   uint32 // Acct-Terminate-Cause of a Stop; 0 when absent
}

// Reason tells why a subscriber record ended.
type Reason uint8

// Reasons of removal, as they stand in the change feed, events and metrics.
const (
	ReasonNone              Reason = iota
	ReasonStop                     // Acct-Stop of the session
	ReasonNASRestart               // Accounting-On or -Off of its NAS
	ReasonExpired                  // no event within record_ttl
	ReasonAdmin                    // deleted through gRPC
	ReasonSuperseded               // a newer session took the address, or the session moved to another
	ReasonRemovedInDatabase        // somebody else deleted the record (DEL, UNLINK)
)
