package subscriber

import (
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"strings"
	"time"
)

// Phase is what is known of a session.
type Phase uint8

// The phases of a session.
const (
	Unknown Phase = iota // never heard of, or forgotten
	Open                 // online
	Closed               // ended, and remembered for a while: a tombstone
)

// SessionState is what a group remembers of one accounting session besides its
// record: where it is online, or that it ended and must not come back.
type SessionState struct {
	Phase    Phase
	Inside   netip.Addr // where the session is, or last was, online; zero for no address here
	Start    time.Time  // event time at which the session began
	Exact    bool       // Start is the time of an Acct-Start, not reckoned from an Interim
	Stamp    time.Time  // Event-Timestamp of the Acct-Start, by the NAS's clock; zero for none
	Digest   uint64     // of the packet of an Acct-Start without Stamp; 0 for none
	End      time.Time  // Closed: event time of the end
	Reason   Reason     // Closed: why; ReasonNone when the session moved to another group
	UserName string     // raw octets of User-Name

	// Before is when another session began that the NAS reported under the same
	// identifier before; zero for none. What comes late may be of that one.
	Before time.Time

	// Of a session that another one took the address from (ReasonSuperseded):
	Heard    time.Time // event time of the last that was heard of it; zero where that is not known
	Doubtful bool      // the two came in the order that counts, but the NAS's clock says the opposite
}

// Restart is the newest Accounting-On or -Off of a NAS: the sessions that began
// before it, and that the NAS has not reported since, are over.
type Restart struct {
	At      time.Time // event time; zero for none
	ID      string    // feed identifier of the entry that recorded it
	Confirm bool      // the sessions end only if the NAS goes on not to report them
	Stamp   time.Time // Event-Timestamp, by the NAS's clock; zero for none
	Packets string    // digests of this one and those before, as AppendDigest writes them, the latest first
}

// digestWord is the length of a digest as Packets has it, and maxPackets how many it has.
const (
	digestWord = 16
	maxPackets = 8
)

// told reports whether the packet is that of the restart, or of one before, again.
func (r Restart) told(digest uint64) bool {
	return digest != 0 && strings.Contains(r.Packets, string(AppendDigest(nil, digest)))
}

// packets are the digests of a newer restart and of those before.
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

// AppendDigest writes the digest of a packet as a word, always of the same length.
func AppendDigest(text []byte, digest uint64) []byte {
	var octets [digestWord / 2]byte
	binary.BigEndian.PutUint64(octets[:], digest)
	return hex.AppendEncode(text, octets[:])
}

// Ends reports whether the restart ended this record's session. Of sessions
// that began in the very second of the restart, those recorded before it ended:
// the later arrival wins. A session of which its NAS told something after the
// restart outlived it.
func (r Restart) Ends(rec *Record) bool {
	if r.At.IsZero() || rec.UpdatedAt.After(r.At.Add(jitter)) {
		return false
	}
	return rec.StartedAt.Before(r.At) ||
		rec.StartedAt.Equal(r.At) && CompareVersions(rec.Version, r.ID) < 0
}

// Scope is how an event concerns the group in which it is decided.
type Scope uint8

// The scopes.
const (
	Here      Scope = iota // the event's address belongs to the group
	NoAddress              // the event has no address: what stands is refreshed or closed
	Elsewhere              // the event's address belongs to another group, or to none
	Recorded               // the reserved group: sessions without an address of any group (ACCT-24, 25)
)

// View is what the database holds around one event, in one group.
type View struct {
	Group   string
	Scope   Scope
	Session SessionState // of the event's SessionID
	Holder  *Record      // at the event's inside address; nil for none
	// HolderApart: the holder is held through another RADIUS client than the event's, and
	// the two do not speak for the same NASes.
	HolderApart bool
	// HolderToldApart: the configuration says that no session of the holder's client is
	// heard of through the event's.
	HolderToldApart bool
	Current         *Record // where Session is open, when that is another address; nil for none
	Restart         Restart // of the event's NAS
}
