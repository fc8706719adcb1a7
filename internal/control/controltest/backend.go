package controltest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sessiond/sessiond/internal/audit"
	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/lsn"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// Backend implements all backends of package control with plain slices, which a
// test fills before it serves them. With Err set, every method returns it.
type Backend struct {
	*inspect.Broadcaster

	mu      sync.Mutex
	Online  []inspect.Subscriber
	Leases  []inspect.Binding
	Flows   []inspect.Session
	Blocks  []inspect.Pool
	Dropped []nat.DropCount
	Ports   []inspect.PortUse
	Sizes   []inspect.BlockSizes
	Live    inspect.Settings
	Glance  inspect.Status
	Differs []inspect.Drift
	Waiting []inspect.Removal
	Routers []inspect.NAS
	Mapped  []inspect.Mapping
	Ended   []inspect.Ending      // the latest first
	Told    []inspect.Explanation // of alice, and of others
	Busy    []inspect.Top         // whatever is asked for
	Audits  Audits
	Orders  []*audit.Order // of the calls that change something, nil for one without
	Inside  netip.Prefix   // inside prefix of group "default"; Put elsewhere is ErrNoGroup
	Err     error
	Pages   atomic.Int64 // number of requested pages; a client may fetch one ahead
	Looks   int          // number of items that a page examines; 0: all
}

// State describes all that a call can change. It is equal as long as nothing is
// changed.
func (b *Backend) State() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return fmt.Sprintf("%+v", []any{b.Online, b.Leases, b.Flows, b.Blocks, b.Live, b.Waiting, b.Routers, b.Mapped})
}

// SetOnline replaces the online subscribers, while the backend is served.
func (b *Backend) SetOnline(online ...inspect.Subscriber) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.Online = online
}

// SetStatus changes the status, while the backend is served.
func (b *Backend) SetStatus(change func(*inspect.Status)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.Glance.Groups = slices.Clone(b.Glance.Groups)
	change(&b.Glance)
}

// Subscriber implements control.Subscribers.
func (b *Backend) Subscriber(_ context.Context, key subscriber.Key) (inspect.Subscriber, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if i := b.indexLocked(key); i >= 0 {
		return b.Online[i], b.Err
	}
	if b.Err != nil {
		return inspect.Subscriber{}, b.Err
	}
	return inspect.Subscriber{}, inspect.ErrNotFound
}

func (b *Backend) indexLocked(key subscriber.Key) int {
	return slices.IndexFunc(b.Online, func(s inspect.Subscriber) bool {
		return s.Inside == key.Inside && (key.Group == "" || s.Group == key.Group)
	})
}

// Subscribers implements control.Subscribers.
func (b *Backend) Subscribers(_ context.Context, f inspect.SubscriberFilter, after subscriber.Key, limit int) ([]inspect.Subscriber, subscriber.Key, error) {
	return page(b, b.Online, func(s *inspect.Subscriber) subscriber.Key { return s.Key }, inspect.CompareKeys,
		func(s *inspect.Subscriber) bool { return b.matchLocked(&f, s) }, after, limit)
}

// SubscribersByName implements control.Subscribers.
func (b *Backend) SubscribersByName(_ context.Context, f inspect.SubscriberFilter, after inspect.NameKey, limit int) ([]inspect.Subscriber, inspect.NameKey, error) {
	return page(b, b.Online, func(s *inspect.Subscriber) inspect.NameKey {
		return inspect.NameKey{UserName: s.UserName, Inside: s.Inside}
	},
		func(x, y inspect.NameKey) int {
			return cmp.Or(cmp.Compare(x.UserName, y.UserName), x.Inside.Compare(y.Inside))
		},
		func(s *inspect.Subscriber) bool { return s.UserName != "" && b.matchLocked(&f, s) }, after, limit)
}

func (b *Backend) matchLocked(f *inspect.SubscriberFilter, s *inspect.Subscriber) bool {
	talks := inspect.SessionFilter{Remote: f.Remote, RemotePort: f.RemotePort}
	return f.Match(&s.Record) && f.MatchView(s) && (!f.OfRemote() || slices.ContainsFunc(b.Flows, func(flow inspect.Session) bool {
		return flow.Inside.Addr() == s.Inside && talks.Match(&flow)
	}))
}

