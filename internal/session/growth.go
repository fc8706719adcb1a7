package session

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/sessiond/sessiond/internal/lifecycle"
	"github.com/sessiond/sessiond/internal/lsn"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/nftnat"
	"github.com/sessiond/sessiond/internal/queue"
)

const (
	// lookEvery is the default interval between two looks at the ports of all subscribers
	// with several blocks, for blocks that may be given back.
	lookEvery = 10 * time.Second
	// refusedRest is the time in which a subscriber that gets no further block is not looked
	// at again: a flood of its sessions must not cost a read of them each time. refusedShare
	// bounds the time that all these looks take, and what follows from them: one part in so many.
	refusedRest  = 250 * time.Millisecond
	refusedShare = 20
	// narrowedMost bounds the subscribers with parts of a range for new sessions, for which there
	// are pins.
	narrowedMost = 1024
	// againAfter is the number of sessions after which a subscriber is looked at again whose
	// ports could not be counted.
	againAfter = 16
)

// growthKernel tells which subscribers use many ports.
type growthKernel interface {
	CountBegun(least int)                   // subscribers with so many sessions are listed; 0 for none
	Begun() <-chan struct{}                 // receives when ListBegun lists some
	ListBegun() []netip.Addr                // and forgets them
	LookAgain(inside netip.Addr, after int) // lists it after so many more sessions
	PortUse(inside netip.Addr) nat.PortUse  // inside ports in use
	SessionsOf(ctx context.Context, inside netip.Prefix, yield func(nftnat.Session) error) error
	Vacant(ctx context.Context, inside netip.Addr, b nat.Block) (bool, error) // certainly without a session, or a way to one
}

// growthWatch counts the ports in use of busy subscribers, for groups whose bindings may grow,
// or have more ports than nf_nat searches. Subscribers with few sessions cost nothing; one whose
// inside ports are few costs a look into the index; only of the others are the sessions read.
type growthWatch struct {
	*sharedState
	kernel   growthKernel
	every    time.Duration
	parts    *queue.Queue[*lifecycle.Part]
	pins     *portPins
	refused  *refusedLooks
	room     func(context.Context) error // makes room for pins in the kernel
	narrowed map[netip.Addr]struct{}     // with parts of a range for new sessions (lifecycle.Narrow)
	most     int                         // of narrowed
}

// run looks at the ports of subscribers that have begun many sessions, and now and then at
// those with several blocks.
func (w *growthWatch) run(ctx context.Context) error {
	select {
	case <-w.ready:
	case <-ctx.Done():
		return ctx.Err()
	}
	tick := time.NewTicker(w.every)
	defer tick.Stop()
	for {
		w.kernel.CountBegun(w.least())
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.kernel.Begun():
			w.lookAll(ctx, w.kernel.ListBegun())
		case <-w.refused.due():
			inside := w.refused.next()
			w.again(inside, w.read(ctx, inside))
		case <-tick.C:
			w.refused.forget()
			w.forgetWide()
			w.pins.thin(ctx)
			w.lookAll(ctx, slices.AppendSeq(w.several(), maps.Keys(w.narrowed)))
		}
	}
}

// least returns the number of sessions below which no subscriber can need a further block.
func (w *growthWatch) least() (least int) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	for _, g := range w.groups {
		if high := lifecycle.HighWater(g.Config.BlockSize); resizes(&g.Config, g.Config.BlockSize) && (least == 0 || high < least) {
			least = max(1, high)
		}
	}
	return least
}

// resizes reports whether the range of new sessions, now of so many ports, may become another one
// in a group: its bindings may have several blocks, or nf_nat does not search the range in full.
func resizes(c *lsn.GroupConfig, ports int) bool {
	return c.MaxBlocks > 1 || lifecycle.Narrowable(ports)
}

// several returns the subscribers with several blocks.
func (w *growthWatch) several() (list []netip.Addr) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	for name := range w.groups {
		list = append(list, w.life.Engine().Several(name)...)
	}
	return list
}

// forgetWide drops the subscribers that have no parts any more without a look at their ports: their
// gates were closed, or their ranges changed. They would keep their places from others.
func (w *growthWatch) forgetWide() {
	w.mu.RLock()
	defer w.mu.RUnlock()
	maps.DeleteFunc(w.narrowed, func(inside netip.Addr, _ struct{}) bool { return !w.life.Growths().Narrowed(inside) })
}

func (w *growthWatch) lookAll(ctx context.Context, list []netip.Addr) {
	for _, inside := range list {
		if ctx.Err() != nil {
			return
		}
		w.again(inside, w.look(ctx, inside))
	}
}

// again has a subscriber listed after so many more sessions.
func (w *growthWatch) again(inside netip.Addr, after int) {
	if after > 0 {
		w.kernel.LookAgain(inside, after)
	}
}

