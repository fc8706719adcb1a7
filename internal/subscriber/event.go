package subscriber

import (
	"errors"
	"net/netip"
	"time"
)

// EventKind is the Acct-Status-Type of an accounting event (RFC 2866 section 5.1).
type EventKind uint8

// The accounting events that begin, refresh or end sessions.
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
	MoreClasses      []string      // the other Class attributes, in the NAS's order
	NASAddress       netip.Addr    // zero when absent
	Inside           netip.Addr    // Framed-IP-Address; zero when absent or not an address (ACCT-24)
	ForeignInside    bool          // the client may not report subscribers at Inside
	Full             bool          // the client has as many subscribers online as it may
	Arrival          time.Time     // arrival of the packet, by our clock; zero where At is known
	Stamp            time.Time     // Event-Timestamp, by the NAS's clock (RFC 2869 section 5.3); zero when absent
	Delay            time.Duration // Acct-Delay-Time (RFC 2866 section 5.2); negative when absent
	Digest           uint64        // of the packet: the same octets sent again have the same; 0 for none
	At               time.Time     // time of the event by our clock, as far as known; see Clock.Place
	Latest           time.Time     // upper bound of the event's time: Arrival less Delay; zero: At is exact
	Claimed          time.Time     // time of the event by a clock whose offset is unknown; zero for none
	Told             bool          // At rests on a time from the NAS, not on Arrival alone
	SessionTime      time.Duration // Acct-Session-Time; negative when absent
	InputOctets      uint64
	OutputOctets     uint64
	TerminateCause   uint32 // Acct-Terminate-Cause of a Stop; 0 when absent

	// Addresses holds all addresses of a session that was reported with more than
	// one Framed-IP-Address, in the NAS's order; else it is nil. Such a report
	// makes one event for each address, equal except for Inside. The session has
	// all of them at once; none replaces another.
	Addresses []netip.Addr

	// The session's IPv6 addresses and prefixes, for the record only: they are not
	// translated.
	FramedIPv6Addresses []netip.Addr   // Framed-IPv6-Address (RFC 6911)
	FramedIPv6Prefixes  []netip.Prefix // Framed-IPv6-Prefix (RFC 3162), without host bits
	DelegatedPrefixes   []netip.Prefix // Delegated-IPv6-Prefix (RFC 4818), without host bits

	MultiSessionID string // raw octets of Acct-Multi-Session-Id, which links of one multilink share; "" when absent
	LinkCount      uint32 // Acct-Link-Count: links that the multilink has had so far; 0 when absent

	Restarts      RestartPolicy // of the client, for an Accounting-On or -Off
	CountServices bool          // of the client: a service keeps its subscriber online, like a link of a multilink

	// Service marks the accounting of one service or flow within a subscriber's
	// session, which begins and ends while the subscriber is online.
	Service         bool
	ParentSessionID string // raw octets of the Acct-Session-Id of the session around a Service; "" when absent
}

// ErrNoRecord is no failure: the event was accepted, and there was nothing to
// record, because its content is known already or ignored (RFC 4671,
// radiusAccServNoRecords).
var ErrNoRecord = errors.New("nothing to record")

// RestartPolicy is the meaning of an Accounting-On or -Off of a client's NASes.
type RestartPolicy uint8

// The policies. Some NASes send Accounting-On although their subscribers stay
// online: when the first accounting server is configured, or while none answers.
const (
	RestartsBelieved  RestartPolicy = iota // the sessions that began before are over (RFC 2866 section 5.1)
	RestartsIgnored                        // no session ends
	RestartsConfirmed                      // a session ends unless its NAS reports it again
)

// Reason is the cause of the end of a subscriber record.
type Reason uint8

// Reasons of removal, as in the change feed, events and metrics.
const (
	ReasonNone              Reason = iota
	ReasonStop                     // Acct-Stop of the session
	ReasonNASRestart               // Accounting-On or -Off of its NAS
	ReasonExpired                  // no event within record_ttl
	ReasonAdmin                    // deleted through gRPC
	ReasonSuperseded               // a newer session took the address, or the session moved to another
	ReasonRemovedInDatabase        // another program deleted the record (DEL, UNLINK)
)