// SubscriberTotal implements control.Subscribers. It counts without a filter.
func (b *Backend) SubscriberTotal(_ context.Context, f inspect.SubscriberFilter) (int, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.Online), f == inspect.SubscriberFilter{}
}

// BindingTotal implements control.Nat. It counts without a filter.
func (b *Backend) BindingTotal(_ context.Context, f inspect.BindingFilter) (int, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.Leases), f == inspect.BindingFilter{}
}

// DeleteVersion implements control.Subscribers.
func (b *Backend) DeleteVersion(ctx context.Context, key subscriber.Key, version string) (subscriber.Record, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.Orders = append(b.Orders, audit.From(ctx))
	i := b.indexLocked(key)
	switch {
	case b.Err != nil:
		return subscriber.Record{}, b.Err
	case i < 0:
		return subscriber.Record{}, inspect.ErrNotFound
	case b.Online[i].Version != version:
		return subscriber.Record{}, inspect.ErrConflict
	}
	r := b.Online[i].Record
	b.Online = slices.Delete(b.Online, i, i+1)
	return r, nil
}

// Explain implements control.Desk.
func (b *Backend) Explain(_ context.Context, who inspect.Customer) (list []inspect.Explanation, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range b.Told {
		user := ""
		switch {
		case e.Subscriber != nil:
			user = e.Subscriber.UserName
		case e.LastEnding != nil:
			user = e.LastEnding.Record.UserName
		}
		if who.UserName != "" && who.UserName == user || who.Inside == e.Inside {
			list = append(list, e)
		}
	}
	if len(list) == 0 {
		return nil, cmp.Or(b.Err, inspect.ErrNotFound)
	}
	return list, b.Err
}

// Endings implements control.Desk.
func (b *Backend) Endings(_ context.Context, f inspect.EndingFilter, before uint64, limit int) (p inspect.Endings, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p.Since = Now.Add(-72 * time.Hour)
	for _, e := range b.Ended {
		switch {
		case before != 0 && e.Number >= before || !f.Match(&e):
		case len(p.List) == limit:
			p.Next = p.List[limit-1].Number
			return p, b.Err
		default:
			p.List = append(p.List, e)
		}
	}
	return p, b.Err
}

// Top implements control.Desk.
func (b *Backend) Top(_ context.Context, q inspect.TopQuery) ([]inspect.Top, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Busy[:min(len(b.Busy), q.Limit)], b.Err
}

// page returns up to limit of the items that match, after the key after, and
// the key to continue after. It examines at most b.Looks items.
func page[T, K any](b *Backend, items []T, keyOf func(*T) K, compare func(a, b K) int, match func(*T) bool, after K, limit int) (found []T, next K, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.Pages.Add(1)
	if b.Err != nil {
		return nil, next, b.Err
	}
	items = slices.SortedFunc(slices.Values(items), func(x, y T) int { return compare(keyOf(&x), keyOf(&y)) })
	looks := 0
	for i := range items {
		x := &items[i]
		switch {
		case compare(keyOf(x), after) <= 0:
			continue
		case match(x) && len(found) == limit:
			return found, keyOf(&found[limit-1]), nil
		case match(x):
			found = append(found, *x)
		}
		if looks++; looks == b.Looks {
			return found, keyOf(x), nil
		}
	}
	return found, next, nil
}

// Put implements control.Subscribers.
func (b *Backend) Put(ctx context.Context, r subscriber.Record) (subscriber.Record, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.Orders = append(b.Orders, audit.From(ctx))
	if b.Err != nil {
		return r, b.Err
	}
	if !b.Inside.Contains(r.Inside) {
		return r, inspect.ErrNoGroup
	}
	r.Group = "default"
	i := b.indexLocked(r.Key)
	if r.Version != "" && (i < 0 || b.Online[i].Version != r.Version) {
		return r, inspect.ErrConflict
	}
	if i >= 0 {
		b.Online[i].Record = r
	} else {
		b.Online = append(b.Online, inspect.Subscriber{Record: r})
	}
	return r, nil
}

