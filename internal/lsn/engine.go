package lsn

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/sessiond/sessiond/internal/addrrange"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/prefixtable"
)

// Errors that callers decide upon. The engine wraps them with the call's arguments.
var (
	// ErrNoGroup: the group is unknown, or was removed and gives no blocks any more.
	ErrNoGroup = errors.New("no such group")
	// ErrNotInside: the address is not in an inside prefix of the group.
	ErrNotInside = errors.New("not in an inside prefix of the group")
	// ErrExhausted: no block is free; the holder waits and Advance serves it.
	ErrExhausted = errors.New("pool exhausted")
	// ErrMaxBlocks: the binding has as many blocks as its group allows.
	ErrMaxBlocks = errors.New("has as many blocks as the group allows")
	// ErrBusy: the inside address still has a live (Active, Draining or Cut) binding.
	ErrBusy = errors.New("inside address has a live binding")
	// ErrNoBinding: the inside address has no live binding.
	ErrNoBinding = errors.New("no live binding")
	// ErrTransition: the binding cannot go from its state to the requested one.
	ErrTransition = errors.New("not a legal transition")
	// ErrConflict: the block, or the inside address, already belongs to another binding.
	ErrConflict = errors.New("conflicts with another binding")
	// ErrNotInPool: the block is not a block of the group's outside prefixes.
	ErrNotInPool = errors.New("not a block of the group's pool")
	// ErrInUse: the change of configuration would touch blocks that have holders.
	ErrInUse = errors.New("in use by bindings")
)

// Engine allocates port blocks and remembers their holders. It is not safe for concurrent
// use: its owner holds a lock around every call.
//
// Callers pass in every time that it compares. A clock that steps back only makes holds
// last longer; none ends before its HoldUntil.
type Engine struct {
	groups []*group                 // sorted by name
	routes prefixtable.Table[route] // by outside address
}

// New makes an engine with every block of the groups free. It fails when a
// group is not valid in itself or shares an outside address with another.
func New(configs []GroupConfig) (*Engine, error) {
	e := &Engine{}
	if err := e.Reconfigure(configs); err != nil {
		return nil, err
	}
	return e, nil
}

// The life of a binding.

// Allocate gives h a block of the group and makes its binding Active. A subscriber whose
// last binding is still held gets all its blocks back; any other gets the block that has
// been free for longest, after the holders that wait already. Where bindings may grow, a
// block with a free neighbour is preferred.
//
// ErrExhausted means that h now waits (it keeps its place when it asks again) and that
// Advance will report it among the served. ErrBusy means that the inside address has a live
// binding, which must be held first.
func (e *Engine) Allocate(group string, h nat.Holder, now time.Time) (b nat.Binding, err error) {
	g, err := e.offering(group)
	if err != nil {
		return nat.Binding{}, err
	}
	if !g.covers(h.Inside) {
		return nat.Binding{}, fmt.Errorf("allocate for %v in group %s: %w", h.Inside, group, ErrNotInside)
	}
	l, err := g.allocate(h, now)
	if err != nil {
		return nat.Binding{}, err
	}
	g.describe(addrrange.Number(h.Inside), l, &b)
	return b, nil
}

// Drain makes an Active binding Draining: its record has ended, its existing
// sessions have not.
func (e *Engine) Drain(group string, inside netip.Addr, now time.Time) (nat.Binding, error) {
	return e.transition(group, inside, nat.Draining, now)
}

// Resume makes a Draining binding Active again: its subscriber came back.
func (e *Engine) Resume(group string, inside netip.Addr) (nat.Binding, error) {
	return e.transition(group, inside, nat.Active, time.Time{})
}

// Cut makes an Active or Draining binding Cut: its gate is closed, and its kernel state is
// being reaped.
func (e *Engine) Cut(group string, inside netip.Addr, now time.Time) (nat.Binding, error) {
	return e.transition(group, inside, nat.Cut, now)
}

// Hold makes a Cut binding Held: nothing in the kernel uses its blocks any more. Other
// subscribers cannot get them until now plus the group's hold.
func (e *Engine) Hold(group string, inside netip.Addr, now time.Time) (nat.Binding, error) {
	return e.transition(group, inside, nat.Held, now)
}

// SetGrace sets the time until which the subscriber of a Draining binding may have it back
// unchanged; the zero time removes it. ErrTransition: the binding is not Draining.
func (e *Engine) SetGrace(group string, inside netip.Addr, until time.Time) (nat.Binding, error) {
	return e.note(group, inside, nat.Draining, func(l *lease) { l.after = &teardownInfo{grace: until} })
}

