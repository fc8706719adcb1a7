package nases

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sessiond/sessiond/internal/quota"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
)

// NAS describes one NAS from its accounting.
type NAS struct {
	codec.NASName
	codec.NASLine
	Refused map[string]uint64 // events that changed nothing since its first event, by verdict
}

// nasEntry is this daemon's data about a NAS.
type nasEntry struct {
	key       codec.NASName
	clock     subscriber.Clock
	unheeded  time.Duration // see codec.NASLine
	heard     time.Time
	restarted time.Time
	sameAs    codec.NASName   // the NAS that this is another name of; zero for none
	others    []codec.NASName // NASes whose sameAs is, or was, this one
	refused   map[subscriber.Verdict]uint64
	stored    string // its line in Redis when last read or written; "" for none
	changed   bool   // it is in Registry.changed
}

// Registry holds the data about all NASes: their names, their clocks, and the outcome of
// their events. Its methods may be called concurrently.
type Registry struct {
	mu      sync.Mutex
	byKey   map[codec.NASName]*nasEntry
	shares  quota.Shares // of the clients
	changed []*nasEntry  // entries to be written to Redis

	toldApart func(a, b string) bool

	turn   chan struct{} // a semaphore for writing to Redis, and for reading into the registry
	loaded bool          // the lines in Redis have been read since the start; guarded by turn
}

// NewRegistry returns an empty Registry. toldApart reports whether, by the configuration,
// two clients do not report the same NASes, also if earlier findings say otherwise; nil
// means never.
func NewRegistry(toldApart func(a, b string) bool) *Registry {
	return &Registry{
		byKey: make(map[codec.NASName]*nasEntry), shares: quota.Shares{Alone: maxOfClient}, toldApart: toldApart,
		turn: make(chan struct{}, 1),
	}
}

// Place sets the event's NAS to the name that its sessions are stored under, and the
// event's time. It reports whether the registry has room for the NAS.
func (r *Registry) Place(ev *subscriber.Event) (known bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.entryLocked(codec.NASOf(ev.SessionID))
	if e == nil {
		new(subscriber.Clock).Place(ev)
		return false
	}
	e.clock.Place(ev)
	if !ev.Stamp.IsZero() && ev.Delay <= 0 {
		e.unheeded = ev.Astray()
	}
	r.hearLocked(e, ev.Arrival)
	if !r.heedsLocked(e) {
		return true
	}
	root := r.rootLocked(e.key)
	ev.Client, ev.NAS = root.Client, root.Name
	if known := r.entryLocked(root); known != nil {
		r.hearLocked(known, ev.Arrival)
	}
	return true
}

// entryLocked returns the entry of a NAS, nil if it has none and its client has used up its
// share.
func (r *Registry) entryLocked(key codec.NASName) *nasEntry {
	if e := r.byKey[key]; e != nil {
		return e
	}
	if !r.shares.Room(key.Client) {
		return nil
	}
	e := &nasEntry{key: codec.NASName{Client: strings.Clone(key.Client), Name: strings.Clone(key.Name)}}
	r.byKey[e.key] = e
	r.shares.Add(e.key.Client, 1)
	return e
}

// hearLocked notes an event of a NAS.
func (r *Registry) hearLocked(e *nasEntry, at time.Time) {
	if at.After(e.heard) {
		e.heard = at
		r.changeLocked(e)
	}
}

// changeLocked marks the entry to be written.
func (r *Registry) changeLocked(e *nasEntry) {
	if !e.changed {
		e.changed = true
		r.changed = append(r.changed, e)
	}
}

// heedsLocked reports whether the entry counts as another name of a NAS: it was found to be
// one, and the configuration does not set the two clients apart.
func (r *Registry) heedsLocked(e *nasEntry) bool {
	return e.sameAs != (codec.NASName{}) && (r.toldApart == nil || !r.toldApart(e.key.Client, e.sameAs.Client))
}

// rootLocked follows the names of a NAS to the one that its sessions are stored under.
// uniteLocked makes no cycles.
func (r *Registry) rootLocked(key codec.NASName) codec.NASName {
	for e := r.byKey[key]; e != nil && r.heedsLocked(e); e = r.byKey[key] {
		key = e.sameAs
	}
	return key
}

// Unite notes that one NAS is reported under two names, through two clients, and reports
// whether that is new.
func (r *Registry) Unite(name, known codec.NASName) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.entryLocked(name)
	if e == nil || !r.uniteLocked(e, known) {
		return false
	}
	r.changeLocked(e)
	return true
}

