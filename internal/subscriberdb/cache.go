package subscriberdb

import (
	"sync"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// traceID names a session in a group.
type traceID struct {
	group string
	id    subscriber.SessionID
}

// trace is what a commit left behind of a session that is online: a guess for
// its next event. A wrong guess costs more round trips, nothing else. It is never
// changed once it is in the cache.
type trace struct {
	state  subscriber.SessionState
	line   string             // the state as it stands in Redis
	record *subscriber.Record // the session's record

	sessionKey, restartKey, recordKey string
}

// cache keeps what the last commits wrote. It holds two generations: when the
// young one is full it becomes the old one, and what is used moves back.
type cache struct {
	mu         sync.Mutex
	size       int // of one generation
	young, old map[traceID]*trace
	restarts   map[traceID]string // restart lines by NAS, without a session; as many as NASes
	reporters  map[string]reporter
}

// reporter is who reports the sessions of a NAS.
type reporter struct {
	client  string
	several bool // others do too
}

// maxReporters bounds the NASes whose reporter is known.
const maxReporters = 65_536

func newCache(size int) *cache {
	return &cache{
		size: max(size/2, 1), young: make(map[traceID]*trace),
		restarts: make(map[traceID]string), reporters: make(map[string]reporter),
	}
}

// get returns nil for a session that is not known.
func (c *cache) get(id traceID) *trace {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t, ok := c.young[id]; ok {
		return t
	}
	t, ok := c.old[id]
	if ok {
		c.putLocked(id, t)
	}
	return t
}

func (c *cache) put(id traceID, t *trace) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.putLocked(id, t)
}

func (c *cache) putLocked(id traceID, t *trace) {
	if len(c.young) >= c.size {
		c.young, c.old = make(map[traceID]*trace, c.size), c.young
	}
	c.young[id] = t
}

func (c *cache) forget(id traceID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.young, id)
	delete(c.old, id)
}

func nasTrace(group string, id subscriber.SessionID) traceID { return traceID{group, id.NASOnly()} }

// reported notes that a client reports sessions of a NAS.
func (c *cache) reported(id subscriber.SessionID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch r, known := c.reporters[id.NAS]; {
	case known && r.client != id.Client:
		c.reporters[id.NAS] = reporter{r.client, true}
	case !known && len(c.reporters) < maxReporters:
		c.reporters[id.NAS] = reporter{client: id.Client}
	}
}

// foreign returns the client that alone reports sessions of a NAS, if that is
// another than the given one.
func (c *cache) foreign(id subscriber.SessionID) (client string, foreign bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, known := c.reporters[id.NAS]
	return r.client, known && !r.several && r.client != id.Client
}

// restart returns the restart line of a session's NAS, as far as is known.
func (c *cache) restart(group string, id subscriber.SessionID) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.restarts[nasTrace(group, id)]
}

// setRestart keeps the restart line of a session's NAS; the empty line is none.
func (c *cache) setRestart(group string, id subscriber.SessionID, line string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if line == "" {
		delete(c.restarts, nasTrace(group, id))
		return
	}
	c.restarts[nasTrace(group, id)] = line
}
