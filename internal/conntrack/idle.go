package conntrack

import (
	"context"
	"net/netip"
)

// idleQueue holds the addresses whose count fell to zero until somebody takes
// them. An address stands in it once, so it stays bounded without a reader.
type idleQueue struct {
	waiting map[uint32]struct{}
	order   []uint32
	held    bool          // counts are not to be trusted now
	losses  uint64        // times holdIdle was called
	wake    chan struct{} // holds one token when there may be work
}

func newIdleQueue() idleQueue {
	return idleQueue{waiting: make(map[uint32]struct{}), held: true, wake: make(chan struct{}, 1)}
}

func (q *idleQueue) push(addr uint32) {
	if _, ok := q.waiting[addr]; ok {
		return
	}
	q.waiting[addr] = struct{}{}
	q.order = append(q.order, addr)
	if !q.held {
		q.poke()
	}
}

func (q *idleQueue) poke() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// holdIdle keeps notifications back while events may be missing.
func (x *index) holdIdle() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.idle.held = true
	x.idle.losses++
}

// releaseIdleLocked lets them go, unless events were lost once more after the
// losses given.
func (x *index) releaseIdleLocked(losses uint64) {
	if x.idle.losses == losses {
		x.idle.held = false
		x.idle.poke()
	}
}

// popIdle takes the next address that has no entries.
func (x *index) popIdle() (uint32, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	q := &x.idle
	for !q.held && len(q.order) > 0 {
		addr := q.order[0]
		q.order = q.order[1:]
		delete(q.waiting, addr)
		if x.countLocked(addr) == 0 {
			return addr, true
		}
	}
	return 0, false
}

// serveIdle hands idle addresses to whoever reads to.
func (x *index) serveIdle(ctx context.Context, to chan<- netip.Addr) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-x.idle.wake:
		}
		for addr, ok := x.popIdle(); ok; addr, ok = x.popIdle() {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case to <- toAddr(addr):
			}
		}
	}
}
