package subscriberdb

import (
	"net/netip"
	"time"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
)

// readSet is what a step takes Redis to hold.
type readSet struct {
	made bool // there is something to decide on
	// vouched: whatever changes the session's state also writes or deletes the
	// session's record, which is known to stand, and was known no later than the
	// state. So the record's version vouches for both.
	vouched bool

	line    string // state line of the session as it was read; "" for none, and where the session is vouched for
	session subscriber.SessionState
	restart string // restart line of the session's NAS
	holder  *subscriber.Record
	current *subscriber.Record // record at the address where the session is open, if another than the step's
	asked   netip.Addr         // that address, as far as it was looked at

	sessionKey, restartKey, recordKey string // "" until they are needed
}

// follow guesses that what the last commit of the session left behind still
// stands. It reports whether the session is then open at the given address.
func (g *readSet) follow(t *cachedSession, r *subscriber.Record, inside netip.Addr) bool {
	g.made, g.vouched, g.session = true, true, t.state(r)
	if r.Inside != inside {
		g.current, g.asked = r, r.Inside
		return false
	}
	g.holder = r
	return true
}

// settle makes the guess from what was read, the records before the session's
// state, unless the session turns out to be at an address that is still to be
// looked at.
func (g *readSet) settle(id subscriber.SessionID, inside netip.Addr) (err error) {
	if g.session, err = codec.ParseState(g.line); err != nil {
		return err
	}
	elsewhere := g.elsewhere(inside)
	if g.made = elsewhere == g.asked; !g.made {
		g.asked, g.current = elsewhere, nil
		g.made = !elsewhere.IsValid()
	}
	own := g.standing(g.session.Inside)
	g.vouched = g.made && g.session.Phase == subscriber.Open && own != nil && own.SessionID == id && own.Version != codec.Unversioned
	return nil
}

// elsewhere is the address where the session is open, if that is not the given
// one.
func (g *readSet) elsewhere(inside netip.Addr) netip.Addr {
	if g.session.Phase != subscriber.Open || g.session.Inside == inside {
		return netip.Addr{}
	}
	return g.session.Inside
}

func (g *readSet) view(group string, scope subscriber.Scope) subscriber.View {
	return subscriber.View{
		Group: group, Scope: scope, Session: g.session,
		Holder: g.holder, Current: g.current, Restart: codec.ParseRestart(g.restart),
	}
}

// standing is the record that stands at an address, as far as the guess goes.
func (g *readSet) standing(inside netip.Addr) *subscriber.Record {
	if g.holder != nil && g.holder.Inside == inside {
		return g.holder
	}
	if g.current != nil && g.current.Inside == inside {
		return g.current
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

// stateNeedsRewrite reports whether the next event comes so long after the state of an open
// session was written that this is to be done again, to keep it longer than the
// record: once in each such period since the session began.
func (e *txnEngine) stateNeedsRewrite(r, next *subscriber.Record) bool {
	period := e.restateAfter()
	return r.UpdatedAt.Sub(r.StartedAt)/period != next.UpdatedAt.Sub(r.StartedAt)/period
}

// restateAfter is how long the state of an open session may stand unchanged
// until an Interim writes it again.
func (e *txnEngine) restateAfter() time.Duration { return e.tombstoneTTL / 2 }
