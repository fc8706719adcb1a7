package txn

import (
	"net/netip"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
)

// readSet is the data in Redis that a decision rests on, as the transaction knows them.
type readSet struct {
	loaded bool // there is something to decide on
	// versionCoversState: every script that changes the state of this open session also
	// writes or deletes its record, which is known to stand, and was known no later than
	// the state. So the commit compares the record's version alone.
	versionCoversState bool

	line    string // state line of the session as it was read; "" for none, and where the version covers it
	session subscriber.SessionState
	restart string // restart line of the session's NAS
	holder  *subscriber.Record
	current *subscriber.Record // record at the address where the session is open, if another than the transaction's
	asked   netip.Addr         // that address, as far as it was read

	sessionKey, restartKey, recordKey string // "" until they are needed
}

// follow guesses that the session still is as its last commit left it. It reports whether the session is then open at the given address.
func (rs *readSet) follow(c *cachedSession, r *subscriber.Record, inside netip.Addr) bool {
	rs.loaded, rs.versionCoversState, rs.session = true, true, c.state(r)
	if r.Inside != inside {
		rs.current, rs.asked = r, r.Inside
		return false
	}
	rs.holder = r
	return true
}

// fromReads makes the guess from the answers of Redis, the records before the session's
// state, unless the session turns out to be at an address that is still to be read.
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

// elsewhere is the address where the session is open, if that is not the given
// one.
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

// recordAt is the record at an address, as far as the guess goes.
func (rs *readSet) recordAt(inside netip.Addr) *subscriber.Record {
	if rs.holder != nil && rs.holder.Inside == inside {
		return rs.holder
	}
	if rs.current != nil && rs.current.Inside == inside {
		return rs.current
	}
	return nil
}

// versionOf is the version of a record as commitScript knows it.
func versionOf(r *subscriber.Record) string {
	if r == nil {
		return ""
	}
	return r.Version
}