// Delete implements control.Subscribers.
func (b *Backend) Delete(ctx context.Context, f inspect.SubscriberFilter) ([]subscriber.Record, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.Orders = append(b.Orders, audit.From(ctx))
	if b.Err != nil {
		return nil, b.Err
	}
	var deleted []subscriber.Record
	b.Online = slices.DeleteFunc(b.Online, func(s inspect.Subscriber) bool {
		if !b.matchLocked(&f, &s) {
			return false
		}
		deleted = append(deleted, s.Record)
		return true
	})
	return deleted, nil
}

// Watch implements control.Subscribers.
func (b *Backend) Watch(ctx context.Context, w inspect.Watch) (iter.Seq2[inspect.Message, error], error) {
	live, err := b.Broadcaster.Watch(ctx, w, inspect.FeedPositions{})
	if gone := (*inspect.NotKeptError)(nil); errors.As(err, &gone) {
		if !w.Gaps {
			return nil, fmt.Errorf("%w: %w", inspect.ErrListAgain, gone)
		}
		w.After = nil
		live, err = b.Broadcaster.Watch(ctx, w, inspect.FeedPositions{})
		if err == nil {
			live = inspect.Gap{Cause: inspect.GapRestarted, ListAgain: true}.Before(live)
		}
	}
	return live, err
}

// Publish hands an event to all watchers.
func (b *Backend) Publish(e inspect.Event) { b.Broadcaster.Publish(e, inspect.FeedPositions{}) }

// Bindings implements control.Nat.
func (b *Backend) Bindings(_ context.Context, f inspect.BindingFilter, after inspect.BindingKey, limit int) ([]inspect.Binding, inspect.BindingKey, error) {
	return page(b, b.Leases, func(l *inspect.Binding) inspect.BindingKey { return inspect.KeyOf(&l.Binding) }, inspect.BindingKey.Compare,
		func(l *inspect.Binding) bool { return f.Match(&l.Binding) }, after, limit)
}

// LookupOutside implements control.Nat.
func (b *Backend) LookupOutside(_ context.Context, outside netip.Addr, port nat.Port, at time.Time) (inspect.Binding, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.Err != nil {
		return inspect.Binding{}, b.Err
	}
	for _, l := range b.Leases {
		if !l.Contains(outside, port) {
			continue
		}
		if !at.IsZero() && at.Before(l.AllocatedAt) {
			return inspect.Binding{}, inspect.ErrNotCovered
		}
		return l, nil
	}
	return inspect.Binding{}, inspect.ErrNotFound
}

// Pools implements control.Nat.
func (b *Backend) Pools(context.Context) ([]inspect.Pool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.Blocks), b.Err
}

// AddPool implements control.Nat.
func (b *Backend) AddPool(ctx context.Context, group string, outside netip.Prefix) ([]inspect.Pool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.Orders = append(b.Orders, audit.From(ctx))
	if b.Err == nil && b.Inside.Overlaps(outside) {
		return nil, fmt.Errorf("%w: %v overlaps the inside prefix %v", inspect.ErrPoolConflict, outside, b.Inside)
	}
	pool := inspect.Pool{
		Usage: lsn.Usage{Group: cmp.Or(group, "default"), Outside: outside, Total: 126, Free: 126}, Origin: inspect.PoolRunTime,
		Change: inspect.PoolAdded, ChangedAt: Now,
	}
	b.Blocks = append(b.Blocks, pool)
	return []inspect.Pool{pool}, b.Err
}

// DrainPool implements control.Nat.
func (b *Backend) DrainPool(ctx context.Context, _ string, outside netip.Prefix) ([]inspect.Pool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.Orders = append(b.Orders, audit.From(ctx))
	for i := range b.Blocks {
		if p := &b.Blocks[i]; p.Outside == outside {
			p.Draining, p.Change, p.ChangedAt, p.Free, p.Total = true, inspect.PoolDrained, Now, 0, p.Used+p.Held
			return []inspect.Pool{*p}, b.Err
		}
	}
	return nil, cmp.Or(b.Err, inspect.ErrNotFound)
}

// RemovePool implements control.Nat.
func (b *Backend) RemovePool(ctx context.Context, _ string, outside netip.Prefix, cut bool) ([]inspect.Pool, int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.Orders = append(b.Orders, audit.From(ctx))
	i := slices.IndexFunc(b.Blocks, func(p inspect.Pool) bool { return p.Outside == outside })
	switch {
	case b.Err != nil:
		return nil, 0, b.Err
	case i < 0:
		return nil, 0, inspect.ErrNotFound
	case b.Blocks[i].Used > 0 && !cut:
		return nil, 0, &inspect.LiveBindingsError{Outside: outside, Bindings: b.Blocks[i].Used}
	}
	used := b.Blocks[i].Used
	b.Blocks = slices.Delete(b.Blocks, i, i+1)
	return nil, used, nil
}

