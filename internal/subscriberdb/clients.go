package subscriberdb

import (
	"cmp"
	"sync/atomic"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
)

// Realms maps the name of each configured RADIUS client to its realm. Sessions are stored
// under the name of the realm, or under the client's own name where it has no realm ("").
type Realms map[string]string

// knownClients is Realms with the names of the realms added.
type knownClients struct {
	realms Realms          // by name of a client or a realm; the client's own name where it has no realm
	named  map[string]bool // names of the realms in the configuration
}

// clientSet holds the configured RADIUS clients and their limits.
type clientSet struct {
	known       atomic.Pointer[knownClients] // see SetClients; nil for none
	places      atomic.Pointer[places]       // see SetPlaces; nil for no limits
	namedRealms bool                         // only the configuration puts two clients into one realm
}

// SetClients replaces the set of configured clients. A record of any other client cannot be
// refreshed or stopped by its client any more, so another session may take its address.
// nil, the initial state, takes every name for a client without a realm.
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

// realmOf returns the realm of a client or of a realm's own name. configured is false where
// the configuration has no such name.
func (c *clientSet) realmOf(client string) (realm string, configured bool) {
	known := c.known.Load()
	if known == nil {
		return client, true
	}
	realm, configured = known.realms[client]
	return realm, configured
}

// toldApart reports whether, by the configuration, two clients or realms do not report the
// same NASes: their realms differ and one of them is named, or realms must not be inferred.
func (c *clientSet) toldApart(a, b string) bool {
	known := c.known.Load()
	if known == nil {
		return false
	}
	first, ok := known.realms[a]
	second, both := known.realms[b]
	return ok && both && first != second && (c.namedRealms || known.named[first] || known.named[second])
}

// places holds the limits of subscribers online for each RADIUS client.
type places struct {
	limits map[string]int
	online func(client string) int
}

// SetPlaces replaces the limits of subscribers online, by the client's name; a client that
// is not in limits has none. A limit bounds the client's share of the pools and of Redis.
// online returns the number of subscribers online of a client or, by the name of a realm,
// of all its clients. The number may be slightly old. online is called for every event of a
// client with a limit.
func (c *clientSet) SetPlaces(limits map[string]int, online func(client string) int) {
	c.places.Store(&places{limits, online})
}

// full reports whether the client of an event has reached its limit of subscribers. known
// is the name that its sessions are stored under.
func (c *clientSet) full(ev *subscriber.Event, known string) bool {
	p := c.places.Load()
	if p == nil {
		return false
	}
	limit, limited := p.limits[cmp.Or(ev.Via, known)]
	return limited && p.online(known) >= limit
}

// apart reports whether the holder's record belongs to another client than the event, whose
// session is stored under id: to a configured client that does not report the same NASes. A
// NAS that several clients were found to report belongs to each of them. After a restart of
// the holder's NAS the holder counts as gone, although its record has not ended yet.
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