// SetReceipt stores a receipt with a Cut binding; it stays when the binding becomes Held.
// ErrTransition: the binding is not Cut.
func (e *Engine) SetReceipt(group string, inside netip.Addr, r nat.Receipt) (nat.Binding, error) {
	return e.note(group, inside, nat.Cut, func(l *lease) {
		after := &struct {
			teardownInfo
			receipt nat.Receipt
		}{receipt: r} // in one allocation, because there are many
		after.teardownInfo.receipt = &after.receipt
		l.after = &after.teardownInfo
	})
}

// SetHolder replaces the holder's data in the live binding at h.Inside, such as one adopted
// from the kernel before its record was read. If the address waits for a block instead, it
// updates the waiting holder, and returns ErrNoBinding.
func (e *Engine) SetHolder(group string, h nat.Holder) (b nat.Binding, err error) {
	g, c := e.subscriber(group, h.Inside)
	switch {
	case c != nil && c.live():
		c.setHolder(h)
		g.describe(addrrange.Number(h.Inside), &c.lease, &b)
		return b, nil
	case c != nil && c.waiter != none:
		g.waiting.update(c.waiter, h)
	}
	return nat.Binding{}, fmt.Errorf("set holder of %v in group %s: %w", h.Inside, group, ErrNoBinding)
}

// SetFirstAt sets when the session of a live binding got its first block, where that one was
// taken away. ErrNoBinding: there is no live binding.
func (e *Engine) SetFirstAt(group string, inside netip.Addr, at time.Time) (b nat.Binding, err error) {
	g, c := e.subscriber(group, inside)
	if c == nil || !c.live() {
		return nat.Binding{}, fmt.Errorf("set the time of the first block of %v in group %s: %w", inside, group, ErrNoBinding)
	}
	n := addrrange.Number(inside)
	g.first.set(n, stampOf(at))
	g.describe(n, &c.lease, &b)
	return b, nil
}

// Forget removes the inside address from the wait queue, and reports whether it was there.
func (e *Engine) Forget(group string, inside netip.Addr) bool {
	g := e.group(group)
	return g != nil && g.forget(inside)
}

// The ends of holds.

// Advance ends the holds that are over and serves waiting holders. It appends the ended
// bindings to freed and the new ones to served, and returns both.
func (e *Engine) Advance(now time.Time, freed, served []nat.Binding) ([]nat.Binding, []nat.Binding) {
	for _, g := range e.groups {
		freed = g.endHolds(now, freed)
		served = g.serve(now, served)
	}
	return freed, served
}

// Next returns the time at which Advance has work next; a time in the past means now. It
// returns false when there is no hold, and no holder waits while a block is free.
func (e *Engine) Next() (time.Time, bool) {
	var next time.Time
	found := false
	for _, g := range e.groups {
		if t, ok := g.next(); ok && (!found || t.Before(next)) {
			next, found = t, true
		}
	}
	return next, found
}

// Quarantine holds every free block of the group for the group's hold: after a loss of the
// database, any of them may have been in use a moment ago. These holds have no binding;
// Usage counts them as held.
func (e *Engine) Quarantine(group string, now time.Time) {
	if g := e.group(group); g != nil {
		g.quarantine(now)
	}
}

// Bindings by address, bindings of a group, and waiting holders.

// Live returns the Active, Draining or Cut binding of an inside address.
func (e *Engine) Live(group string, inside netip.Addr) (b nat.Binding, ok bool) {
	g, c := e.subscriber(group, inside)
	if c == nil || !c.live() {
		return nat.Binding{}, false
	}
	g.describe(addrrange.Number(inside), &c.lease, &b)
	return b, true
}

// Share makes the holder of a subscriber's live binding, if there is one, share
// the memory of those strings that are equal in h: the caller keeps h, so each
// string is stored once.
func (e *Engine) Share(group string, h nat.Holder) {
	_, c := e.subscriber(group, h.Inside)
	if c == nil || !c.live() {
		return
	}
	for _, kept := range [...]struct{ own, other *string }{
		{&c.identity, &h.Identity}, {&c.user, &h.UserName}, {&c.session, &h.AcctSessionID},
	} {
		if *kept.own == *kept.other {
			*kept.own = *kept.other
		}
	}
}

