package subscriberdb

import (
	"cmp"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
)

// apart reports whether a record is held through another client than that of an event
// that is known under the given identity: through one that is configured, and that does
// not speak for the same NASes. A NAS that was found to be heard of through several
// clients is that of each of them. A restart of the holder's NAS says that it is gone,
// though it is not ended yet.
func (db *DB) apart(group string, holder *subscriber.Record, id subscriber.SessionID, ev *subscriber.Event) bool {
	if holder.Client == "" || holder.NASOnly() == id.NASOnly() {
		return false
	}
	by, configured := db.realmOf(cmp.Or(ev.Via, id.Client))
	if !configured { // it was taken out a moment ago
		by = cmp.Or(ev.Via, id.Client)
	}
	spoken, same := false, false
	for _, name := range db.nases.Names(db.nases.Original(codec.NASOf(holder.SessionID))) {
		realm, configured := db.realmOf(name.Client)
		spoken, same = spoken || configured, same || configured && realm == by
	}
	return spoken && !same && !codec.ParseRestart(db.txns.Restart(group, holder.SessionID)).Ends(holder)
}