// Drops implements control.Nat.
func (b *Backend) Drops(context.Context) ([]nat.DropCount, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Dropped, b.Err
}

// PortUse implements control.Nat.
func (b *Backend) PortUse(context.Context) ([]inspect.PortUse, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Ports, b.Err
}

// AdviseBlockSize implements control.Nat. It calculates nothing: it returns Sizes, with the
// target.
func (b *Backend) AdviseBlockSize(_ context.Context, group string, target float64) ([]inspect.BlockSizes, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var found []inspect.BlockSizes
	for _, s := range b.Sizes {
		if s.Target = target; group == "" || s.Group == group {
			found = append(found, s)
		}
	}
	if group != "" && len(found) == 0 {
		return nil, cmp.Or(b.Err, inspect.ErrNotFound)
	}
	return found, b.Err
}

// Sessions implements control.Sessions.
func (b *Backend) Sessions(_ context.Context, f inspect.SessionFilter, yield func(inspect.Session) error) error {
	b.mu.Lock()
	flows := slices.Clone(b.Flows)
	b.mu.Unlock()
	for _, s := range flows {
		if !f.Match(&s) {
			continue
		}
		if err := yield(s); err != nil {
			return err
		}
	}
	return b.Err
}

// CountSessions implements control.Sessions.
func (b *Backend) CountSessions(ctx context.Context, f inspect.SessionFilter) (int, error) {
	n := 0
	err := b.Sessions(ctx, f, func(inspect.Session) error { n++; return nil })
	return n, err
}

// TerminateSessions implements control.Sessions.
func (b *Backend) TerminateSessions(ctx context.Context, f inspect.SessionFilter) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.Orders = append(b.Orders, audit.From(ctx))
	before := len(b.Flows)
	b.Flows = slices.DeleteFunc(b.Flows, func(s inspect.Session) bool { return f.Match(&s) })
	return before - len(b.Flows), b.Err
}

// Settings implements control.Controls.
func (b *Backend) Settings(context.Context) (inspect.Settings, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Live, b.Err
}

// UpdateSettings implements control.Controls.
func (b *Backend) UpdateSettings(ctx context.Context, s inspect.Settings, names []string) (inspect.Settings, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.Orders = append(b.Orders, audit.From(ctx))
	if b.Err != nil {
		return b.Live, b.Err
	}
	err := b.Live.Merge(s, names)
	return b.Live, err
}

// Status implements control.Controls.
func (b *Backend) Status(context.Context) (inspect.Status, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Glance, b.Err
}

// Reconcile implements control.Controls.
func (b *Backend) Reconcile(ctx context.Context, dryRun bool) ([]inspect.Drift, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !dryRun {
		b.Orders = append(b.Orders, audit.From(ctx))
	}
	found := slices.Clone(b.Differs)
	for i := range found {
		found[i].Mended = !dryRun
	}
	return found, b.Err
}

// Removals implements control.Removals.
func (b *Backend) Removals(_ context.Context, f inspect.RemovalFilter, after inspect.RemovalKey, limit int) ([]inspect.Removal, inspect.RemovalKey, error) {
	return page(b, b.Waiting, (*inspect.Removal).Key, inspect.RemovalKey.Compare, f.Match, after, limit)
}

// ConfirmRemovals implements control.Removals.
func (b *Backend) ConfirmRemovals(ctx context.Context, f inspect.RemovalFilter, etag string) (int, error) {
	return b.decide(ctx, f, etag)
}

// RefuseRemovals implements control.Removals.
func (b *Backend) RefuseRemovals(ctx context.Context, f inspect.RemovalFilter, etag string) (int, error) {
	return b.decide(ctx, f, etag)
}

