package subscriber

import (
	"net/netip"
	"slices"
	"time"
)

// Key names one subscriber record: an inside address within a group. Inside
// addresses of different groups may overlap only if their configuration allows
// it; the pair is unique.
type Key struct {
	Group  string
	Inside netip.Addr
}

// SessionID identifies one accounting session. Acct-Session-Id is unique only
// within a NAS (RFC 2866 section 5.5), and a NAS name only within its RADIUS
// client. So all three make the identity.
type SessionID struct {
	Client        string // configured name of the RADIUS client, or of its realm; "" for records put by hand
	NAS           string // by default NAS-Identifier, else NAS-IP(v6)-Address, else the packet's source
	AcctSessionID string // raw octets of Acct-Session-Id

	// Leg is the address of one of several that a session has at once; zero for a
	// session with one address.
	Leg netip.Addr
}

// NASOnly is the identity without its session.
func (id SessionID) NASOnly() SessionID { return SessionID{Client: id.Client, NAS: id.NAS} }

// besideLeg reports whether both identities are of one accounting session.
func (id SessionID) besideLeg(other SessionID) bool {
	id.Leg, other.Leg = netip.Addr{}, netip.Addr{}
	return id == other
}

// Record is the data in the database about one online subscriber.
type Record struct {
	Key
	SessionID
	UserName         string // raw octets of User-Name; "" when the NAS sent none
	CallingStationID string // raw octets of Calling-Station-Id
	Classes
	NASAddress netip.Addr // NAS-IP-Address or NAS-IPv6-Address; zero when absent
	StartedAt  time.Time  // event time at which the session began
	UpdatedAt  time.Time  // event time of the newest event taken into the record
	ExpiresAt  time.Time  // when the record's TTL runs out; zero for never
	Counters
	IPv6

	// MultiSessionID is the Acct-Multi-Session-Id of a multilink, and Links the
	// Acct-Session-Ids of its online links, in the order of their arrival (SES-20).
	// The SessionID stays that of the first link; the octets are those of the
	// newest event of any link.
	MultiSessionID string
	Links          []string

	// Unconfirmed marks a record that sessiond wrote back from a binding after
	// the database lost it; the next accounting event clears it.
	Unconfirmed bool

	// RemovalHeld is the reason of a removal that a guard has suspended, so that a
	// person decides; ReasonNone for most records. Such a record does not expire.
	// The next accounting event of its session clears it.
	RemovalHeld Reason

	// Version is the identifier of the change-feed entry that last wrote this
	// record ("milliseconds-sequence"). It is the compare-and-set token, and the
	// record's position in the feed. Empty for no record.
	Version string
}

// Classes are the Class attributes of a session (RFC 2865 section 5.25). Together they
// are one answer of the server that authenticated it.
type Classes struct {
	Class       string   // raw octets of the first one; "" when absent
	MoreClasses []string // raw octets of the others, in the NAS's order
}

func (c Classes) equal(o Classes) bool {
	return c.Class == o.Class && slices.Equal(c.MoreClasses, o.MoreClasses)
}

// Counters are the octets of a session, as its NAS counts them.
type Counters struct {
	InputOctets  uint64 // from the subscriber (RFC 2866 section 5.3, with RFC 2869 section 5.1 gigawords)
	OutputOctets uint64 // to the subscriber (RFC 2866 section 5.4, with RFC 2869 section 5.2 gigawords)
}

// IPv6 holds the IPv6 addresses and prefixes of a session, for information: they are not
// translated (ACCT-29).
type IPv6 struct {
	FramedIPv6Addresses []netip.Addr   // Framed-IPv6-Address (RFC 6911)
	FramedIPv6Prefixes  []netip.Prefix // Framed-IPv6-Prefix (RFC 3162), without host bits
	DelegatedPrefixes   []netip.Prefix // Delegated-IPv6-Prefix (RFC 4818), without host bits
}

func (v IPv6) equal(o IPv6) bool {
	return slices.Equal(v.FramedIPv6Addresses, o.FramedIPv6Addresses) &&
		slices.Equal(v.FramedIPv6Prefixes, o.FramedIPv6Prefixes) &&
		slices.Equal(v.DelegatedPrefixes, o.DelegatedPrefixes)
}

// SameSession reports whether both records may describe the same accounting
// session of the same user: a change between such records never ends the
// subscriber's NAT sessions. An empty field agrees with any value. So a record
// rebuilt from a binding, or put by hand, agrees with the session that its BNG
// reports later.
func (r *Record) SameSession(o *Record) bool {
	return agree(r.Client, o.Client) && agree(r.NAS, o.NAS) &&
		agree(r.AcctSessionID, o.AcctSessionID) && agree(r.UserName, o.UserName)
}

// Follows reports whether the record is of another session than an earlier record
// at its address, and began later.
func (r *Record) Follows(o *Record) bool {
	return !r.SameSession(o) && !o.StartedAt.IsZero() && o.StartedAt.Before(r.StartedAt)
}

// RefreshedOnly reports whether the next record differs from this one only in
// the fields of a Partial change.
func (r *Record) RefreshedOnly(next *Record) bool {
	return r.Key == next.Key && r.SessionID == next.SessionID &&
		r.UserName == next.UserName && r.CallingStationID == next.CallingStationID &&
		r.Classes.equal(next.Classes) &&
		r.NASAddress == next.NASAddress && r.StartedAt == next.StartedAt && r.Unconfirmed == next.Unconfirmed &&
		r.RemovalHeld == next.RemovalHeld &&
		r.MultiSessionID == next.MultiSessionID && slices.Equal(r.Links, next.Links) &&
		r.IPv6.equal(next.IPv6)
}

func agree(a, b string) bool { return a == "" || b == "" || a == b }

// SameSubscriber reports whether both records belong to one subscriber, which
// may then keep its port block or get it back. Without a User-Name on both
// sides the Calling-Station-Id decides; without either they are different
// subscribers.
func (r *Record) SameSubscriber(o *Record) bool {
	id := r.Identity()
	return id != "" && id == o.Identity()
}

// Identity is the name by which a subscriber is recognised when it comes back:
// User-Name, else Calling-Station-Id, each under a prefix of its own; empty
// when the NAS sent neither.
func (r *Record) Identity() string {
	if r.UserName != "" {
		return r.identityPrefix() + r.UserName
	}
	return r.identityPrefix() + r.CallingStationID
}

// identityPrefixLen is the length of the prefix of an Identity.
const identityPrefixLen = 2

func (r *Record) identityPrefix() string {
	switch {
	case r.UserName != "":
		return "u:"
	case r.CallingStationID != "":
		return "c:"
	}
	return ""
}
