package session

import (
	"context"
	"slices"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// absentKey is a record that seems to be gone by other hands than sessiond's.
type absentKey struct {
	key    subscriber.Key
	reason subscriber.Reason
}

// runVanished listens for the database's notices of keys that went away. They
// are lossy; they only make things faster.
func (m *Manager) runVanished(ctx context.Context) error {
	return m.retryStore(ctx, "listen for deleted keys", func(ctx context.Context) error {
		return m.store.WatchRemovals(ctx, func(k subscriber.Key, r subscriber.Reason) {
			m.missing.push(absentKey{k, r})
		})
	})
}

// runMissing has the change feed told of records that are gone, so that a
// deletion takes the same way whoever made it.
func (m *Manager) runMissing(ctx context.Context) error {
	for {
		batch, err := m.missing.take(ctx, nil)
		if err != nil {
			return err
		}
		batch = m.takenUp(batch)
		for reason, keys := range byReason(batch) {
			if err := m.settleMissing(ctx, keys, reason); err != nil {
				return err
			}
		}
		m.lookAgain(batch)
	}
}

// takenUp returns those of the batch whose group was taken up. Of the others it is
// not known yet whom they serve, which is what the guard asks: they wait.
func (m *Manager) takenUp(batch []absentKey) []absentKey {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.DeleteFunc(batch, func(x absentKey) bool {
		g := m.groups[x.key.Group]
		if g == nil || g.synced {
			return false
		}
		g.early = append(g.early, x)
		return true
	})
}

// lookAgain sets the timers of those records that the database keeps although
// their time is over. It does so only now that the database was asked, so that a
// database that is away does not make the queue grow.
func (m *Manager) lookAgain(batch []absentKey) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	for _, x := range batch {
		m.life.StillThere(x.key.Inside, now)
	}
}

// byReason sorts what is missing, each key once.
func byReason(batch []absentKey) map[subscriber.Reason][]subscriber.Key {
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
