package session

import (
	"context"
	"errors"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb"
)

// missing is a record that seems to be gone by other hands than sessiond's.
type missing struct {
	key    subscriber.Key
	reason subscriber.Reason
}

// runVanished listens for the database's notices of keys that went away. They
// are lossy; they only make things faster.
func (m *Manager) runVanished(ctx context.Context) error {
	return m.insist(ctx, "listen for deleted keys", func(ctx context.Context) error {
		return m.store.Vanished(ctx, func(k subscriber.Key, r subscriber.Reason) {
			m.missing.push(missing{k, r})
		})
	})
}

// runMissing has the change feed told of records that are gone, so that a
// deletion takes the same way whoever made it.
func (m *Manager) runMissing(ctx context.Context) error {
	for {
		batch, err := m.missing.take(ctx)
		if err != nil {
			return err
		}
		for reason, keys := range byReason(batch) {
			err := m.insist(ctx, "record a deletion by others", func(ctx context.Context) error {
				return m.bury(ctx, keys, reason)
			})
			if err != nil {
				return err
			}
		}
		m.lookAgain(batch)
	}
}

// lookAgain sets the timers of those records that the database keeps although
// their time is over. It does so only now that the database was asked, so that a
// database that is away does not make the queue grow.
func (m *Manager) lookAgain(batch []missing) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	now := m.now()
	for _, x := range batch {
		s := m.slots[x.key.Inside]
		if s != nil && s.online && !s.record.ExpiresAt.IsZero() && s.record.ExpiresAt.Before(now) {
			m.timers.expire(x.key.Inside, now)
		}
	}
}

// bury writes the missing end of records into the feed. Where the database does
// not know itself to be complete, nothing is taken for deleted (I6).
func (m *Manager) bury(ctx context.Context, keys []subscriber.Key, reason subscriber.Reason) error {
	err := m.store.Bury(ctx, keys, reason)
	if errors.Is(err, subscriberdb.ErrSuspect) {
		m.reconcileSoon()
		return nil
	}
	return err
}

// byReason sorts what is missing, each key once.
func byReason(batch []missing) map[subscriber.Reason][]subscriber.Key {
	keys := map[subscriber.Reason][]subscriber.Key{}
	seen := make(map[subscriber.Key]struct{}, len(batch))
	for _, x := range batch {
		if _, ok := seen[x.key]; ok {
			continue
		}
		seen[x.key] = struct{}{}
		keys[x.reason] = append(keys[x.reason], x.key)
	}
	return keys
}
