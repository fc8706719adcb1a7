package wire

import (
	"bytes"
	"net/netip"
	"slices"
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
	var kind subscriber.EventKind
	switch rfc2866.AcctStatusType(integer(a.statusType)) {
	case rfc2866.AcctStatusType_Value_Start:
		kind = subscriber.EventStart
	case rfc2866.AcctStatusType_Value_InterimUpdate:
		kind = subscriber.EventInterim
	case rfc2866.AcctStatusType_Value_Stop:
		kind = subscriber.EventStop
	case rfc2866.AcctStatusType_Value_AccountingOn:
		return subscriber.EventAccountingOn, nil // often without an Acct-Session-Id, and needs none
	case rfc2866.AcctStatusType_Value_AccountingOff:
		return subscriber.EventAccountingOff, nil
	default:
		return 0, nil
	}
	if len(a.sessionID) == 0 {
		return kind, errNoSessionID
	}
	return kind, nil
}

// integer returns the value of an attribute whose size Parse has checked; 0 when absent.
func integer(a radius.Attribute) uint32 {
	n, err := radius.Integer(a)
	if err != nil {
		return 0
	}
	return n
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

// Decode fills an event, which is zero but for its Digest, with a request from the given
// source. It returns further events if the session has several addresses: one for each, equal
// in all else. All strings of an event share one allocation, because they have the same
// lifetime.
func (d *Decoder) Decode(event *subscriber.Event, a *Attributes, kind subscriber.EventKind, sender *Sender, source netip.Addr, arrival time.Time) (more []subscriber.Event) {
	text, ends := d.scratch[:0], [6]int{}
	for i, value := range [len(ends)]radius.Attribute{a.userName, a.callingStationID, a.class, a.multiSessionID, a.parent(), a.sessionID} {
		text = append(text, value...)
		ends[i] = len(text)
	}
	nas := a.nas()
	text = a.appendNAS(text, sender.NASIdentity, nas, source)
	d.scratch = text
	all := string(text)

	event.Kind = kind
	event.SessionID = subscriber.SessionID{Client: sender.Realm, NAS: all[ends[5]:], AcctSessionID: all[ends[4]:ends[5]]}
	event.Via, event.Restarts, event.CountServices = sender.Name, sender.Restarts, sender.CountServices
	event.UserName = all[:ends[0]]
	event.CallingStationID = all[ends[0]:ends[1]]
	event.Class, event.MoreClasses = all[ends[1]:ends[2]], textsOf(a.moreClasses)
	event.MultiSessionID, event.LinkCount = all[ends[2]:ends[3]], integer(a.linkCount)
	event.Service, event.ParentSessionID = a.isService, all[ends[3]:ends[4]]
	event.NASAddress = nas
	event.Arrival = arrival
	if a.eventTimestamp != nil {
		event.Stamp = time.Unix(int64(integer(a.eventTimestamp)), 0)
	}
	event.Delay, event.SessionTime = seconds(a.delayTime), seconds(a.sessionTime)
	event.TerminateCause = integer(a.terminateCause)
	event.InputOctets = octets(a.inputGigawords, a.inputOctets)
	event.OutputOctets = octets(a.outputGigawords, a.outputOctets)
	event.FramedIPv6Addresses = kept(a.framed6)
	event.FramedIPv6Prefixes = kept(a.prefixes6)
	event.DelegatedPrefixes = kept(a.delegated)
	if len(a.framed) == 0 {
		return nil
	}
	event.Inside = a.framed[0]
	if len(a.framed) == 1 || kind == subscriber.EventAccountingOn || kind == subscriber.EventAccountingOff {
		return nil
	}
	event.Addresses = kept(a.framed)
	for _, inside := range event.Addresses[1:] {
		another := *event
		another.Inside = inside
		more = append(more, another)
	}
	return more
}

// parent returns the Acct-Session-Id of the session around a service; empty when it is
// unknown.
func (a *Attributes) parent() radius.Attribute {
	switch {
	case a.parentSessionID != nil:
		return a.parentSessionID
	case a.parentIn == parentInMultiSession:
		return a.multiSessionID
	case a.parentIn == parentInSession:
		return a.sessionID[:max(bytes.LastIndexByte(a.sessionID, ':'), 0)]
	}
	return nil
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

// textsOf copies values that outlive the packet; nil for none.
func textsOf(values []radius.Attribute) []string {
	if len(values) == 0 {
		return nil
	}
	list := make([]string, len(values))
	for i, v := range values {
		list[i] = string(v)
	}
	return list
}

// seconds returns the time in an attribute; negative when absent.
func seconds(a radius.Attribute) time.Duration {
	if a == nil {
		return -1
	}
	return time.Duration(integer(a)) * time.Second
}

// octets joins a counter with the number of times it wrapped (RFC 2869
// sections 5.1 and 5.2).
func octets(gigawords, low []byte) uint64 {
	return uint64(integer(gigawords))<<32 | uint64(integer(low))
}

// kept returns a copy that outlives the packet; nil of an empty list.
func kept[T any](list []T) []T {
	if len(list) == 0 {
		return nil
	}
	return slices.Clone(list)
}

// The identity of a NAS.

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

// appendNAS appends the identity of the NAS, which has addr if that is valid.
func (a *Attributes) appendNAS(b []byte, identity NASIdentity, addr, source netip.Addr) []byte {
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
