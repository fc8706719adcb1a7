package txn

import (
	"context"
	"sync"
	"time"
)

// How much goes to Redis at once.
const (
	MaxTrips  = 2    // trips under way; while one is answered the other is on its way
	tripLimit = 4096 // transactions of one trip, if it carries those of several callers
	// tripTime bounds a trip that carries several callers' transactions and so heeds
	// none of their contexts.
	tripTime = 5 * time.Second
)

// committer carries the transactions of all callers to Redis: group commit. While trips
// are under way what comes in waits, and then goes in one trip. It has no
// goroutine of its own; one of the callers commits for the others.
type committer struct {
	trip func(ctx context.Context, txns []*Txn)

	mu      sync.Mutex
	flying  int
	waiting []*submission
}

// submission is the transactions of one caller.
type submission struct {
	txns []*Txn
	wake chan []*submission // what to commit, this one first; nil when this one was
}

// submit returns when the transactions have been to Redis and hold its answers.
func (c *committer) submit(ctx context.Context, txns []*Txn) {
	if !c.begin() {
		p := &submission{txns: txns, wake: make(chan []*submission, 1)}
		if c.enqueue(p) {
			load := <-p.wake
			if load == nil {
				return
			}
			c.commitAll(ctx, load)
			return
		}
	}
	c.trip(ctx, txns)
	c.end()
}

// begin reports whether another trip may begin at once.
func (c *committer) begin() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.flying == MaxTrips {
		return false
	}
	c.flying++
	return true
}

// enqueue has the submission wait for the end of a trip. It reports false if all
// trips have ended meanwhile, and a new one has begun for the caller.
func (c *committer) enqueue(p *submission) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.flying < MaxTrips {
		c.flying++
		return false
	}
	c.waiting = append(c.waiting, p)
	return true
}

// commitAll makes a trip for several callers.
func (c *committer) commitAll(ctx context.Context, load []*submission) {
	if len(load) == 1 {
		c.trip(ctx, load[0].txns)
		c.end()
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tripTime)
	defer cancel()
	var all []*Txn
	for _, p := range load {
		all = append(all, p.txns...)
	}
	c.trip(ctx, all)
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
	for n < len(c.waiting) && (n == 0 || size+len(c.waiting[n].txns) <= tripLimit) {
		size += len(c.waiting[n].txns)
		n++
	}
	load := c.waiting[:n:n]
	c.waiting = c.waiting[n:]
	load[0].wake <- load
}
