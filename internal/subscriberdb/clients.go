package subscriberdb

import (
	"cmp"
	"sync/atomic"

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

// clientSet is the RADIUS clients that are configured, and their limits.
type clientSet struct {
	known       atomic.Pointer[knownClients] // see SetClients; nil for none
	places      atomic.Pointer[places]       // see SetPlaces; nil for no limits
	namedRealms bool                         // two clients are of one realm by its name only
}

// SetClients replaces the clients that are known to be configured. A record of any other
// client, which nobody can refresh or stop any more, holds its address against nobody. nil,
// as before the first call, takes every name for that of a client without a realm.
func (c *clientSet) SetClients(clients Realms) {
	if clients == nil {
		c.known.Store(nil)
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
	c.known.Store(&known)
}

// realmOf returns the realm of a client, or of a realm; none where it is not configured.
func (c *clientSet) realmOf(client string) (realm string, configured bool) {
	known := c.known.Load()
	if known == nil {
		return client, true
	}
	realm, configured = known.realms[client]
	return realm, configured
}

// toldApart reports whether the configuration says that two clients, or realms, do not
// report the same NASes: one is of a realm that the other is not of, or none is to be
// inferred.
func (c *clientSet) toldApart(a, b string) bool {
	known := c.known.Load()
	if known == nil {
		return false
	}
	first, ok := known.realms[a]
	second, both := known.realms[b]
	return ok && both && first != second && (c.namedRealms || known.named[first] || known.named[second])
}

// places are how many subscribers RADIUS clients may have online.
type places struct {
	limits map[string]int
	online func(client string) int
}

// SetPlaces replaces how many subscribers each client may have online, by its name; one that
// is not there as many as it likes. So a client's share of the pools and of Redis is bounded.
// online tells how many a client has, or all clients of a realm by the realm's name. That may
// be a moment old, and is called for every event of a client with a limit.
func (c *clientSet) SetPlaces(limits map[string]int, online func(client string) int) {
	c.places.Store(&places{limits, online})
}

// full reports whether the client of an event has as many subscribers as it may. known is the
// name under which its sessions are known.
func (c *clientSet) full(ev *subscriber.Event, known string) bool {
	p := c.places.Load()
	if p == nil {
		return false
	}
	limit, limited := p.limits[cmp.Or(ev.Via, known)]
	return limited && p.online(known) >= limit
}

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