// look tells the life cycle of the ports in use of one subscriber, if that may change
// something. It returns how many sessions may begin before the next look.
func (w *growthWatch) look(ctx context.Context, inside netip.Addr) (again int) {
	w.mu.RLock()
	group, b, r, ok := w.life.Growths().Resizable(inside)
	narrowed := w.life.Growths().Narrowed(inside)
	g := w.groups[group]
	w.mu.RUnlock()
	if !ok || g == nil {
		return w.later(inside)
	}
	high := lifecycle.HighWater(r.Size())
	sources := w.kernel.PortUse(inside).Largest()
	switch {
	case sources >= high || narrowed:
		if b.Len() == 1 && !resizes(&g.Config, r.Size()) {
			return r.Size()
		}
		if w.refused.wait(inside, b.Len() >= g.Config.MaxBlocks) {
			return max(1, r.Size()/8)
		}
	case b.Len() == 1:
		return high - sources
	case sources > lifecycle.LowWater(b):
		w.mu.Lock()
		w.life.Growths().KeepBlocks(inside)
		w.mu.Unlock()
		return high - sources
	}
	return w.read(ctx, inside)
}

// later has a subscriber looked at again after some sessions, and after a while too if only an
// executor is in the way: it may have no port left to begin a session with.
func (w *growthWatch) later(inside netip.Addr) (again int) {
	w.mu.RLock()
	busy := w.life.Growths().Busy(inside)
	w.mu.RUnlock()
	if busy {
		w.refused.rest(inside)
	}
	return againAfter
}

// read is look from the sessions of the subscriber.
func (w *growthWatch) read(ctx context.Context, inside netip.Addr) (again int) {
	w.mu.RLock()
	_, b, _, ok := w.life.Growths().Resizable(inside)
	w.mu.RUnlock()
	if !ok {
		return w.later(inside)
	}
	began := time.Now()
	u := lifecycle.NewPortUse(b)
	err := w.kernel.SessionsOf(ctx, netip.PrefixFrom(inside, 32), func(s nftnat.Session) error {
		u.Add(&s.Session)
		return ctx.Err()
	})
	if err != nil {
		w.log.Warn("count ports in use", "inside", inside, "error", err)
		return againAfter // not after a while: a failure that lasts would be logged four times a second
	}
	w.mu.Lock()
	again, refused := w.life.Growths().Used(inside, u, w.now())
	_, before := w.narrowed[inside]
	if refused && (before || len(w.narrowed) < w.most) {
		again = w.life.Growths().Narrow(inside, u)
	}
	after := w.life.Growths().Narrowed(inside)
	w.mu.Unlock()
	if delete(w.narrowed, inside); after {
		w.narrowed[inside] = struct{}{}
	}
	if before || after {
		w.pins.keep(ctx, inside)
	}
	if refused {
		w.refused.looked(inside, time.Since(began))
	}
	return again
}

// runParts asks the kernel for a proof that no session, and no learned mapping, is left in
// blocks that are to be given back.
func (w *growthWatch) runParts(ctx context.Context) error {
	for batch := []*lifecycle.Part(nil); ; {
		var err error
		if batch, err = w.parts.Dequeue(ctx, batch); err != nil {
			return err
		}
		for _, p := range batch {
			if !w.returnBlock(ctx, p) { // the kernel may have taken pins to the block away
				w.pins.keep(ctx, p.Inside)
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
	}
}

// returnBlock gives a block back if it is proved vacant, and reports whether it was. No port is
// pinned to it meanwhile: its sessions would begin in a block that others may get.
func (w *growthWatch) returnBlock(ctx context.Context, p *lifecycle.Part) (vacant bool) {
	w.pins.keeping.Lock()
	defer w.pins.keeping.Unlock()
	vacant, err := w.kernel.Vacant(ctx, p.Inside, p.Block)
	if ctx.Err() != nil {
		return false
	}
	if err != nil {
		w.log.Warn("look for sessions in a block", "inside", p.Inside, "error", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.life.Growths().Vacated(p, err == nil && vacant, w.now())
	return err == nil && vacant
}

// pinAll pins the ports of all subscribers with several blocks, once after a start: their ranges
// of new sessions may have moved with it.
func (w *growthWatch) pinAll(ctx context.Context) error {
	select {
	case <-w.ready:
	case <-ctx.Done():
		return ctx.Err()
	}
	several := w.several()
	if len(several) == 0 {
		return ctx.Err()
	}
	if err := retry(ctx, w.log, "make room for pinned ports", logErrors, w.room); err != nil {
		return err
	}
	for _, inside := range several {
		w.pins.keep(ctx, inside)
	}
	return ctx.Err()
}
