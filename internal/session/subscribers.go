package session

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/sessiond/sessiond/internal/audit"
	"github.com/sessiond/sessiond/internal/clock"
	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/lifecycle"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb"
	"github.com/sessiond/sessiond/internal/walk"
)

// Subscriber returns one online subscriber.
func (v *Backend) Subscriber(_ context.Context, key subscriber.Key) (inspect.Subscriber, error) {
	v.shared.mu.RLock()
	defer v.shared.mu.RUnlock()
	if err := v.readiness.restoredRLocked(); err != nil {
		return inspect.Subscriber{}, err
	}
	g, err := v.keyGroupLocked(key)
	if err != nil {
		return inspect.Subscriber{}, err
	}
	s := v.shared.life.Slot(key.Inside)
	if s == nil || !s.Online() || s.Group() != g.Name {
		return inspect.Subscriber{}, fmt.Errorf("subscriber %s: %w", key.Inside, inspect.ErrNotFound)
	}
	return v.reports.viewLocked(s), nil
}

// Followed yields, with their indexes, the given addresses of a group whose
// records are in force as far as the feed was taken: a [subscriberdb.Followed].
// yield must not block, and must not call the Manager.
func (m *Manager) Followed(group string, inside []netip.Addr, yield func(i int, r *subscriber.Packed)) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for i, a := range inside {
		if s := m.life.Slot(a); s != nil && s.Online() && s.Group() == group {
			yield(i, s.Packed())
		}
	}
}

func (v *Backend) keyGroupLocked(key subscriber.Key) (*group, error) {
	g := v.shared.groupOfRLocked(key.Inside)
	if g == nil || key.Group != "" && key.Group != g.Name {
		return nil, fmt.Errorf("%s: %w", key.Inside, inspect.ErrNoGroup)
	}
	return g, nil
}

// Subscribers returns up to limit online subscribers after the key after, and
// the key to continue after, which is zero at the end.
func (v *Backend) Subscribers(_ context.Context, f inspect.SubscriberFilter, after subscriber.Key, limit int) (page []inspect.Subscriber, next subscriber.Key, err error) {
	v.shared.mu.RLock()
	defer v.shared.mu.RUnlock()
	if err := v.readiness.restoredRLocked(); err != nil {
		return nil, next, err
	}
	if after != (subscriber.Key{}) { // earlier pages were full
		page = make([]inspect.Subscriber, 0, limit)
	}
	looks := 0
	for key, s := range v.onlineRLocked(&f, after) {
		switch matches := v.matchRLocked(&f, s); {
		case matches && len(page) == limit:
			return page, page[limit-1].Key, nil
		case matches:
			page = append(page, v.reports.viewLocked(s))
		}
		if looks++; looks == looksPerCall {
			return page, key, nil
		}
	}
	return page, next, nil
}

// SubscribersByName returns up to limit online subscribers in the order of their User-Names after
// the key after, and the key to continue after, which is zero at the end.
func (v *Backend) SubscribersByName(_ context.Context, f inspect.SubscriberFilter, after inspect.NameKey, limit int) (page []inspect.Subscriber, next inspect.NameKey, err error) {
	v.shared.mu.RLock()
	defer v.shared.mu.RUnlock()
	if err := v.readiness.restoredRLocked(); err != nil {
		return nil, next, err
	}
	first := cmp.Or(f.UserName, f.UserPrefix)
	if after.UserName >= first {
		first = after.UserName
	}
	looks := 0
	for name, inside := range walk.By(viewsAtOnce, v.shared.mu.RLocker(), v.shared.life.Online().Named(first, after.Inside)) {
		if !strings.HasPrefix(name, f.UserPrefix) || f.UserName != "" && name != f.UserName {
			break // names are in order, and began there
		}
		s := v.shared.life.Slot(inside)
		switch matches := s != nil && v.matchRLocked(&f, s); {
		case matches && len(page) == limit:
			last := &page[limit-1]
			return page, inspect.NameKey{UserName: last.UserName, Inside: last.Inside}, nil
		case matches:
			page = append(page, v.reports.viewLocked(s))
		}
		if looks++; looks == looksPerCall {
			return page, inspect.NameKey{UserName: name, Inside: inside}, nil
		}
	}
	return page, next, nil
}

// SubscriberTotal returns the number of matching online subscribers, if it is counted: without a
// filter, by group and NAS, or by group and a state that few have.
func (v *Backend) SubscriberTotal(_ context.Context, f inspect.SubscriberFilter) (total int, counted bool) {
	v.shared.mu.RLock()
	defer v.shared.mu.RUnlock()
	counts := f
	counts.Group, counts.State, counts.NAS = "", 0, ""
	if counts != (inspect.SubscriberFilter{}) || f.NAS != "" && f.State != 0 {
		return 0, false
	}
	if f.State == 0 {
		return v.shared.life.Online().Count(f.Group, f.NAS), true
	}
	for name, g := range v.shared.groups {
		if f.Group != "" && name != f.Group {
			continue
		}
		switch f.State {
		case inspect.SubscriberPending:
			total += v.shared.life.Engine().Pending(name)
		case inspect.SubscriberUnconfirmed:
			total += g.Unconfirmed()
		case inspect.SubscriberRemovalHeld:
			for _, n := range g.Held() {
				total += n
			}
		default:
			return 0, false
		}
	}
	return total, true
}