// uniteLocked makes the entry another name of a NAS, and reports whether that changed it.
// Two names never refer to each other.
func (r *Registry) uniteLocked(e *nasEntry, known codec.NASName) bool {
	root := r.rootLocked(known)
	if root == e.key || root == r.rootLocked(e.key) {
		return false
	}
	e.sameAs = codec.NASName{Client: strings.Clone(root.Client), Name: strings.Clone(root.Name)}
	if known := r.entryLocked(root); known != nil {
		known.others = append(known.others, e.key)
	}
	return true
}

// Names returns the name of a NAS and its other names.
func (r *Registry) Names(key codec.NASName) []codec.NASName {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.appendNamesLocked(nil, key)
}

func (r *Registry) appendNamesLocked(names []codec.NASName, key codec.NASName) []codec.NASName {
	names = append(names, key)
	e := r.byKey[key]
	if e == nil {
		return names
	}
	for _, other := range e.others {
		if o := r.byKey[other]; o != nil && o.sameAs == key && r.heedsLocked(o) {
			names = r.appendNamesLocked(names, other)
		}
	}
	return names
}

// Original returns the name that the sessions of a NAS are stored under.
func (r *Registry) Original(key codec.NASName) codec.NASName {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.rootLocked(key)
}

// Knows reports whether there is an entry of a NAS.
func (r *Registry) Knows(key codec.NASName) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.byKey[key] != nil
}

// Refuse counts an event that changed nothing.
func (r *Registry) Refuse(id subscriber.SessionID, v subscriber.Verdict) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.entryLocked(codec.NASOf(id)); e != nil {
		e.countLocked(v, 1)
		r.changeLocked(e)
	}
}

func (e *nasEntry) countLocked(v subscriber.Verdict, n uint64) {
	if e.refused == nil {
		e.refused = make(map[subscriber.Verdict]uint64)
	}
	e.refused[v] += n
}

// Restart notes a stored restart.
func (r *Registry) Restart(id subscriber.SessionID, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.entryLocked(codec.NASOf(id)); e != nil && at.After(e.restarted) {
		e.restarted = at
		r.changeLocked(e)
	}
}

// adopt merges the line of a NAS in Redis, from an earlier run or another daemon, into its
// entry.
func (r *Registry) adopt(key codec.NASName, line string, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.entryLocked(key); e != nil {
		r.adoptLocked(e, line, now)
	}
}

func (r *Registry) adoptLocked(e *nasEntry, line string, now time.Time) {
	n := codec.ParseNASLine(line)
	e.stored = line
	if _, known := e.clock.Offset(); !known && n.Known && !e.restarted.After(n.LastHeard) { // the NAS may set its clock at a restart
		e.clock = subscriber.NewClock(n.Offset, now)
	}
	if n.LastHeard.After(e.heard) {
		e.heard = n.LastHeard
	}
	if n.Restarted.After(e.restarted) {
		e.restarted = n.Restarted
	}
	if n.SameAs != (codec.NASName{}) && e.sameAs == (codec.NASName{}) {
		r.uniteLocked(e, n.SameAs)
	}
}

// forget drops NASes that were silent for longer than Life.
func (r *Registry) forget(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for key, e := range r.byKey {
		if !e.changed && now.Sub(e.heard) > Life {
			delete(r.byKey, key)
			r.shares.Add(key.Client, -1)
		}
	}
}

// Data to be written to Redis.

// nasNews is the part of one NAS's data that has to be written.
type nasNews struct {
	entry   *nasEntry
	was     string // the expected line in Redis
	line    string
	refused map[subscriber.Verdict]uint64
}

func (n *nasNews) ref() string { return codec.NASRef(n.entry.key.Session()) }

// pending returns the number of NASes to write.
func (r *Registry) pending() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.changed)
}

// news returns the unwritten data of at most limit NASes, and takes them off the list.
func (r *Registry) news(limit int) []nasNews {
	r.mu.Lock()
	defer r.mu.Unlock()
	limit = min(limit, len(r.changed))
	list := make([]nasNews, limit)
	for i, e := range r.changed[:limit] {
		list[i] = nasNews{entry: e, was: e.stored, line: e.textLocked(), refused: e.refused}
		e.changed, e.refused = false, nil
	}
	if r.changed = r.changed[limit:]; len(r.changed) == 0 {
		r.changed = nil
	}
	return list
}

// textLocked returns the line of the entry for Redis.
func (e *nasEntry) textLocked() string {
	n := codec.NASLine{LastHeard: e.heard, Restarted: e.restarted, SameAs: e.sameAs, Unheeded: e.unheeded}
	n.Offset, n.Known = e.clock.Offset()
	return n.Format()
}

// said notes that a line is in Redis.
func (r *Registry) said(n *nasNews) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n.entry.stored = n.line
}

