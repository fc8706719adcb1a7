package session

import (
	"context"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/lifecycle"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/walk"
)

// fewBindings is the largest number of bindings that is gathered and sorted for
// one page: 1 ms of work under the lock. If a filter matches more, a walk meets
// them often enough.
const fewBindings = 10_000

// Bindings returns up to limit bindings after the key after, held ones
// included, and the key to continue after, which is zero at the end.
func (v *Backend) Bindings(_ context.Context, f inspect.BindingFilter, after inspect.BindingKey, limit int) (views []inspect.Binding, next inspect.BindingKey, err error) {
	v.shared.mu.RLock()
	defer v.shared.mu.RUnlock()
	if err := v.readiness.restoredRLocked(); err != nil {
		return nil, next, err
	}
	p := bindingPage{filter: f, after: after, limit: limit}
	for _, name := range lifecycle.NamesFrom(maps.Keys(v.shared.groups), f.Group, after.Group) {
		if v.gatherRLocked(name, &p); p.full() {
			break
		}
	}
	page, next := p.cut()
	views = make([]inspect.Binding, len(page))
	for i, b := range page {
		views[i] = v.bindingViewLocked(b)
	}
	return views, next, nil
}

// BindingTotal returns the number of matching bindings, if it is counted: without a filter, or by
// group and state.
func (v *Backend) BindingTotal(_ context.Context, f inspect.BindingFilter) (total int, counted bool) {
	if f != (inspect.BindingFilter{Group: f.Group, State: f.State}) {
		return 0, false
	}
	v.shared.mu.RLock()
	defer v.shared.mu.RUnlock()
	for name, g := range v.shared.groups {
		if f.Group != "" && name != f.Group {
			continue
		}
		for state, n := range map[nat.State]int{
			nat.Active: g.In(lifecycle.Open), nat.Draining: g.In(lifecycle.Draining), nat.Cut: g.In(lifecycle.Cut),
			nat.Held: v.shared.life.Engine().Held(name),
		} {
			if f.State == 0 || f.State == state {
				total += n
			}
		}
	}
	return total, true
}

// bindingPage gathers one page of bindings, in order.
type bindingPage struct {
	filter inspect.BindingFilter
	after  inspect.BindingKey
	limit  int
	looks  int // addresses examined by walks
	items  []nat.Binding
	end    inspect.BindingKey // everything up to this key was examined; zero while gathering
}

func (p *bindingPage) full() bool {
	return len(p.items) > p.limit || p.end != (inspect.BindingKey{})
}

// addSorted adds bindings that all sort after those already in the page.
func (p *bindingPage) addSorted(more []nat.Binding) {
	slices.SortFunc(more, func(a, b nat.Binding) int { return inspect.KeyOf(&a).Compare(inspect.KeyOf(&b)) })
	p.items = append(p.items, more[:min(len(more), p.limit+1)]...)
}

// cut returns the page, and the key to continue after.
func (p *bindingPage) cut() ([]nat.Binding, inspect.BindingKey) {
	if len(p.items) <= p.limit {
		return p.items, p.end
	}
	page := p.items[:p.limit]
	return page, inspect.KeyOf(&page[p.limit-1])
}

// gatherRLocked adds the group's bindings after p.after to the page, until it
// is full or looksPerCall addresses were examined.
func (v *Backend) gatherRLocked(group string, p *bindingPage) {
	var found []nat.Binding
	look := func(b nat.Binding) {
		if p.filter.Match(&b) && inspect.KeyOf(&b).Compare(p.after) > 0 && v.inForceLocked(&b) {
			found = append(found, b)
		}
	}
	if v.fewRLocked(group, &p.filter, look) {
		v.shared.mu.RUnlock()
		p.addSorted(found)
		v.shared.mu.RLock()
		return
	}
	inside := p.filter.Inside
	before := p.after.Inside.Prev() // its address may have more bindings
	for from := firstOf(inside, group, subscriber.Key{Group: p.after.Group, Inside: before}); ; {
		from = v.shared.life.Engine().BindingsFrom(group, from, walk.Every, look)
		p.addSorted(found)
		found = found[:0]
		walk.Yield(v.shared.mu.RLocker())
		p.looks += walk.Every
		switch {
		case !from.IsValid(), len(p.items) > p.limit:
			return
		case inside.IsValid() && !inside.Contains(from):
			return // addresses are in order, and began in the prefix
		case p.looks >= looksPerCall:
			last := netip.AddrFrom4([4]byte{255, 255, 255, 255})
			p.end = inspect.BindingKey{Group: group, Inside: from.Prev(), Outside: last, First: math.MaxUint16}
			return
		}
	}
}

