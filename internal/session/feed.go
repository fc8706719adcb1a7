package session

import (
	"context"
	"errors"
	"time"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb"
)

const (
	feedBatch = 1000        // changes taken in one go
	feedBlock = time.Second // how long one read waits for the next change
)

// follow keeps one group in step with its change feed. A gap in the feed, or a
// database that was away, costs a comparison in full.
func (m *Manager) follow(ctx context.Context, g *group) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-m.kernel.Ready():
	}
	for {
		err := m.insist(ctx, "read group "+g.name+" from the database", func(ctx context.Context) error {
			return m.noteRedis(m.sync(ctx, g))
		})
		if err != nil {
			return err
		}
		if err := m.drainFeed(ctx, g); ctx.Err() != nil {
			return ctx.Err()
		} else if !errors.Is(err, subscriberdb.ErrFeedGap) {
			m.log.Warn("change feed interrupted", "group", g.name, "err", err)
		}
	}
}

// drainFeed takes changes until the feed fails.
func (m *Manager) drainFeed(ctx context.Context, g *group) error {
	for {
		changes, last, err := m.store.Feed(ctx, g.name, m.positionOf(g), feedBatch, feedBlock)
		if err != nil {
			if !errors.Is(err, subscriberdb.ErrFeedGap) && ctx.Err() == nil {
				_ = m.noteRedis(err)
			}
			return err
		}
		m.take(g, changes, last)
	}
}

func (m *Manager) positionOf(g *group) string {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return g.position
}

// noteRedis keeps for readiness whether the database answers.
func (m *Manager) noteRedis(err error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.redisErr = err
	return err
}

// take applies changes in the order in which the database took them.
func (m *Manager) take(g *group, changes []subscriber.Change, last string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range changes {
		m.changeLocked(&changes[i])
	}
	if last != g.position {
		g.position = last
		close(g.moved)
		g.moved = make(chan struct{})
	}
}

// changeLocked is where a deleted record becomes a closing gate: the change
// ends the slot's tenure, and stepLocked does what next says.
func (m *Manager) changeLocked(c *subscriber.Change) {
	inside := c.Record.Inside
	s := m.slots[inside]
	if s != nil && s.online && subscriber.CompareVersions(c.ID, s.record.Version) <= 0 {
		return // the snapshot that the slot was made from is newer
	}
	if c.Partial {
		if s == nil || !s.online {
			return // its record was deleted while the snapshot was taken; the feed goes on to say so
		}
		c.Record = c.Onto(&s.record)
	}
	switch c.Kind {
	case subscriber.Deleted:
		if s == nil || !s.online {
			return
		}
		m.endLocked(s, c.Reason, subscriber.VersionTime(c.ID))
	case subscriber.Created, subscriber.Updated:
		s = m.onlineLocked(c.Record, subscriber.VersionTime(c.ID))
	}
	m.touchLocked(s.record.Key)
	m.stepLocked(s)
}

func (m *Manager) endLocked(s *slot, reason subscriber.Reason, at time.Time) {
	m.countLocked(&s.record, -1)
	s.end(reason, at)
	m.engine.Forget(s.record.Group, s.inside())
	m.publishChangeLocked(inspect.EventDeleted, reason, s.record)
}

// onlineLocked takes a record that stands into its slot. A record of another
// session than the one before ends that one first, even if the feed did not say
// so.
func (m *Manager) onlineLocked(r subscriber.Record, at time.Time) *slot {
	s := m.slots[r.Inside]
	if s == nil {
		s = &slot{}
		m.slots[r.Inside] = s
	}
	if s.online && !s.record.SameSession(&r) {
		m.endLocked(s, subscriber.ReasonSuperseded, at)
	}
	kind := inspect.EventUpdated
	if s.online {
		m.refreshLocked(s, r)
	} else {
		kind = inspect.EventCreated
		s.begin(r)
		m.countLocked(&r, +1)
	}
	m.timers.expire(r.Inside, r.ExpiresAt)
	m.publishChangeLocked(kind, subscriber.ReasonNone, s.record)
	return s
}

// refreshLocked brings newer data of the same session into the slot.
func (m *Manager) refreshLocked(s *slot, r subscriber.Record) {
	m.countLocked(&s.record, -1)
	m.countLocked(&r, +1)
	before := holderOf(&s.record)
	s.record = r
	if holder := holderOf(&r); holder != before {
		if b, err := m.engine.SetHolder(r.Group, holder); err == nil {
			m.saveLocked(save{binding: b})
		}
	}
}

// countLocked counts a record among those that stand, or takes it out.
func (m *Manager) countLocked(r *subscriber.Record, change int) {
	g := m.groups[r.Group]
	if g == nil {
		return
	}
	g.online += change
	if r.Unconfirmed {
		g.lost += change
	}
}
