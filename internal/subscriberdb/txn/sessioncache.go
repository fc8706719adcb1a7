package txn

import (
	"hash/maphash"
	"sync"
	"time"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// cacheKey identifies a session in a group.
type cacheKey struct {
	group string
	id    subscriber.SessionID
}

// cachedSession is an online session as of its last commit: the guess for its next event. A
// wrong guess only costs more round trips. It does not change once it is in the cache.
// There may be one for each subscriber, so it has no field that can be computed from
// others.
type cachedSession struct {
	record   subscriber.Packed // the session's record
	start    time.Time         // of the session, from its state
	stamp    int64             // see subscriber.SessionState; in seconds since 1970, 0 for none
	before   int64             // as stamp, but in nanoseconds
	digest   uint64            // see there too
	exact    bool              // see there too
	userName string            // from its state
}

// newCachedSession returns nil for a session that is not open at its record's address.
func newCachedSession(r *subscriber.Record, state *subscriber.SessionState) *cachedSession {
	if state.Phase != subscriber.Open || state.Inside != r.Inside {
		return nil
	}
	c := &cachedSession{record: r.Pack(), start: state.Start, digest: state.Digest, exact: state.Exact, userName: state.UserName}
	if packed := c.record.UserName(); packed == state.UserName {
		c.userName = packed // equal texts share memory
	}
	if !state.Stamp.IsZero() {
		c.stamp = state.Stamp.Unix()
	}
	if !state.Before.IsZero() {
		c.before = state.Before.UnixNano()
	}
	return c
}

// state returns the session's state in Redis; r is its record.
func (c *cachedSession) state(r *subscriber.Record) subscriber.SessionState {
	state := subscriber.SessionState{
		Phase: subscriber.Open, Inside: r.Inside, Start: c.start, Digest: c.digest, Exact: c.exact, UserName: c.userName,
	}
	if c.stamp != 0 {
		state.Stamp = time.Unix(c.stamp, 0).UTC()
	}
	if c.before != 0 {
		state.Before = time.Unix(0, c.before).UTC()
	}
	return state
}

// cache holds sessions as of their last commits, in two generations: when the young one is
// full it becomes the old one, and sessions in use move back. Sessions are found by their
// hash; of two with the same hash the later is kept.
type cache struct {
	mu         sync.Mutex
	seed       maphash.Seed
	size       int // of one generation
	young, old map[uint64]*cachedSession
	restarts   map[cacheKey]string // restart lines by NAS, without a session; maxRestarts at most
}

// maxRestarts bounds the cached restarts of all groups together.
const maxRestarts = 131_072

func newCache(size int) *cache {
	return &cache{
		seed: maphash.MakeSeed(), size: max(size/2, 1), young: make(map[uint64]*cachedSession),
		restarts: make(map[cacheKey]string),
	}
}

// get returns a session, nil for one that is not cached, and unpacks its record into the
// given one.
func (c *cache) get(id cacheKey, into *subscriber.Record) *cachedSession {
	hash := maphash.Comparable(c.seed, id)
	c.mu.Lock()
	t := c.young[hash]
	if t == nil {
		if t = c.old[hash]; t != nil {
			c.putLocked(hash, t)
		}
	}
	c.mu.Unlock()
	if t == nil {
		return nil
	}
	*into = t.record.Record()
	if into.SessionID != id.id || into.Group != id.group {
		return nil
	}
	return t
}

// put stores a session; nil removes it.
func (c *cache) put(id cacheKey, t *cachedSession) {
	if t == nil {
		c.forget(id)
		return
	}
	hash := maphash.Comparable(c.seed, id)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.putLocked(hash, t)
}

func (c *cache) putLocked(hash uint64, t *cachedSession) {
	if len(c.young) >= c.size {
		c.young, c.old = make(map[uint64]*cachedSession, c.size), c.young
	}
	c.young[hash] = t
}

func (c *cache) forget(id cacheKey) {
	hash := maphash.Comparable(c.seed, id)
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.young, hash)
	delete(c.old, hash)
}

func nasKey(group string, id subscriber.SessionID) cacheKey {
	return cacheKey{group, id.NASOnly()}
}

// restart returns the cached restart line of a session's NAS.
func (c *cache) restart(group string, id subscriber.SessionID) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.restarts[nasKey(group, id)]
}

// setRestart caches the restart line of a session's NAS; the empty line is none.
func (c *cache) setRestart(group string, id subscriber.SessionID, line string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if line == "" {
		delete(c.restarts, nasKey(group, id))
		return
	}
	nas := nasKey(group, id)
	if _, known := c.restarts[nas]; known || len(c.restarts) < maxRestarts {
		c.restarts[nas] = line
	}
}
