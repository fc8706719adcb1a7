package conntrack

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/sessiond/sessiond/internal/addrrange"
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
			case to <- addrrange.Address(addr):
			}
		}
	}
}

// Addresses with too many entries.

// crowds are the addresses with more entries of one kind than the bound. An address leaves
// the set once it is an eighth below the bound, so that it does not flap with each entry.
type crowds struct {
	bound uint32 // 0: no bound
	full  map[uint32]struct{}
	wake  chan struct{} // holds a token when the set has changed
}

func newCrowds(bound int, wake chan struct{}) crowds {
	return crowds{bound: uint32(bound), full: make(map[uint32]struct{}), wake: wake}
}

// grew takes the new count of an address after an entry was added.
func (c *crowds) grew(addr, count uint32) {
	if c.bound == 0 || count <= c.bound {
		return
	}
	if _, ok := c.full[addr]; !ok {
		c.full[addr] = struct{}{}
		c.poke()
	}
}

// shrank takes the new count of an address after an entry was removed.
func (c *crowds) shrank(addr, count uint32) {
	if len(c.full) == 0 || count > c.bound-c.bound/8 {
		return
	}
	if _, ok := c.full[addr]; ok {
		delete(c.full, addr)
		c.poke()
	}
}

func (c *crowds) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Crowds signals that an address came above Options.Bound, or is far enough below it again.
// One signal may stand for many changes: read Crowded. It needs Run.
func (t *Table) Crowds() <-chan struct{} { return t.index.opened.wake }

// Crowded lists, in order, the addresses above Options.Bound: by entries that the address
// began, and by entries that others began to it through destination translations. An
// address stays listed until it is an eighth below the bound. The kinds are counted apart,
// so that packets from outside cannot keep a subscriber from beginning entries. For those of
// others the bound is smaller after SetScarce(true).
func (t *Table) Crowded() (began, reached []netip.Addr) {
	t.index.mu.Lock()
	defer t.index.mu.Unlock()
	return t.index.opened.list(), t.index.reached.list()
}

func (c *crowds) list() []netip.Addr {
	list := make([]netip.Addr, 0, len(c.full))
	for _, a := range slices.Sorted(maps.Keys(c.full)) {
		list = append(list, addrrange.Address(a))
	}
	return list
}

// Flows that others translated.

// A Stray is a flow that an inside address began and that left with a source that is
// neither its own nor in Options.Outside: a rule of another table translated it.
type Stray struct {
	Inside, Outside netip.Addr // its source before and after
	At              time.Time  // when its event was read
}

// strays counts stray flows and keeps the newest.
type strays struct {
	outside addrrange.Set
	count   uint64
	newest  Stray
	wake    chan struct{} // holds a token after a stray
}

// lookLocked checks an entry that began.
func (x *index) lookLocked(f *flow) {
	s := &x.strays
	if len(s.outside) == 0 || f.reply.dst == f.orig.src || s.outside.Contains(f.reply.dst) ||
		!x.inside.Contains(f.orig.src) || x.inside.Contains(f.reply.src) {
		return
	}
	s.count++
	s.newest = Stray{addrrange.Address(f.orig.src), addrrange.Address(f.reply.dst), time.Now()}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Strays signals that flows have left with a foreign source since the last signal. It needs
// Run.
func (t *Table) Strays() <-chan struct{} { return t.index.strays.wake }

// Strayed returns the newest stray flow and the number of them since Open.
func (t *Table) Strayed() (newest Stray, count uint64) {
	t.index.mu.Lock()
	defer t.index.mu.Unlock()
	return t.index.strays.newest, t.index.strays.count
}

// SetOutside replaces Options.Outside for flows that begin from now on. A prefix that is
// not IPv4 is an error and changes nothing.
func (t *Table) SetOutside(prefixes []netip.Prefix) error {
	outside, err := rangesOf(prefixes)
	if err != nil {
		return err
	}
	t.index.mu.Lock()
	defer t.index.mu.Unlock()
	t.index.strays.outside = outside
	return nil
}
