package session

import (
	"context"
	"time"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// alarmsEvery is the interval at which the alarm conditions are checked.
const alarmsEvery = time.Second

// feedAge tells the age of the oldest entry of a feed that was not read yet.
type feedAge interface {
	Unread(ctx context.Context, group, after string) (entry string, age time.Duration, err error)
}

// alarmWatch measures the state that alarms depend on: feed lag and exhausted
// pools.
type alarmWatch struct {
	*sharedState
	store feedAge
}

// run checks the alarm conditions every alarmsEvery. Its errors are only those
// of ctx.
func (a *alarmWatch) run(ctx context.Context) error {
	tick := time.NewTicker(alarmsEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		a.tellExhausted()
		a.tellRefused()
		a.lookAheadAll(ctx)
	}
}

// lookAheadAll measures the lag of all feeds. It gives up after alarmsEvery if
// the database hangs; the next round tries again.
func (a *alarmWatch) lookAheadAll(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, alarmsEvery)
	defer cancel()
	for _, g := range a.syncedGroups() {
		a.lookAhead(ctx, g)
	}
}

// unread is the oldest entry of a feed that was not taken yet, as of the last
// look.
type unread struct {
	entry string // "" for none
	age   time.Duration
	seen  time.Time
}

// lookAhead measures how far the engine is behind the group's feed. If the
// database does not answer, the last measurement stays; sessiond_redis_up
// reports that failure.
func (a *alarmWatch) lookAhead(ctx context.Context, g *group) {
	entry, age, err := a.store.Unread(ctx, g.Name, a.positionOf(g))
	if err != nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	g.unread = unread{entry, age, a.now()}
}

// lagLocked returns the age of the oldest entry that was not taken. If the
// entry was taken since the last look, it returns the lag at that look.
func (g *group) lagLocked(now time.Time) time.Duration {
	u := &g.unread
	if u.entry == "" || subscriber.CompareVersions(g.Position, u.entry) >= 0 {
		return u.age
	}
	return u.age + max(0, now.Sub(u.seen))
}

// shortageEvery is the interval between log lines about an exhausted pool.
const shortageEvery = time.Minute

// poolShortage is the last log line about a group's exhausted pool.
type poolShortage struct {
	told  time.Time // when it was logged
	lasts bool      // the pool was exhausted then
}

// tellExhausted logs, once a minute for each group with an exhausted pool, the
// number of subscribers that wait, and later that none waits any more. A line
// for each subscriber would flood the log, and again with each Interim.
func (a *alarmWatch) tellExhausted() {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.now()
	for _, g := range a.groups {
		waiting := a.life.Engine().Pending(g.Name)
		if waiting == 0 && !g.shortage.lasts || !g.shortage.told.IsZero() && now.Sub(g.shortage.told) < shortageEvery {
			continue
		}
		g.shortage = poolShortage{told: now, lasts: waiting > 0}
		switch {
		case waiting > 0 && g.Config.Deterministic:
			a.log.Warn("subscribers wait for their own block, which another address has from before the deterministic mapping changed: end its session, or wait for it", "group", g.Name,
				"waiting", waiting, "alarm", "sessiond_subscribers_pending")
		case waiting > 0:
			a.log.Warn("pool exhausted, subscribers wait for a block", "group", g.Name, "waiting", waiting,
				"alarm", "sessiond_subscribers_pending")
		default:
			a.log.Info("pool suffices again, nobody waits for a block", "group", g.Name)
		}
	}
}

// tellRefused logs, once a minute for each group, the number of subscribers that needed a
// further block since the last line and got none.
func (a *alarmWatch) tellRefused() {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.now()
	for _, g := range a.groups {
		if g.refusals == 0 || !g.refused.IsZero() && now.Sub(g.refused) < shortageEvery {
			continue
		}
		a.log.Warn("subscribers use most of their ports, and get no further block", "group", g.Name, "subscribers", g.refusals,
			"alarm", "sessiond_growths_total")
		g.refusals, g.refused = 0, now
	}
}
