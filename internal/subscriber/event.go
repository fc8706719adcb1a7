package subscriber

import (
	"errors"
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
	Via              string // configured name of the RADIUS client that sent it; the Client of the SessionID may be its realm
	UserName         string
	CallingStationID string
	Class            string        // raw octets of the first Class (RFC 2865 section 5.25); "" when absent
	MoreClasses      []string      // those of the others, in the NAS's order
	NASAddress       netip.Addr    // zero when absent
	Inside           netip.Addr    // Framed-IP-Address; zero when absent or not an address (ACCT-24)
	ForeignInside    bool          // Inside is none of the addresses whose subscribers the client may report
	Full             bool          // the client has as many subscribers online as it may
	Arrival          time.Time     // when the packet came, by our clock; zero where At is known
	Stamp            time.Time     // Event-Timestamp, by the NAS's clock (RFC 2869 section 5.3); zero when absent
	Delay            time.Duration // Acct-Delay-Time (RFC 2866 section 5.2); negative when absent
	Digest           uint64        // of the packet: the same octets sent again have the same; 0 for none
	At               time.Time     // when it happened, by our clock, as far as is known; see Clock.Place
	Latest           time.Time     // it happened no later: Arrival less Delay; zero: At is exact
	Claimed          time.Time     // when it happened by a clock of which nothing else is known; zero for none
	Told             bool          // At rests on a time that the NAS told, not on Arrival alone
	SessionTime      time.Duration // Acct-Session-Time; negative when absent
	InputOctets      uint64
	OutputOctets     uint64
	TerminateCause   uint32 // Acct-Terminate-Cause of a Stop; 0 when absent

	// Addresses holds all addresses of a session that was reported with more
	// than one Framed-IP-Address, in the NAS's order; else it is nil. Such a
	// report makes one event for each of them, alike but for Inside: all are the
	// session's at once, and none of them takes the place of another.
	Addresses []netip.Addr

	// What the session has of IPv6, for the record alone: it is not translated.
	FramedIPv6Addresses []netip.Addr   // Framed-IPv6-Address (RFC 6911)
	FramedIPv6Prefixes  []netip.Prefix // Framed-IPv6-Prefix (RFC 3162), without host bits
	DelegatedPrefixes   []netip.Prefix // Delegated-IPv6-Prefix (RFC 4818), without host bits

	MultiSessionID string // raw octets of Acct-Multi-Session-Id, which links of one multilink share; "" when absent
	LinkCount      uint32 // Acct-Link-Count: links that the multilink ever had; 0 when absent

	Restarts      RestartPolicy // of the client, for an Accounting-On or -Off
	CountServices bool          // of the client: a service keeps its subscriber online as a link of a multilink does

	// Service marks the accounting of one service or flow within a subscriber's
	// session, which begins and ends while the subscriber is online.
	Service         bool
	ParentSessionID string // raw octets of the Acct-Session-Id of the session around a Service; "" when not told
}

// ErrNoRecord is no failure: the event was taken, and there was nothing of it to
// record. What it tells is known already, or is ignored (RFC 4671,
// radiusAccServNoRecords).
var ErrNoRecord = errors.New("nothing to record")

// RestartPolicy says what an Accounting-On or -Off of a client's NASes means.
type RestartPolicy uint8

// The policies. Some NASes send Accounting-On although their subscribers stay
// online: when the first accounting server is configured, or while none answers.
const (
	RestartsBelieved  RestartPolicy = iota // the sessions that began before are over (RFC 2866 section 5.1)
	RestartsIgnored                        // no session ends
	RestartsConfirmed                      // a session ends unless its NAS reports it again
)

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