// merged merges the line found in Redis instead of the expected one, and sets the line to
// write from both.
func (r *Registry) merged(n *nasNews, stands string, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.adoptLocked(n.entry, stands, now)
	n.was, n.line = stands, n.entry.textLocked()
}

// unsaid returns data to the list that could not be written.
func (r *Registry) unsaid(list []nasNews) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range list {
		r.changeLocked(list[i].entry)
		r.putBackLocked(&list[i])
	}
}

// uncounted returns counts to their NAS, to be written with its next change.
func (r *Registry) uncounted(n *nasNews) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.putBackLocked(n)
}

func (r *Registry) putBackLocked(n *nasNews) {
	for v, count := range n.refused {
		n.entry.countLocked(v, count)
	}
	n.refused = nil
}

// Names that several NASes use.

const (
	// conflictTime is the time for which a NAS name counts as used by several NASes after
	// an address was seen again: longer than a NAS with few subscribers may be silent.
	conflictTime = 24 * time.Hour
	// freshDelay is the largest delay of an event whose NAS-IP-Address is used. An event
	// from a relay's spool may have an earlier address.
	freshDelay = time.Minute
	// maxNASAddresses bounds the addresses kept of a NAS name.
	maxNASAddresses = 8
)

// Addresses detects names that several NASes use, mostly a factory default, by addresses
// that alternate. A NAS whose address was changed does not use the old one again.
type Addresses struct {
	mu     sync.Mutex
	names  map[codec.NASName]*nasName
	shares quota.Shares // of the clients; Alone is set with the first name
}

// nasName is one name and its addresses.
type nasName struct {
	seen     []netip.Addr // distinct addresses, the latest last
	conflict time.Time    // when an earlier address was last seen again; zero for never
}

// Note takes the address of an event's NAS. It reports whether several NASes use the name,
// and whether this event is a new sign of it.
func (n *Addresses) Note(ev *subscriber.Event, clock func() time.Time) (conflict, sign bool) {
	if !ev.NASAddress.IsValid() {
		return false, false // a name without addresses cannot alternate
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	key := codec.NASOf(ev.SessionID)
	name := n.names[key]
	if name == nil {
		if n.names == nil {
			n.names, n.shares.Alone = make(map[codec.NASName]*nasName), maxOfClient
		}
		if !n.shares.Room(key.Client) {
			return false, false
		}
		n.names[codec.NASName{Client: strings.Clone(key.Client), Name: strings.Clone(key.Name)}] = &nasName{seen: []netip.Addr{ev.NASAddress}}
		n.shares.Add(key.Client, 1)
		return false, false
	}
	if name.conflict.IsZero() && name.seen[len(name.seen)-1] == ev.NASAddress {
		return false, false // the usual case, which needs no clock
	}
	now := clock()
	if ev.Delay <= freshDelay && name.heard(ev.NASAddress) {
		name.conflict, sign = now, true
	}
	return !name.conflict.IsZero() && now.Sub(name.conflict) < conflictTime, sign
}

// heard takes the latest address, and reports whether it is an earlier one again.
func (n *nasName) heard(addr netip.Addr) (back bool) {
	last := len(n.seen) - 1
	if n.seen[last] == addr {
		return false
	}
	i := slices.Index(n.seen, addr)
	if i >= 0 {
		n.seen = slices.Delete(n.seen, i, i+1)
	} else if len(n.seen) == maxNASAddresses {
		n.seen = slices.Delete(n.seen, 0, 1)
	}
	n.seen = append(n.seen, addr)
	return i >= 0
}

// The clients that report a NAS.

// Reporters holds, for each NAS, the client that reports its sessions. The zero value is
// empty; its methods may be called concurrently.
type Reporters struct {
	mu    sync.Mutex
	byNAS map[string]reporter
}

// reporter is a client that reports the sessions of a NAS.
type reporter struct {
	client  string
	several bool // other clients report it too
}

// maxOfClient bounds the NASes of a client that is alone; see quota.Shares.
const maxOfClient = 65_536

// Reported notes that a client reports sessions of a NAS.
func (n *Reporters) Reported(id subscriber.SessionID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch r, known := n.byNAS[id.NAS]; {
	case known && r.client != id.Client:
		n.byNAS[id.NAS] = reporter{r.client, true}
	case !known && len(n.byNAS) < maxOfClient:
		if n.byNAS == nil {
			n.byNAS = make(map[string]reporter)
		}
		n.byNAS[id.NAS] = reporter{client: id.Client}
	}
}

// Foreign returns the only client that reports sessions of a NAS, if that is not the given
// one.
func (n *Reporters) Foreign(id subscriber.SessionID) (client string, foreign bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	r, known := n.byNAS[id.NAS]
	return r.client, known && !r.several && r.client != id.Client
}
