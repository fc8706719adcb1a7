package subscriberdb

import (
	"cmp"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
)

// Realms are the RADIUS clients that are configured, by name, with the realm of each, under
// whose name its sessions are known; "" for none: they are known under its own name.
type Realms map[string]string

// knownClients are the clients as they are looked at.
type knownClients struct {
	realms Realms          // by the name of a client, or of a realm; that of the client for none
	named  map[string]bool // realms that the configuration names
}

// SetClients replaces the clients that are known to be configured. A record of any other
// client, which nobody can refresh or stop any more, holds its address against nobody. nil,
// as before the first call, takes every name for that of a client without a realm.
func (db *DB) SetClients(clients Realms) {
	if clients == nil {
		db.clients.Store(nil)
		return
	}
	known := knownClients{realms: make(Realms, 2*len(clients)), named: make(map[string]bool)}
	for _, realm := range clients {
		if realm != "" {
			known.realms[realm] = realm // records have the name of the realm
			known.named[realm] = true
		}
	}
	for name, realm := range clients {
		known.realms[name] = cmp.Or(realm, name) // records from before it was put into its realm have its own
	}
	db.clients.Store(&known)
}

// realmOf returns the realm of a client, or of a realm; none where it is not configured.
func (db *DB) realmOf(client string) (realm string, configured bool) {
	known := db.clients.Load()
	if known == nil {
		return client, true
	}
	realm, configured = known.realms[client]
	return realm, configured
}

// toldApart reports whether the configuration says that two clients, or realms, do not
// report the same NASes: one is of a realm that the other is not of, or none is to be
// inferred.
func (db *DB) toldApart(a, b string) bool {
	known := db.clients.Load()
	if known == nil {
		return false
	}
	first, ok := known.realms[a]
	second, both := known.realms[b]
	return ok && both && first != second && (db.namedRealms || known.named[first] || known.named[second])
}

// apart reports whether a record is held through another client than that of an event
// that is known under the given identity: through one that is configured, and that does
// not speak for the same NASes. A NAS that was found to be heard of through several
// clients is that of each of them. A restart of the holder's NAS says that it is gone,
// though it is not ended yet.
func (db *DB) apart(g *Group, holder *subscriber.Record, id subscriber.SessionID, ev *subscriber.Event) bool {
	if holder.Client == "" || holder.NASOnly() == id.NASOnly() {
		return false
	}
	by, configured := db.realmOf(cmp.Or(ev.Via, id.Client))
	if !configured { // it was taken out a moment ago
		by = cmp.Or(ev.Via, id.Client)
	}
	spoken, same := false, false
	for _, name := range db.nases.names(db.nases.original(codec.NASOf(holder.SessionID))) {
		realm, configured := db.realmOf(name.Client)
		spoken, same = spoken || configured, same || configured && realm == by
	}
	return spoken && !same && !codec.ParseRestart(db.cache.restart(g.Name, holder.SessionID)).Ends(holder)
}
