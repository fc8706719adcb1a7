package subscriber

import (
	"net/netip"
	"time"
)

// Key names one subscriber record: an inside address within a group. Inside
// addresses of different groups may overlap only if their groups say so; the
// pair is unique.
type Key struct {
	Group  string
	Inside netip.Addr
}

// SessionID identifies one accounting session. Acct-Session-Id is unique only
// within a NAS (RFC 2866 section 5.5), and a NAS name only within the RADIUS
// client that speaks for it, so all three make the identity.
type SessionID struct {
	Client        string // configured name of the RADIUS client; "" for records put by hand
	NAS           string // NAS-Identifier, else NAS-IP(v6)-Address, else the packet's source
	AcctSessionID string // raw octets of Acct-Session-Id
}

// Record is what the database knows of one online subscriber.
type Record struct {
	Key
	SessionID
	UserName         string     // raw octets of User-Name; "" when the NAS sent none
	CallingStationID string     // raw octets of Calling-Station-Id
	NASAddress       netip.Addr // NAS-IP-Address or NAS-IPv6-Address; zero when absent
	StartedAt        time.Time  // event time at which the session began
	UpdatedAt        time.Time  // event time of the newest event taken into the record
	ExpiresAt        time.Time  // when the database forgets the record; zero means never
	InputOctets      uint64     // from the subscriber (RFC 2866 5.3, with 2869 5.1 gigawords)
	OutputOctets     uint64     // to the subscriber (RFC 2866 5.4, with 2869 5.2 gigawords)

	// Unconfirmed marks a record that sessiond wrote back from a binding after
	// the database lost it; the next accounting event clears it.
	Unconfirmed bool

	// Version is the identifier of the change-feed entry that last wrote this
	// record ("milliseconds-sequence"). It is the compare-and-set token, and
	// tells where in the feed the record stands. Empty for no record.
	Version string
}

// SameSession reports whether both records may describe the same accounting
// session of the same user: a change between such records never costs the
// subscriber its NAT sessions. What either side does not know cannot differ, so
// a record rebuilt from a binding, or put by hand, agrees with the session that
// its BNG reports later.
func (r *Record) SameSession(o *Record) bool {
	return agree(r.Client, o.Client) && agree(r.NAS, o.NAS) &&
		agree(r.AcctSessionID, o.AcctSessionID) && agree(r.UserName, o.UserName)
}

func agree(a, b string) bool { return a == "" || b == "" || a == b }

// SameSubscriber reports whether both records belong to one subscriber, who
// may then keep or get back its own port block. Without a User-Name on both
// sides the Calling-Station-Id decides; with neither they are strangers.
func (r *Record) SameSubscriber(o *Record) bool {
	id := r.Identity()
	return id != "" && id == o.Identity()
}

// Identity is the name under which a subscriber is recognised when it comes
// back: User-Name, else Calling-Station-Id, each under a prefix of its own;
// empty when the NAS sent neither.
func (r *Record) Identity() string {
	switch {
	case r.UserName != "":
		return "u:" + r.UserName
	case r.CallingStationID != "":
		return "c:" + r.CallingStationID
	}
	return ""
}