// AtOutside returns the binding, of any state, one of whose blocks contains the outside
// address and port.
func (e *Engine) AtOutside(outside netip.Addr, port nat.Port) (b nat.Binding, ok bool) {
	r, ok := e.routes.Lookup(outside)
	if !ok {
		return nat.Binding{}, false
	}
	c, ok := r.segment.cellAt(&r.group.shape, outside, port)
	if !ok {
		return nat.Binding{}, false
	}
	ok = r.group.owner(c, &b)
	return b, ok
}

// Bindings yields every binding of the group, held ones included, in no
// particular order, until yield returns false. The engine must not be changed
// meanwhile.
func (e *Engine) Bindings(group string, yield func(nat.Binding) bool) {
	g := e.group(group)
	if g == nil {
		return
	}
	var b nat.Binding
	for inside, c := range g.subscribers.all {
		if c.live() {
			if g.describe(inside, &c.lease, &b); !yield(b) {
				return
			}
		}
	}
	for i, l := range g.kept.All() {
		if l.state != 0 {
			if g.describeHeld(i, &b); !yield(b) {
				return
			}
		}
	}
}

// Pending returns the number of the group's holders that wait for a block.
func (e *Engine) Pending(group string) int {
	if g := e.group(group); g != nil {
		return g.waiting.len
	}
	return 0
}

// IsPending reports whether the inside address waits for a block.
func (e *Engine) IsPending(group string, inside netip.Addr) bool {
	_, c := e.subscriber(group, inside)
	return c != nil && c.waiter != none
}

// Groups, subscribers, and transitions.

func (e *Engine) group(name string) *group {
	i, ok := slices.BinarySearchFunc(e.groups, name, func(g *group, name string) int {
		return strings.Compare(g.config.Name, name)
	})
	if !ok {
		return nil
	}
	return e.groups[i]
}

// offering returns a configured group, which gives blocks.
func (e *Engine) offering(name string) (*group, error) {
	g := e.group(name)
	if g == nil || g.retired {
		return nil, fmt.Errorf("group %s: %w", name, ErrNoGroup)
	}
	return g, nil
}

// subscriber returns the group's state of an inside address, or nil.
func (e *Engine) subscriber(name string, inside netip.Addr) (*group, *subscriberState) {
	g := e.group(name)
	if g == nil {
		return nil, nil
	}
	return g, g.subscribers.table.Place(inside)
}

func (e *Engine) transition(group string, inside netip.Addr, to nat.State, now time.Time) (b nat.Binding, err error) {
	g, c := e.subscriber(group, inside)
	if c == nil || !c.live() {
		return nat.Binding{}, fmt.Errorf("make %v in group %s %v: %w", inside, group, to, ErrNoBinding)
	}
	n := addrrange.Number(inside)
	if from := c.state; !legal(from, to) {
		g.describe(n, &c.lease, &b)
		return b, fmt.Errorf("make %v in group %s %v, is %v: %w", inside, group, to, from, ErrTransition)
	}
	if to == nat.Held {
		g.segmentOf(c.cell).used -= g.count(c.cell)
		ended := c.lease
		c.lease = lease{}
		g.first.set(n, 0)
		i := g.hold(n, ended, now.Add(g.config.Hold))
		g.describeHeld(i, &b)
		return b, nil
	}
	c.state, c.after = to, nil
	switch {
	case to == nat.Active:
		c.released = 0
	case c.released == 0:
		c.released = stampOf(now)
	}
	g.describe(n, &c.lease, &b)
	return b, nil
}

// note changes data of a live binding that is in the given state, but not the state.
func (e *Engine) note(group string, inside netip.Addr, in nat.State, write func(*lease)) (b nat.Binding, err error) {
	g, c := e.subscriber(group, inside)
	if c == nil || !c.live() {
		return nat.Binding{}, fmt.Errorf("note of %v in group %s: %w", inside, group, ErrNoBinding)
	}
	if c.state == in {
		write(&c.lease)
	} else {
		err = fmt.Errorf("note of %v in group %s, is %v and not %v: %w", inside, group, c.state, in, ErrTransition)
	}
	g.describe(addrrange.Number(inside), &c.lease, &b)
	return b, err
}

// legal reports whether a binding may go from one state to another.
func legal(from, to nat.State) bool {
	switch to {
	case nat.Active:
		return from == nat.Draining
	case nat.Draining:
		return from == nat.Active
	case nat.Cut:
		return from == nat.Active || from == nat.Draining
	case nat.Held:
		return from == nat.Cut
	}
	return false
}
