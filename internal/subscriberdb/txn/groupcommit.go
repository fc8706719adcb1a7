package txn

import (
	"context"
	"sync"
	"time"
)

// Bounds on the work for Redis at once.
const (
	MaxTrips  = 2    // trips at once; while the answers to one are processed Redis executes the other
	tripLimit = 4096 // most transactions of a trip for several callers
	// tripTime bounds a trip for several callers, which is not ended by any caller's
	// context.
	tripTime = 5 * time.Second
)

// committer sends the transactions of all callers to Redis: group commit. While trips are
// under way, new transactions wait, and then share one trip. It has no goroutine of its
// own; one of the callers commits for the others.
type committer struct {
	trip func(ctx context.Context, txns []*Txn)

	mu      sync.Mutex
	running int
	waiting []*submission
}

// submission is the transactions of one caller.
type submission struct {
	txns []*Txn
	wake chan []*submission // gets the submissions to commit, this one first; nil once another caller committed this one
}

// submit sends the transactions to Redis, and returns when they have its answers.
func (c *committer) submit(ctx context.Context, txns []*Txn) {
	if !c.begin() {
		p := &submission{txns: txns, wake: make(chan []*submission, 1)}
		if c.enqueue(p) {
			group := <-p.wake
			if group == nil {
				return
			}
			c.commitAll(ctx, group)
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
	if c.running == MaxTrips {
		return false
	}
	c.running++
	return true
}

// enqueue adds the submission to those that wait for the end of a trip. It reports false if
// fewer trips than allowed are under way by now, and has begun a new one for the caller.
func (c *committer) enqueue(p *submission) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running < MaxTrips {
		c.running++
		return false
	}
	c.waiting = append(c.waiting, p)
	return true
}

// commitAll runs one trip for several callers.
func (c *committer) commitAll(ctx context.Context, group []*submission) {
	if len(group) == 1 {
		c.trip(ctx, group[0].txns)
		c.end()
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tripTime)
	defer cancel()
	var all []*Txn
	for _, p := range group {
		all = append(all, p.txns...)
	}
	c.trip(ctx, all)
	c.end()
	for _, p := range group[1:] {
		p.wake <- nil
	}
}

// end ends a trip: the first waiting submission commits for the others.
func (c *committer) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.waiting) == 0 {
		c.running--
		return
	}
	n, size := 0, 0
	for n < len(c.waiting) && (n == 0 || size+len(c.waiting[n].txns) <= tripLimit) {
		size += len(c.waiting[n].txns)
		n++
	}
	group := c.waiting[:n:n]
	c.waiting = c.waiting[n:]
	group[0].wake <- group
}
