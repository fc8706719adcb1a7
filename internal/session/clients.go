package session

import "sync"

// clientCounts counts the records in force by the RADIUS client that reports
// them. It has a lock of its own, because accounting workers read it.
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
