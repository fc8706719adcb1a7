package subscriberdb

import (
	"sync"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// remembered is the state that a commit left behind: a guess for the next event
// of that session. A wrong guess costs one more round trip, nothing else.
type remembered struct {
	session string             // state line
	record  *subscriber.Record // the session's record
}

// cache keeps what the last commits wrote. It holds two generations: when the
// young one is full it becomes the old one, and what is used moves back.
type cache struct {
	mu         sync.Mutex
	size       int // of one generation
	young, old map[string]remembered
	restarts   map[string]string // restart lines by their key; as many as NASes
}

func newCache(size int) *cache {
	return &cache{size: max(size/2, 1), young: make(map[string]remembered), restarts: make(map[string]string)}
}

func (c *cache) get(key string) (remembered, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r, ok := c.young[key]; ok {
		return r, true
	}
	r, ok := c.old[key]
	if ok {
		c.putLocked(key, r)
	}
	return r, ok
}

func (c *cache) put(key string, r remembered) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.putLocked(key, r)
}

func (c *cache) putLocked(key string, r remembered) {
	if len(c.young) >= c.size {
		c.young, c.old = make(map[string]remembered, c.size), c.young
	}
	c.young[key] = r
}

func (c *cache) forget(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.young, key)
	delete(c.old, key)
}

func (c *cache) restart(key string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.restarts[key]
}

// setRestart keeps the restart line of a NAS; the empty line is none.
func (c *cache) setRestart(key, line string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if line == "" {
		delete(c.restarts, key)
		return
	}
	c.restarts[key] = line
}