// heldLocked returns the number of suspended removals that match, and their etag.
func (b *Backend) heldLocked(f inspect.RemovalFilter) (n int, etag string) {
	f.Kind = inspect.RemovalHeld
	var keys []subscriber.Key
	for i := range b.Waiting {
		if f.Match(&b.Waiting[i]) {
			keys = append(keys, b.Waiting[i].Record.Key)
		}
	}
	return len(keys), inspect.RemovalsEtag(keys)
}

func (b *Backend) decide(ctx context.Context, f inspect.RemovalFilter, etag string) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, now := b.heldLocked(f); etag != "" && etag != now {
		return 0, fmt.Errorf("other removals are held now: %w", inspect.ErrConflict)
	}
	b.Orders = append(b.Orders, audit.From(ctx))
	before := len(b.Waiting)
	f.Kind = inspect.RemovalHeld
	b.Waiting = slices.DeleteFunc(b.Waiting, func(r inspect.Removal) bool { return f.Match(&r) })
	return before - len(b.Waiting), b.Err
}

// CreateMapping implements control.Mappings. It chooses the port 60100.
func (b *Backend) CreateMapping(ctx context.Context, m nat.Mapping, lifetime time.Duration) (inspect.Mapping, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.Orders = append(b.Orders, audit.From(ctx))
	if b.Err != nil {
		return inspect.Mapping{}, b.Err
	}
	if !m.Outside.IsValid() {
		m.Outside.AddrPort = netip.MustParseAddrPort("198.51.100.1:60100")
	}
	if slices.ContainsFunc(b.Mapped, func(has inspect.Mapping) bool { return has.Outside == m.Outside }) {
		return inspect.Mapping{}, fmt.Errorf("%v is mapped: %w", m.Outside, inspect.ErrMappingExists)
	}
	m.Group, m.CreatedAt = "default", Now
	if lifetime > 0 {
		m.ExpiresAt = Now.Add(lifetime)
	}
	made := inspect.Mapping{Mapping: m, Inside: m.Owner.Inside, InForce: m.Owner.Inside.IsValid()}
	b.Mapped = append(b.Mapped, made)
	return made, nil
}

// DeleteMapping implements control.Mappings.
func (b *Backend) DeleteMapping(ctx context.Context, _ string, outside nat.Endpoint) (inspect.Mapping, int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.Orders = append(b.Orders, audit.From(ctx))
	i := slices.IndexFunc(b.Mapped, func(m inspect.Mapping) bool { return m.Outside == outside && !m.Ended() })
	switch {
	case b.Err != nil:
		return inspect.Mapping{}, 0, b.Err
	case i < 0:
		return inspect.Mapping{}, 0, inspect.ErrNotFound
	case b.Mapped[i].Configured:
		return inspect.Mapping{}, 0, inspect.ErrMappingConfigured
	}
	b.Mapped[i].HoldUntil, b.Mapped[i].Inside, b.Mapped[i].InForce = Now.Add(2*time.Minute), netip.Addr{}, false
	return b.Mapped[i], 2, nil
}

// Mappings implements control.Mappings.
func (b *Backend) Mappings(_ context.Context, f inspect.MappingFilter, after inspect.MappingKey, limit int) ([]inspect.Mapping, inspect.MappingKey, error) {
	return page(b, b.Mapped, func(m *inspect.Mapping) inspect.MappingKey { return inspect.MappingKeyOf(&m.Mapping) }, inspect.MappingKey.Compare,
		func(m *inspect.Mapping) bool {
			return (f.Group == "" || f.Group == m.Group) && f.Match(&m.Mapping)
		}, after, limit)
}

// MappingsAt implements control.Mappings.
func (b *Backend) MappingsAt(_ context.Context, outside netip.AddrPort, _ time.Time) (found []inspect.Mapping, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range b.Mapped {
		if m.Outside.AddrPort == outside && !m.Ended() {
			found = append(found, m)
		}
	}
	return found, b.Err
}

// NASes implements control.NASes.
func (b *Backend) NASes(_ context.Context, f inspect.NASFilter, after inspect.NASKey, limit int) ([]inspect.NAS, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.Pages.Add(1)
	var found []inspect.NAS
	for _, n := range b.Routers {
		if f.Match(n.NASKey) && n.Compare(after) > 0 {
			found = append(found, n)
		}
	}
	slices.SortFunc(found, func(a, b inspect.NAS) int { return a.Compare(b.NASKey) })
	return found[:min(len(found), limit)], b.Err
}
