package session

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"time"

	"github.com/sessiond/sessiond/internal/audit"
	"github.com/sessiond/sessiond/internal/clock"
	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb"
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
		switch matches := s.Online() && f.MatchPacked(s.Packed()); {
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
	deleted, err := v.store.Delete(ctx, keys, subscriber.ReasonAdmin)
	if err != nil {
		return deleted, unavailable(err)
	}
	v.follower.awaitTails(ctx)
	for _, key := range earlier {
		deleted = append(deleted, subscriber.Record{Key: key})
	}
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
		if s.Online() && f.MatchPacked(s.Packed()) {
			keys = append(keys, key)
		}
	}
	return keys, nil
}

// Watch returns the events of matching subscribers from now on.
func (v *Backend) Watch(ctx context.Context, f inspect.SubscriberFilter) iter.Seq2[*inspect.Notice, error] {
	return v.reports.events.Watch(ctx, f)
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
