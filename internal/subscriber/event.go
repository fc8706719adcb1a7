package subscriber

import (
	"errors"
	"fmt"
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
	Sender
	UserName         string
	CallingStationID string
	Classes
	NASAddress     netip.Addr    // zero when absent
	Inside         netip.Addr    // Framed-IP-Address; zero when absent or not an address (ACCT-24)
	Arrival        time.Time     // arrival of the packet, by our clock; zero where At is known
	Stamp          time.Time     // Event-Timestamp, by the NAS's clock (RFC 2869 section 5.3); zero when absent
	Delay          time.Duration // Acct-Delay-Time (RFC 2866 section 5.2); negative when absent
	Digest         uint64        // of the packet: the same octets sent again have the same; 0 for none
	At             time.Time     // time of the event by our clock, as far as known; see Clock.Place
	Latest         time.Time     // upper bound of the event's time: Arrival less Delay; zero: At is exact
	Claimed        time.Time     // time of the event by a clock whose offset is unknown; zero for none
	Told           bool          // At rests on a time from the NAS, not on Arrival alone
	TerminateCause uint32        // Acct-Terminate-Cause of a Stop; 0 when absent
	SessionTime    time.Duration // Acct-Session-Time; negative when absent
	Counters
	IPv6
	Multilink
	ServiceMark

	// Addresses holds all addresses of a session that was reported with more than
	// one Framed-IP-Address, in the NAS's order; else it is nil. Such a report
	// makes one event for each address, equal except for Inside. The session has
	// all of them at once; none replaces another.
	Addresses []netip.Addr
}

// Sender is the RADIUS client that sent an event, with its settings and bounds.
type Sender struct {
	Via           string        // configured name of the client; the Client of the SessionID may be its realm
	Restarts      RestartPolicy // for an Accounting-On or -Off
	CountServices bool          // a service keeps its subscriber online, like a link of a multilink
	ForeignInside bool          // the client may not report subscribers at the event's Inside
	Full          bool          // the client has as many subscribers online as it may
}

// Multilink tells the multilink of a session (RFC 2866 sections 5.11 and 5.12).
type Multilink struct {
	MultiSessionID string // raw octets of Acct-Multi-Session-Id, which links of one multilink share; "" when absent
	LinkCount      uint32 // Acct-Link-Count: links that the multilink has had so far; 0 when absent
}

// ServiceMark marks the accounting of one service or flow within a subscriber's
// session, which begins and ends while the subscriber is online.
type ServiceMark struct {
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

// Verdict is the outcome of an accounting event.
type Verdict uint8

// The verdicts.
const (
	NotHere         Verdict = iota // the group does not know the session, and need not
	Opened                         // a record was created
	Refreshed                      // the session's record was refreshed
	Adopted                        // a record without a session of its own became this session's
	Linked                         // another link of a multilink came up
	Unlinked                       // a link of a multilink ended, and not the last
	Moved                          // the session changed its address
	TookOver                       // a record was created, another session's on that address ended
	Stopped                        // the session's record was deleted
	Noted                          // remembered, without a record in this group
	Left                           // the session is now online in another group, or at an address of none
	Stale                          // ignored: older than the known state
	Ended                          // ignored: the session is over
	Outdated                       // ignored: began before its NAS restarted
	Held                           // ignored: a newer session holds the address
	Restarted                      // a restart of a NAS was recorded
	RestartRepeated                // ignored: that restart is known
	RestartIgnored                 // ignored: of a NAS whose restarts say nothing about its sessions
	ServiceIgnored                 // ignored: of a service within a session
	ForeignNAS                     // ignored: a restart of a NAS that only another client reports
	NASConflict                    // ignored: a restart under a name that several NASes have
	ForeignAddress                 // ignored: the client may not report the address
	ForeignHolder                  // ignored: a session that another client reports holds the address
	ClientFull                     // ignored: the client has as many subscribers online as it may
)

var verdictNames = [...]string{
	NotHere: "not_here", Opened: "opened", Refreshed: "refreshed", Adopted: "adopted", Linked: "linked", Unlinked: "unlinked",
	Moved: "moved", TookOver: "took_over", Stopped: "stopped", Noted: "noted", Left: "left",
	Stale: "stale", Ended: "ended", Outdated: "outdated", Held: "held",
	Restarted: "restarted", RestartRepeated: "restart_repeated", RestartIgnored: "restart_ignored",
	ServiceIgnored: "service_ignored", ForeignNAS: "foreign_nas", NASConflict: "nas_conflict",
	ForeignAddress: "foreign_address", ForeignHolder: "foreign_holder", ClientFull: "client_full",
}

// Refused reports whether the event changed nothing because of its content: a
// replay, a NAS whose clock or identifiers are wrong, or a client that reports
// sessions which are not its own.
func (v Verdict) Refused() bool {
	switch v {
	case Stale, Ended, Outdated, Held, ForeignNAS, NASConflict, ForeignAddress, ForeignHolder, ClientFull:
		return true
	}
	return false
}

// Verdicts returns all verdicts that are reported: all but NotHere.
func Verdicts() []Verdict {
	all := make([]Verdict, 0, len(verdictNames)-1)
	for v := NotHere + 1; int(v) < len(verdictNames); v++ {
		all = append(all, v)
	}
	return all
}

// String returns the verdict as a metric label.
func (v Verdict) String() string {
	if int(v) >= len(verdictNames) {
		return fmt.Sprintf("Verdict(%d)", uint8(v))
	}
	return verdictNames[v]
}
