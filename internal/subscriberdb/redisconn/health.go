package redisconn

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Connections are given up so often while a server fails. One that says why it
// takes no writes for a while is waited for, but its address may be moved, too.
const (
	redialPause = time.Second
	waitPause   = 5 * time.Second
)

// health is the state of the servers, as probes and commits have found it.
type health struct {
	trouble chan struct{} // holds one

	mu      sync.Mutex
	failing bool
	gaveUp  time.Time     // when connections were last given up
	back    chan struct{} // closed when servers that failed can be used again
}

func newHealth() *health {
	return &health{trouble: make(chan struct{}, 1), back: make(chan struct{})}
}

// Probed notes the result of a probe. Once servers can be used again, connections that
// were made meanwhile may still lead to those before.
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
	c.redials.giveUp()
	close(h.back)
	h.back = make(chan struct{})
}

// WriteFailed notes that a write failed, and has a probe made.
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

// Trouble tells that a write failed since the last look, so that a probe is due.
func (c *Client) Trouble() <-chan struct{} { return c.health.trouble }

// failed gives connections up, if that was not done just now. One that fails for long
// is not dialled all the time.
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
		c.redials.giveUp()
	}
}

// Failing reports whether it is known that servers cannot be used.
func (c *Client) Failing() bool {
	c.health.mu.Lock()
	defer c.health.mu.Unlock()
	return c.health.failing
}

// Usable returns a channel that is closed when servers that failed can be used again.
func (c *Client) Usable() <-chan struct{} {
	c.health.mu.Lock()
	defer c.health.mu.Unlock()
	return c.health.back
}
