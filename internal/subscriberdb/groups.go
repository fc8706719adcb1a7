package subscriberdb

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sessiond/sessiond/internal/guard"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/txn"
)

// Group is one LSN group as the store sees it.
type Group struct {
	Name      string         // letters, digits, ".", "_", "-"; not "_"
	Inside    []netip.Prefix // subscribers' addresses; those of two groups must not overlap
	RecordTTL time.Duration  // records expire this long after their last refresh; 0 means never

	// ClientTTL holds the RecordTTL for sessions of the named RADIUS clients, where it
	// differs from the group's (SES-18).
	ClientTTL map[string]time.Duration

	// Guard bounds the number of sessions that the restart of a NAS ends without a
	// confirmation; the zero value sets no bound. Removals for other reasons are guarded by
	// the callers that announce them.
	Guard guard.Limits

	txns *txn.Group // the group's data for transactions
}

// groupTable finds the group of an address.
type groupTable struct {
	groups   []Group // without the reserved group
	routes   []route // longest prefix first
	reserved Group
}

type route struct {
	prefix netip.Prefix
	group  *Group
}

func newGroupTable(groups []Group) (*groupTable, error) {
	t := &groupTable{groups: slices.Clone(groups), reserved: withTxns(Group{Name: codec.Reserved})}
	seen := make(map[string]bool)
	for i := range t.groups {
		g := &t.groups[i]
		if !codec.ValidGroupName(g.Name) || seen[g.Name] {
			return nil, fmt.Errorf("group %q: name is not plain, is reserved, or is used twice", g.Name)
		}
		if err := g.checkTTLs(); err != nil {
			return nil, fmt.Errorf("group %q: %w", g.Name, err)
		}
		seen[g.Name] = true
		*g = withTxns(*g)
		for _, p := range g.Inside {
			t.routes = append(t.routes, route{p.Masked(), g})
		}
	}
	slices.SortStableFunc(t.routes, func(a, b route) int { return b.prefix.Bits() - a.prefix.Bits() })
	return t, nil
}

func (g *Group) checkTTLs() error {
	if g.RecordTTL < 0 {
		return fmt.Errorf("negative RecordTTL %v", g.RecordTTL)
	}
	for client, ttl := range g.ClientTTL {
		if ttl < 0 {
			return fmt.Errorf("negative RecordTTL %v of client %q", ttl, client)
		}
	}
	return nil
}

func withTxns(g Group) Group {
	g.txns = txn.NewGroup(g.Name, g.RecordTTL, g.ClientTTL)
	return g
}

// of returns the group of an address, nil for none.
func (t *groupTable) of(a netip.Addr) *Group {
	for i := range t.routes {
		if t.routes[i].prefix.Contains(a) {
			return t.routes[i].group
		}
	}
	return nil
}

func (t *groupTable) named(name string) (*Group, bool) {
	for i := range t.groups {
		if t.groups[i].Name == name {
			return &t.groups[i], true
		}
	}
	return nil, false
}

// groupSet holds the groups in force.
type groupSet struct {
	table    atomic.Pointer[groupTable]
	changing sync.Mutex // one change at a time
}

func (s *groupSet) inForce() *groupTable { return s.table.Load() }

// GroupNames returns the names of the groups in force.
func (s *groupSet) GroupNames() []string {
	groups := s.inForce().groups
	names := make([]string, len(groups))
	for i := range groups {
		names[i] = groups[i].Name
	}
	return names
}

// SetGroups replaces the groups. It leaves the records of removed groups in Redis. It
// returns an error, and changes nothing, if a group is not valid.
func (s *groupSet) SetGroups(groups []Group) error {
	return s.ChangeGroups(func([]Group) []Group { return groups })
}

// ChangeGroups replaces the groups in force by the result of change. Like SetGroups it
// changes nothing if a group is not valid.
func (s *groupSet) ChangeGroups(change func(now []Group) []Group) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	t, err := newGroupTable(change(s.Groups()))
	if err != nil {
		return err
	}
	s.table.Store(t)
	return nil
}

// GroupOf returns the name of the group of an inside address.
func (s *groupSet) GroupOf(a netip.Addr) (string, bool) {
	g := s.inForce().of(a.Unmap())
	if g == nil {
		return "", false
	}
	return g.Name, true
}

// group finds a configured group by name.
func (s *groupSet) group(name string) (*Group, error) {
	g, ok := s.inForce().named(name)
	if !ok {
		return nil, fmt.Errorf("group %q: %w", name, ErrNoGroup)
	}
	return g, nil
}

// Groups returns the groups in force.
func (s *groupSet) Groups() []Group {
	if t := s.inForce(); t != nil {
		return slices.Clone(t.groups)
	}
	return nil
}

// Serve adds groups, or adds inside prefixes to existing groups.
func (s *groupSet) Serve(more []Group) error {
	return s.ChangeGroups(func(groups []Group) []Group {
		for _, g := range more {
			i := slices.IndexFunc(groups, func(have Group) bool { return have.Name == g.Name })
			if i < 0 {
				if len(groups) > 0 {
					g.ClientTTL = groups[0].ClientTTL // the same in all groups
				}
				groups = append(groups, g)
				continue
			}
			inside := append(slices.Clone(groups[i].Inside), g.Inside...)
			slices.SortFunc(inside, netip.Prefix.Compare)
			groups[i].Inside = slices.Compact(inside)
		}
		return groups
	})
}

// Unserve removes a drained group.
func (s *groupSet) Unserve(group string) error {
	return s.ChangeGroups(func(groups []Group) []Group {
		return slices.DeleteFunc(groups, func(g Group) bool { return g.Name == group })
	})
}

// RADIUS clients, which the configuration changes at run time too.

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
