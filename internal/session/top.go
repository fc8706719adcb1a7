package session

import (
	"context"
	"net/netip"
	"time"

	"github.com/sessiond/sessiond/internal/addrtable"
	"github.com/sessiond/sessiond/internal/clock"
	"github.com/sessiond/sessiond/internal/conntrack"
	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// Top returns the busiest subscribers, the busiest first. It looks at all once, and holds no lock
// meanwhile but for steps of under 1 ms.
func (v *Desk) Top(ctx context.Context, q inspect.TopQuery) ([]inspect.Top, error) {
	v.shared.mu.RLock()
	err := v.readiness.restoredRLocked()
	v.shared.mu.RUnlock()
	if err != nil {
		return nil, err
	}
	busiest := busiestSubscribers{v: v, query: q, top: topN[inspect.Top]{limit: q.Limit, compare: inspect.CompareTop}}
	switch q.By {
	case inspect.TopNewSessions:
		err = busiest.byNewSessions(ctx)
	case inspect.TopPorts:
		err = v.inTurn(ctx, func() {
			v.kernel.PortUses(func(users []conntrack.PortUser) {
				for _, u := range users {
					busiest.offer(u.Inside, float64(u.Largest()))
				}
			})
		})
	case inspect.TopOctets:
		err = v.inTurn(ctx, busiest.byOctets)
	case inspect.TopBlocks:
		err = v.inTurn(ctx, busiest.byBlocks)
	default:
		err = v.inTurn(ctx, func() {
			v.kernel.AddressCounts(func(counts []conntrack.AddressCount) {
				for _, c := range counts {
					busiest.offer(c.Inside, float64(c.Entries))
				}
			})
		})
	}
	if err != nil {
		return nil, err
	}
	return busiest.views(), ctx.Err()
}

// inTurn walks over all subscribers, after the walks of other callers: one at a time takes one
// processor.
func (v *Desk) inTurn(ctx context.Context, walk func()) error {
	select {
	case v.walks <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-v.walks }()
	walk()
	return nil
}

// busiestSubscribers gathers the subscribers with the largest values.
type busiestSubscribers struct {
	v     *Desk
	query inspect.TopQuery
	top   topN[inspect.Top]
}

// offer takes a subscriber with its value. Only for one that would be among the busiest it takes
// the lock, to see whether it is asked for.
func (b *busiestSubscribers) offer(inside netip.Addr, value float64) {
	candidate := inspect.Top{Inside: inside, Value: value}
	if value <= 0 || !b.top.wants(candidate) {
		return
	}
	b.v.shared.mu.RLock()
	asked := b.askedRLocked(inside)
	b.v.shared.mu.RUnlock()
	if asked {
		b.top.add(candidate)
	}
}

// askedRLocked reports whether the address is of a subscriber that the query asks for: one with a
// record, or with a live binding.
func (b *busiestSubscribers) askedRLocked(inside netip.Addr) bool {
	s := b.v.shared.life.Slot(inside)
	if s == nil || b.query.Group != "" && s.Group() != b.query.Group {
		return false
	}
	if !b.query.Outside.IsValid() {
		return true
	}
	binding, ok := b.v.shared.life.Engine().Live(s.Group(), inside)
	return ok && b.query.Outside.Contains(binding.Outside)
}

// byNewSessions measures how many sessions each subscriber begins within the window.
func (b *busiestSubscribers) byNewSessions(ctx context.Context) error {
	var before addrtable.Table[uint32] // 5 octets a subscriber
	var began time.Time
	note := func(counts []conntrack.AddressCount) {
		for _, c := range counts {
			before.Put(c.Inside, c.Begun)
		}
	}
	if err := b.v.inTurn(ctx, func() { began = time.Now(); b.v.kernel.AddressCounts(note) }); err != nil {
		return err
	}
	if err := clock.Sleep(ctx, b.query.Window); err != nil {
		return err
	}
	return b.v.inTurn(ctx, func() {
		seconds := time.Since(began).Seconds()
		b.v.kernel.AddressCounts(func(counts []conntrack.AddressCount) {
			for _, c := range counts {
				was, _ := before.At(c.Inside)
				if was > c.Begun { // its sessions ended, and others began
					was = 0
				}
				b.offer(c.Inside, float64(c.Begun-was)/seconds)
			}
		})
	})
}

// byOctets compares the counters of accounting.
func (b *busiestSubscribers) byOctets() {
	v := b.v
	v.shared.mu.RLock()
	defer v.shared.mu.RUnlock()
	f := inspect.SubscriberFilter{Group: b.query.Group, Outside: b.query.Outside}
	for _, s := range v.onlineRLocked(&f, subscriber.Key{}) {
		candidate := inspect.Top{Inside: s.Inside(), Value: float64(s.Packed().Octets())}
		if s.Online() && candidate.Value > 0 && b.top.wants(candidate) && b.askedRLocked(s.Inside()) {
			b.top.add(candidate)
		}
	}
}

// byBlocks compares the numbers of blocks, where they are more than one.
func (b *busiestSubscribers) byBlocks() {
	v := b.v
	v.shared.mu.RLock()
	defer v.shared.mu.RUnlock()
	for name := range v.shared.groups {
		for _, inside := range v.shared.life.Engine().Several(name) {
			binding, ok := v.shared.life.Engine().Live(name, inside)
			if candidate := (inspect.Top{Inside: inside, Value: float64(binding.Len())}); ok && b.top.wants(candidate) && b.askedRLocked(inside) {
				b.top.add(candidate)
			}
		}
	}
}

// views returns the busiest with their present data.
func (b *busiestSubscribers) views() []inspect.Top {
	v := b.v
	v.shared.mu.RLock()
	defer v.shared.mu.RUnlock()
	list := b.top.kept
	for i := range list {
		t := &list[i]
		s := v.shared.life.Slot(t.Inside)
		switch {
		case s == nil:
			continue
		case s.Online():
			t.Who = v.reports.viewLocked(s)
		default:
			t.Who.Key = s.Key()
			if binding, ok := v.shared.life.Engine().Live(s.Group(), s.Inside()); ok {
				t.Who.UserName, t.Who.Binding = binding.UserName, &inspect.Binding{Binding: binding}
			}
		}
		t.Sessions = v.kernel.SessionCount(t.Inside)
	}
	return list
}