// matchRLocked reports whether a slot is online and matches the filter.
func (v *Backend) matchRLocked(f *inspect.SubscriberFilter, s *lifecycle.Slot) bool {
	if !s.Online() || !f.MatchPacked(s.Packed()) {
		return false
	}
	if f.OfRemote() && !v.kernel.Talks(s.Inside(), remoteOf(f)) {
		return false
	}
	if !f.OfNAT() {
		return true
	}
	view := inspect.Subscriber{Record: subscriber.Record{RemovalHeld: s.Packed().RemovalHeld(), Unconfirmed: s.Packed().Unconfirmed()}}
	if b, ok := v.shared.life.Engine().Live(s.Group(), s.Inside()); ok && !s.Awaited() {
		view.Binding = &inspect.Binding{Binding: b}
	} else {
		view.Pending = v.shared.life.Engine().IsPending(s.Group(), s.Inside())
	}
	return f.MatchView(&view)
}

// Put creates or replaces a record by hand, and returns once the engine has
// applied it.
func (v *Backend) Put(ctx context.Context, r subscriber.Record) (subscriber.Record, error) {
	v.shared.mu.RLock()
	g, err := v.keyGroupLocked(r.Key)
	v.shared.mu.RUnlock()
	if err != nil {
		return subscriber.Record{}, err
	}
	r.Group = g.Name
	if r.Version != "" { // an earlier attempt of the request has replaced that version
		if earlier, err := v.earlier(ctx); err != nil || slices.Contains(earlier, r.Key) {
			return r, err
		}
	}
	r, err = v.store.Put(ctx, r)
	if err != nil {
		return r, unavailable(err)
	}
	v.follower.await(ctx, g, r.Version)
	v.awaitRest(ctx, r.Inside)
	return r, nil
}

// Delete deletes the matching records, and returns once the engine has applied
// the deletions.
func (v *Backend) Delete(ctx context.Context, f inspect.SubscriberFilter) ([]subscriber.Record, error) {
	keys, err := v.matching(f)
	if err != nil {
		return nil, err
	}
	earlier, err := v.earlier(ctx)
	if err != nil {
		return nil, err
	}
	ended := make(map[subscriber.Key]bool, len(earlier))
	for _, key := range earlier {
		ended[key] = true
	}
	keys = slices.DeleteFunc(keys, func(k subscriber.Key) bool { return ended[k] }) // who came back since stays
	deleted, err := v.store.Delete(ctx, keys, subscriber.ReasonAdmin, f.Match)
	if err != nil {
		return deleted, unavailable(err)
	}
	v.follower.awaitTails(ctx)
	for _, key := range earlier {
		deleted = append(deleted, subscriber.Record{Key: key})
	}
	return deleted, nil
}

// DeleteVersion deletes the record of one subscriber, if it still has the version, and returns
// once the engine has applied the deletion.
func (v *Backend) DeleteVersion(ctx context.Context, key subscriber.Key, version string) (subscriber.Record, error) {
	v.shared.mu.RLock()
	err := v.readiness.restoredRLocked()
	if err == nil {
		var g *group
		if g, err = v.keyGroupLocked(key); err == nil {
			key.Group = g.Name
		}
	}
	v.shared.mu.RUnlock()
	if err != nil {
		return subscriber.Record{}, err
	}
	if earlier, err := v.earlier(ctx); err != nil || slices.Contains(earlier, key) {
		return subscriber.Record{Key: key}, err
	}
	deleted, err := v.store.DeleteVersion(ctx, key, version, subscriber.ReasonAdmin)
	if err != nil {
		return deleted, unavailable(err)
	}
	v.follower.awaitTails(ctx)
	return deleted, nil
}

// subscriberKey reads the key of a subscriber in an audit entry.
func subscriberKey(group, text string) (subscriber.Key, bool) {
	inside, err := netip.ParseAddr(text)
	return subscriber.Key{Group: group, Inside: inside}, err == nil
}

// matching returns the keys of matching online subscribers, in order.
func (v *Backend) matching(f inspect.SubscriberFilter) ([]subscriber.Key, error) {
	v.shared.mu.RLock()
	defer v.shared.mu.RUnlock()
	if err := v.readiness.restoredRLocked(); err != nil {
		return nil, err
	}
	var keys []subscriber.Key
	for key, s := range v.onlineRLocked(&f, subscriber.Key{}) {
		if v.matchRLocked(&f, s) {
			keys = append(keys, key)
		}
	}
	return keys, nil
}

// awaitRest waits, for a bounded time, until no executor works for the address:
// its gate is open then, or it waits for a block.
func (v *Backend) awaitRest(ctx context.Context, inside netip.Addr) {
	ctx, cancel := context.WithTimeout(ctx, takenWithin)
	defer cancel()
	for {
		v.shared.mu.RLock()
		s := v.shared.life.Slot(inside)
		rests := s == nil || !s.Busy()
		v.shared.mu.RUnlock()
		if rests || clock.Sleep(ctx, time.Millisecond) != nil {
			return
		}
	}
}

// unavailable wraps a failure of the database in an error of package inspect,
// for gRPC callers.
func unavailable(err error) error {
	switch {
	case errors.Is(err, subscriberdb.ErrNoGroup):
		return fmt.Errorf("%w: %w", inspect.ErrNoGroup, err)
	case errors.Is(err, subscriberdb.ErrNotFound):
		return fmt.Errorf("%w: %w", inspect.ErrNotFound, err)
	case errors.Is(err, subscriberdb.ErrStale):
		return fmt.Errorf("%w: %w", inspect.ErrConflict, err)
	case errors.Is(err, audit.ErrUnwritten):
		if subscriberdb.IsFull(err) {
			return fmt.Errorf("%w: %w", inspect.ErrFull, err)
		}
		return err
	case subscriberdb.IsFull(err):
		return fmt.Errorf("%w: %w", inspect.ErrFull, err)
	}
	return fmt.Errorf("%w: %w", inspect.ErrUnavailable, err)
}
