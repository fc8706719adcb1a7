package subscriberdb

import (
	"context"
	"sync"
	"time"
)

// How much goes to Redis at once.
const (
	maxTrips  = 2    // trips under way; while one is answered the other is on its way
	tripLimit = 4096 // steps of one trip, if it carries those of several callers
	// tripTime bounds a trip that carries several callers' steps and so heeds
	// none of their contexts.
	tripTime = 5 * time.Second
)

// committer carries the steps of all callers to Redis: group commit. While trips
// are under way what comes in waits, and then goes in one trip. It has no
// goroutine of its own; one of the callers travels for the others.
type committer struct {
	trip func(ctx context.Context, steps []*step)

	mu      sync.Mutex
	flying  int
	waiting []*submission
}

// submission is the steps of one caller.
type submission struct {
	steps []*step
	wake  chan []*submission // what to carry, this one first; nil when this one was carried
}

// submit returns when the steps have been to Redis and hold its answers.
func (c *committer) submit(ctx context.Context, steps []*step) {
	if !c.begin() {
		p := &submission{steps: steps, wake: make(chan []*submission, 1)}
		if c.addToBatch(p) {
			load := <-p.wake
			if load == nil {
				return
			}
			c.carryAll(ctx, load)
			return
		}
	}
	c.trip(ctx, steps)
	c.end()
}

// begin reports whether another trip may begin at once.
func (c *committer) begin() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.flying == maxTrips {
		return false
	}
	c.flying++
	return true
}

// addToBatch has the submission wait for the end of a trip. It reports false if all
// trips have ended meanwhile, and a new one has begun for the caller.
func (c *committer) addToBatch(p *submission) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.flying < maxTrips {
		c.flying++
		return false
	}
	c.waiting = append(c.waiting, p)
	return true
}

// carryAll makes a trip for several callers.
func (c *committer) carryAll(ctx context.Context, load []*submission) {
	if len(load) == 1 {
		c.trip(ctx, load[0].steps)
		c.end()
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tripTime)
	defer cancel()
	var steps []*step
	for _, p := range load {
		steps = append(steps, p.steps...)
	}
	c.trip(ctx, steps)
	c.end()
	for _, p := range load[1:] {
		p.wake <- nil
	}
}

// end lets the first of those who wait carry for the others.
func (c *committer) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.waiting) == 0 {
		c.flying--
		return
	}
	n, size := 0, 0
	for n < len(c.waiting) && (n == 0 || size+len(c.waiting[n].steps) <= tripLimit) {
		size += len(c.waiting[n].steps)
		n++
	}
	load := c.waiting[:n:n]
	c.waiting = c.waiting[n:]
	load[0].wake <- load
}
