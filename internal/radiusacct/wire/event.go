package wire

import (
	"net/netip"
	"time"

	"layeh.com/radius"
	"layeh.com/radius/rfc2866"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// Kind returns the kind of event. It is 0 for a status type without effect on sessions
// (tunnels, Failed, vendors' own), which is answered all the same.
func (a *Attributes) Kind() (subscriber.EventKind, *Malformed) {
	if a.statusType == nil {
		return 0, errNoStatusType
	}
	switch rfc2866.AcctStatusType(integer(a.statusType)) {
	case rfc2866.AcctStatusType_Value_Start:
		return a.ofSession(subscriber.EventStart)
	case rfc2866.AcctStatusType_Value_InterimUpdate:
		return a.ofSession(subscriber.EventInterim)
	case rfc2866.AcctStatusType_Value_Stop:
		return a.ofSession(subscriber.EventStop)
	case rfc2866.AcctStatusType_Value_AccountingOn:
		return subscriber.EventAccountingOn, nil
	case rfc2866.AcctStatusType_Value_AccountingOff:
		return subscriber.EventAccountingOff, nil
	}
	return 0, nil
}

// ofSession checks that an event of a session has an Acct-Session-Id. Accounting-On and
// -Off often lack it, and need none.
func (a *Attributes) ofSession(kind subscriber.EventKind) (subscriber.EventKind, *Malformed) {
	if len(a.sessionID) == 0 {
		return kind, errNoSessionID
	}
	return kind, nil
}

// A Sender is the configuration of the RADIUS client for decoding its events.
type Sender struct {
	Name          string // of the RADIUS client
	Realm         string // of its NASes: its own name, or one shared with others
	NASIdentity   NASIdentity
	Restarts      subscriber.RestartPolicy
	CountServices bool
}

// A Decoder makes events of attributes. It is used by one goroutine.
type Decoder struct{ scratch []byte }

// Decode builds the events of a request from the given source: one for each of the
// session's addresses, equal in all else.
func (d *Decoder) Decode(a *Attributes, kind subscriber.EventKind, sender *Sender, source netip.Addr, arrival time.Time) (subscriber.Event, []subscriber.Event) {
	event := d.event(a, kind, sender, source, arrival)
	if len(a.framed) < 2 || kind == subscriber.EventAccountingOn || kind == subscriber.EventAccountingOff {
		return event, nil
	}
	event.Addresses = kept(a.framed)
	var more []subscriber.Event
	for _, inside := range event.Addresses[1:] {
		another := event
		another.Inside = inside
		more = append(more, another)
	}
	return event, more
}

// event builds the event of the first address. All its strings share one allocation,
// because they have the same lifetime.
func (d *Decoder) event(a *Attributes, kind subscriber.EventKind, sender *Sender, source netip.Addr, arrival time.Time) subscriber.Event {
	text, ends := d.scratch[:0], [6]int{}
	for i, value := range [len(ends)]radius.Attribute{a.userName, a.callingStationID, a.class, a.multiSessionID, a.parent(), a.sessionID} {
		text = append(text, value...)
		ends[i] = len(text)
	}
	text = a.appendNAS(text, sender.NASIdentity, source)
	d.scratch = text
	all := string(text)

	return subscriber.Event{
		Kind:             kind,
		SessionID:        subscriber.SessionID{Client: sender.Realm, NAS: all[ends[5]:], AcctSessionID: all[ends[4]:ends[5]]},
		Sender:           subscriber.Sender{Via: sender.Name, Restarts: sender.Restarts, CountServices: sender.CountServices},
		UserName:         all[:ends[0]],
		CallingStationID: all[ends[0]:ends[1]],
		Classes:          subscriber.Classes{Class: all[ends[1]:ends[2]], MoreClasses: textsOf(a.moreClasses)},
		Multilink:        subscriber.Multilink{MultiSessionID: all[ends[2]:ends[3]], LinkCount: integer(a.linkCount)},
		ServiceMark:      subscriber.ServiceMark{Service: a.isService, ParentSessionID: all[ends[3]:ends[4]]},
		NASAddress:       a.nas(),
		Inside:           a.inside(),
		Arrival:          arrival,
		Stamp:            a.stamp(),
		Delay:            a.delayed(),
		SessionTime:      a.lasted(),
		TerminateCause:   integer(a.terminateCause),
		Counters: subscriber.Counters{
			InputOctets:  octets(a.inputGigawords, a.inputOctets),
			OutputOctets: octets(a.outputGigawords, a.outputOctets),
		},
		IPv6: subscriber.IPv6{
			FramedIPv6Addresses: kept(a.framed6),
			FramedIPv6Prefixes:  kept(a.prefixes6),
			DelegatedPrefixes:   kept(a.delegated),
		},
	}
}

// nas returns the NAS's address attribute. A link-local one identifies no NAS: every router
// may have the same (RFC 5080 section 2.7.1).
func (a *Attributes) nas() netip.Addr {
	if addr := address(a.nasAddress); addr.IsValid() && !addr.IsUnspecified() {
		return addr
	}
	addr := address(a.nasAddressV6)
	if !addr.IsValid() || addr.IsUnspecified() || addr.IsLinkLocalUnicast() {
		return netip.Addr{}
	}
	return addr
}

// inside returns the session's first address; the zero Addr when it has none.
func (a *Attributes) inside() netip.Addr {
	if len(a.framed) == 0 {
		return netip.Addr{}
	}
	return a.framed[0]
}

func (a *Attributes) stamp() time.Time {
	if a.eventTimestamp == nil {
		return time.Time{}
	}
	return time.Unix(int64(integer(a.eventTimestamp)), 0)
}

// delayed returns Acct-Delay-Time; negative when absent.
func (a *Attributes) delayed() time.Duration {
	if a.delayTime == nil {
		return -1
	}
	return seconds(integer(a.delayTime))
}

// lasted returns Acct-Session-Time; negative when absent.
func (a *Attributes) lasted() time.Duration {
	if a.sessionTime == nil {
		return -1
	}
	return seconds(integer(a.sessionTime))
}

func seconds(n uint32) time.Duration { return time.Duration(n) * time.Second }

// octets joins a counter with the number of times it wrapped (RFC 2869
// sections 5.1 and 5.2).
func octets(gigawords, low []byte) uint64 {
	return uint64(integer(gigawords))<<32 | uint64(integer(low))
}

// NASIdentity selects the attributes that identify a NAS within a client, or within the
// realm of several.
type NASIdentity uint8

// The identities. Even if attributes are missing, the text is the same for each packet of a
// NAS, and different for different NASes.
const (
	// NASIdentifier is NAS-Identifier, else the NAS's address, else the address
	// that the packet came from (strongSwan's early Stop names none).
	NASIdentifier NASIdentity = iota
	// NASAddress is NAS-IP(v6)-Address, else the address that the packet came from.
	NASAddress
	// NASBoth is NAS-Identifier and NAS-IP(v6)-Address with an "@" between them, either of
	// which may be missing ("MikroTik@", "@192.0.2.1"); without both, the address that the
	// packet came from is the second. An address has no "@", so the last one is the
	// separator.
	NASBoth
)

// Valid reports whether it is one of the identities.
func (i NASIdentity) Valid() bool { return i <= NASBoth }

// appendNAS appends the identity of the NAS.
func (a *Attributes) appendNAS(b []byte, identity NASIdentity, source netip.Addr) []byte {
	addr := a.nas()
	switch {
	case identity == NASBoth:
		b = append(append(b, a.nasIdentifier...), '@')
		if !addr.IsValid() && len(a.nasIdentifier) > 0 {
			return b
		}
	case identity == NASIdentifier && len(a.nasIdentifier) > 0:
		return append(b, a.nasIdentifier...)
	}
	if !addr.IsValid() {
		addr = source
	}
	return addr.AppendTo(b)
}
