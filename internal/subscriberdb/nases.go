package subscriberdb

import (
	"strings"
	"sync"
	"time"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// NAS is what is known of one NAS, from the accounting that it sends.
type NAS struct {
	Client    string            // its realm, or the name of its RADIUS client
	Name      string            // as in the NAS of a subscriber.SessionID
	LastHeard time.Time         // arrival of its last accounting
	Offset    time.Duration     // how far its clock is ahead of ours, to the second or so
	Known     bool              // Offset is known
	Restarted time.Time         // event time of its last Accounting-On or -Off; zero for none
	SameAs    string            // reference of the NAS that this one was found to be; "" for none
	Refused   map[string]uint64 // events that changed nothing, by verdict, since it was first heard of
}

// nasKey names a NAS; its sessions have it in their SessionID.
type nasKey struct{ client, nas string }

func nasKeyOf(id subscriber.SessionID) nasKey { return nasKey{id.Client, id.NAS} }

func (k nasKey) id() subscriber.SessionID {
	return subscriber.SessionID{Client: k.client, NAS: k.nas}
}

// nasEntry is what this daemon knows of a NAS.
type nasEntry struct {
	clock     subscriber.Clock
	heard     time.Time
	restarted time.Time
	sameAs    nasKey // the zero key: it is itself
	refused   map[subscriber.Verdict]uint64
	changed   bool // since it was last written to Redis
}

// nasRegistry is what is known of all NASes.
type nasRegistry struct {
	mu    sync.Mutex
	byKey map[nasKey]*nasEntry
}

// entryLocked returns the entry of a NAS, nil where there are too many.
func (r *nasRegistry) entryLocked(key nasKey) *nasEntry {
	if e := r.byKey[key]; e != nil {
		return e
	}
	if len(r.byKey) >= maxReporters {
		return nil
	}
	if r.byKey == nil {
		r.byKey = make(map[nasKey]*nasEntry)
	}
	e := new(nasEntry)
	r.byKey[nasKey{strings.Clone(key.client), strings.Clone(key.nas)}] = e
	return e
}

// place gives the event the name of its NAS by which its sessions are known, and
// the time at which it happened.
func (r *nasRegistry) place(ev *subscriber.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.entryLocked(nasKeyOf(ev.SessionID))
	if e == nil {
		new(subscriber.Clock).Place(ev)
		return
	}
	e.clock.Place(ev)
	if ev.Arrival.After(e.heard) {
		e.heard, e.changed = ev.Arrival, true
	}
	if e.sameAs != (nasKey{}) {
		ev.Client, ev.NAS = e.sameAs.client, e.sameAs.nas
	}
}

// unite notes that one NAS is heard of under two names, through two clients, and
// reports whether that is news.
func (r *nasRegistry) unite(name, known nasKey) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.entryLocked(name)
	if e == nil || name == known || e.sameAs == known {
		return false
	}
	if k := r.byKey[known]; k != nil && k.sameAs != (nasKey{}) {
		return false // sessions are known by both names already
	}
	e.sameAs, e.changed = known, true
	return true
}

// original is the name by which the sessions of a NAS are known.
func (r *nasRegistry) original(key nasKey) nasKey {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.byKey[key]; e != nil && e.sameAs != (nasKey{}) {
		return e.sameAs
	}
	return key
}

// refuse counts an event that changed nothing.
func (r *nasRegistry) refuse(id subscriber.SessionID, v subscriber.Verdict) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.entryLocked(nasKeyOf(id))
	if e == nil {
		return
	}
	if e.refused == nil {
		e.refused = make(map[subscriber.Verdict]uint64)
	}
	e.refused[v]++
	e.changed = true
}

// restart notes a restart that was recorded.
func (r *nasRegistry) restart(id subscriber.SessionID, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.entryLocked(nasKeyOf(id)); e != nil && at.After(e.restarted) {
		e.restarted, e.changed = at, true
	}
}
