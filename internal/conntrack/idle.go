package conntrack

import (
	"context"
	"net/netip"
)

// idleQueue holds the addresses whose count fell to zero until a reader takes them. Each
// address is in it once, so it stays bounded without a reader.
type idleQueue struct {
	waiting map[uint32]struct{}
	order   []uint32
	wake    chan struct{} // holds one token when there may be work
}

func newIdleQueue() idleQueue {
	return idleQueue{waiting: make(map[uint32]struct{}), wake: make(chan struct{}, 1)}
}

func (q *idleQueue) push(addr uint32) {
	if _, ok := q.waiting[addr]; ok {
		return
	}
	q.waiting[addr] = struct{}{}
	q.order = append(q.order, addr)
	q.poke()
}

func (q *idleQueue) poke() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// popIdle takes the next address that has no entries. It returns none while the index is
// incomplete.
func (x *index) popIdle() (uint32, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	q := &x.idle
	for x.complete && len(q.order) > 0 {
		addr := q.order[0]
		q.order = q.order[1:]
		delete(q.waiting, addr)
		if x.countLocked(addr) == 0 {
			return addr, true
		}
	}
	return 0, false
}

// serveIdle sends idle addresses to the channel.
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
