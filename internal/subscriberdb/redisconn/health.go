package redisconn

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Shortest times between redials while a server fails. A server that answers why it takes
// no writes probably stays the right one, but its address may be moved too, so connections
// to it are redialled less often.
const (
	redialPause = time.Second
	waitPause   = 5 * time.Second
)

// health is the state of the servers, from probes and commits.
type health struct {
	trouble chan struct{} // capacity one

	mu      sync.Mutex
	failing bool
	gaveUp  time.Time     // time of the last redial
	back    chan struct{} // closed when failed servers are usable again
}

func newHealth() *health {
	return &health{trouble: make(chan struct{}, 1), back: make(chan struct{})}
}

// Probed notes the result of a probe. When servers become usable again, it has connections
// redialled, because those made meanwhile may lead to the previous servers.
func (c *Client) Probed(err error) {
	if err != nil {
		c.failed(err)
		return
	}
	h := c.health
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.failing {
		return
	}
	h.failing = false
	c.redials.abandonConns()
	close(h.back)
	h.back = make(chan struct{})
}

// WriteFailed notes that a write failed, and requests a probe.
func (c *Client) WriteFailed(err error) {
	if errors.Is(err, context.Canceled) {
		return // it says nothing of the server
	}
	if isAstray(err) {
		c.failed(err)
	}
	select {
	case c.health.trouble <- struct{}{}:
	default:
	}
}

// Trouble receives after a write failed, so that a probe is due.
func (c *Client) Trouble() <-chan struct{} { return c.health.trouble }

// failed has connections redialled, unless that was done just now: a server that fails for
// long is not redialled all the time.
func (c *Client) failed(err error) {
	h := c.health
	h.mu.Lock()
	defer h.mu.Unlock()
	h.failing = true
	pause := waitPause
	if isAstray(err) {
		pause = redialPause
	}
	if now := time.Now(); now.Sub(h.gaveUp) >= pause {
		h.gaveUp = now
		c.redials.abandonConns()
	}
}

// Failing reports whether the servers are known to be unusable.
func (c *Client) Failing() bool {
	c.health.mu.Lock()
	defer c.health.mu.Unlock()
	return c.health.failing
}

// Usable returns a channel that is closed when failed servers are usable again.
func (c *Client) Usable() <-chan struct{} {
	c.health.mu.Lock()
	defer c.health.mu.Unlock()
	return c.health.back
}