// fewRLocked yields, in no order, all of the group's bindings that may match
// the filter, if an index finds these alone and they are few. Otherwise it
// returns false.
func (v *Backend) fewRLocked(group string, f *inspect.BindingFilter, yield func(nat.Binding)) bool {
	if inside := f.Inside; inside.IsValid() && inside.Addr().Is4() && inside.Bits() > 32-9 {
		return false // 512 addresses are one step of a walk
	}
	if f.Outside.IsValid() && v.shared.life.Engine().OutsideFew(group, f.Outside, fewBindings, yield) {
		return true
	}
	switch f.State {
	case nat.Held:
		return v.shared.life.Engine().HeldFew(group, fewBindings, yield)
	case nat.Draining:
		return v.drainingFewRLocked(group, yield)
	case nat.Cut:
		g := v.shared.groups[group]
		return g != nil && g.In(lifecycle.Cut) == 0
	}
	return false
}

func (v *Backend) drainingFewRLocked(group string, yield func(nat.Binding)) bool {
	if v.shared.life.Drains().Len() > fewBindings {
		return false
	}
	for inside := range v.shared.life.Drains().Addresses() {
		if b, ok := v.shared.life.Engine().Live(group, inside); ok {
			yield(b)
		}
	}
	return true
}

// inForceLocked hides a binding that is allocated but not programmed yet: it
// counts as ACTIVE only when packets can use it.
func (v *Backend) inForceLocked(b *nat.Binding) bool {
	if b.State != nat.Active {
		return true
	}
	s := v.shared.life.Slot(b.Inside)
	return s != nil && s.Phase() != lifecycle.Idle && !s.Awaited()
}

func (v *Backend) bindingViewLocked(b nat.Binding) inspect.Binding {
	view := inspect.Binding{Binding: b}
	if b.State != nat.Held {
		view.End = v.reports.endOfLocked(&b)
		view.Sessions = v.kernel.SessionCount(b.Inside)
		view.PortsMeasured = true
		view.PortsInUse, view.PortsPeak = v.ports.of(b.Inside)
	}
	return view
}

// LookupOutside returns the binding that has an outside port now, or had it at
// a time that the present bindings cover.
func (v *Backend) LookupOutside(_ context.Context, outside netip.Addr, port nat.Port, at time.Time) (inspect.Binding, error) {
	v.shared.mu.RLock()
	defer v.shared.mu.RUnlock()
	if err := v.readiness.restoredRLocked(); err != nil {
		return inspect.Binding{}, err
	}
	b, ok := v.shared.life.Engine().AtOutside(outside, port)
	if at.IsZero() || !at.Before(v.shared.now()) {
		if !ok {
			return inspect.Binding{}, fmt.Errorf("nobody holds the port now: %w", inspect.ErrNotFound)
		}
		return v.bindingViewLocked(b), nil
	}
	if !ok || at.Before(b.AllocatedAt) || !b.Block.Contains(outside, port) && at.Before(b.GrownAt) {
		return inspect.Binding{}, fmt.Errorf("at %s: %w", at.UTC().Format(time.RFC3339), inspect.ErrNotCovered)
	}
	return v.bindingViewLocked(b), nil
}

// Drops returns the counts of packets that did not pass, by reason and direction.
func (v *Backend) Drops(ctx context.Context) ([]nat.DropCount, error) { return v.kernel.Drops(ctx) }
