package session

import "sync"

// clientCounts counts the records that stand by the client that reports them. It has a lock
// of its own, since accounting asks.
type clientCounts struct {
	mu     sync.RWMutex
	counts map[string]int
}

func (c *clientCounts) add(client string, change int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.counts[client] += change; c.counts[client] == 0 {
		delete(c.counts, client)
	}
}

func (c *clientCounts) of(client string) int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.counts[client]
}
