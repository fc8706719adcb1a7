package subscriber

import (
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"strings"
	"time"
)

// Phase is the known state of a session.
type Phase uint8

// The phases of a session.
const (
	Unknown Phase = iota // never heard of, or forgotten
	Open                 // online
	Closed               // ended, and remembered for a while: a tombstone
)

// SessionState is the memory of a group of one accounting session, besides its
// record: its address while it is online, or that it ended and must not come
// back.
type SessionState struct {
	Phase    Phase
	Inside   netip.Addr // present or last address of the session; zero for no address here
	Start    time.Time  // event time at which the session began
	Exact    bool       // Start is the time of an Acct-Start, not computed from an Interim
	Stamp    time.Time  // Event-Timestamp of the Acct-Start, by the NAS's clock; zero for none
	Digest   uint64     // of the packet of an Acct-Start without Stamp; 0 for none
	End      time.Time  // Closed: event time of the end
	Reason   Reason     // Closed: why; ReasonNone when the session moved to another group
	UserName string     // raw octets of User-Name

	// Before is the start of the previous session that the NAS reported under the
	// same identifier; zero for none. A late event may be of that session.
	Before time.Time

	// For a session that lost its address to another one (ReasonSuperseded):
	Heard    time.Time // time of its last event; zero if that is not known
	Doubtful bool      // the order of arrival decided, against the NAS's clock
}

// Restart is the newest Accounting-On or -Off of a NAS: the sessions that began
// before it, and that the NAS has not reported since, are over.
type Restart struct {
	At      time.Time // event time; zero for none
	ID      string    // feed identifier of the entry that recorded it
	Confirm bool      // a session ends only if the NAS does not report it again
	Stamp   time.Time // Event-Timestamp, by the NAS's clock; zero for none
	Packets string    // digests of this packet and of earlier ones, in the form of AppendDigest, latest first
}

// digestWord is the length of a digest in Packets, maxPackets their number.
const (
	digestWord = 16
	maxPackets = 8
)

// told reports whether the packet is a repetition of this restart's, or of an
// earlier one's.
func (r Restart) told(digest uint64) bool {
	return digest != 0 && strings.Contains(r.Packets, string(AppendDigest(nil, digest)))
}

// packets returns the digests with that of a newer restart in front.
func (r Restart) packets(digest uint64) string {
	if digest == 0 {
		return r.Packets
	}
	all := string(AppendDigest(nil, digest))
	if r.Packets != "" {
		all += "," + r.Packets
	}
	return all[:min(len(all), maxPackets*(digestWord+1)-1)]
}

// AppendDigest appends the digest of a packet as a word of fixed length.
func AppendDigest(text []byte, digest uint64) []byte {
	var octets [digestWord / 2]byte
	binary.BigEndian.PutUint64(octets[:], digest)
	return hex.AppendEncode(text, octets[:])
}

// Ends reports whether the restart ended this record's session. Of sessions
// that began in the second of the restart, those recorded before it ended: the
// later arrival wins. A session that its NAS reported after the restart
// outlived it.
func (r Restart) Ends(rec *Record) bool {
	if r.At.IsZero() || rec.UpdatedAt.After(r.At.Add(jitter)) {
		return false
	}
	return rec.StartedAt.Before(r.At) ||
		rec.StartedAt.Equal(r.At) && CompareVersions(rec.Version, r.ID) < 0
}

// Scope is the relation of an event's address to the group in which it is
// decided.
type Scope uint8

// The scopes.
const (
	Here      Scope = iota // the event's address belongs to the group
	NoAddress              // the event has no address: its session is refreshed or closed
	Elsewhere              // the event's address belongs to another group, or to none
	Recorded               // the reserved group: sessions without an address of any group (ACCT-24, 25)
)

// View is the data in the database around one event, in one group.
type View struct {
	Group   string
	Scope   Scope
	Session SessionState // of the event's SessionID
	Holder  *Record      // at the event's inside address; nil for none
	// HolderApart: another RADIUS client than the event's reports the holder, and
	// the two do not report the same NASes.
	HolderApart bool
	// HolderToldApart: by the configuration, the event's client reports no session
	// of the holder's client.
	HolderToldApart bool
	Current         *Record // at the address of Session, if that is open at another address; nil for none
	Restart         Restart // of the event's NAS
}
