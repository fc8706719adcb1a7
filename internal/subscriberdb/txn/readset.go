package txn

import (
	"net/netip"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
)

// readSet is the data in Redis that a decision depends on, as read or guessed.
type readSet struct {
	loaded bool // the read set is complete enough to decide
	// versionCoversState: every script that changes the state of this open session also
	// writes or deletes its record. The record is known to exist, from no later than the
	// state. So the commit compares the record's version only.
	versionCoversState bool

	line    string // state line of the session as read; "" for none, and if the version covers it
	session subscriber.SessionState
	restart string // restart line of the session's NAS
	holder  *subscriber.Record
	current *subscriber.Record // record at the address where the session is open, if that is not the transaction's
	asked   netip.Addr         // that address, once it was read

	sessionKey, restartKey, recordKey string // "" until they are needed
}

// follow guesses the read set from the session's last commit. It reports whether the
// session is then open at the given address.
func (rs *readSet) follow(c *cachedSession, r *subscriber.Record, inside netip.Addr) bool {
	rs.loaded, rs.versionCoversState, rs.session = true, true, c.state(r)
	if r.Inside != inside {
		rs.current, rs.asked = r, r.Inside
		return false
	}
	rs.holder = r
	return true
}

// fromReads sets the read set from the answers of Redis, whose records were read before the
// session's state. The read set stays incomplete if the session is at another address,
// which has to be read too.
func (rs *readSet) fromReads(id subscriber.SessionID, inside netip.Addr) (err error) {
	if rs.session, err = codec.ParseState(rs.line); err != nil {
		return err
	}
	elsewhere := rs.elsewhere(inside)
	if rs.loaded = elsewhere == rs.asked; !rs.loaded {
		rs.asked, rs.current = elsewhere, nil
		rs.loaded = !elsewhere.IsValid()
	}
	own := rs.recordAt(rs.session.Inside)
	rs.versionCoversState = rs.loaded && rs.session.Phase == subscriber.Open && own != nil && own.SessionID == id && own.Version != codec.Unversioned
	return nil
}

// elsewhere returns the address where the session is open, if that is not the given one.
func (rs *readSet) elsewhere(inside netip.Addr) netip.Addr {
	if rs.session.Phase != subscriber.Open || rs.session.Inside == inside {
		return netip.Addr{}
	}
	return rs.session.Inside
}

func (rs *readSet) view(group string, scope subscriber.Scope) subscriber.View {
	return subscriber.View{
		Group: group, Scope: scope, Session: rs.session,
		Holder: rs.holder, Current: rs.current, Restart: codec.ParseRestart(rs.restart),
	}
}

// recordAt returns the record at an address in the read set; nil for none.
func (rs *readSet) recordAt(inside netip.Addr) *subscriber.Record {
	if rs.holder != nil && rs.holder.Inside == inside {
		return rs.holder
	}
	if rs.current != nil && rs.current.Inside == inside {
		return rs.current
	}
	return nil
}

// versionOf returns the version of a record in the form of commitScript.
func versionOf(r *subscriber.Record) string {
	if r == nil {
		return ""
	}
	return r.Version
}
