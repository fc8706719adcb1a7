package session

import (
	"context"
	"time"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// alarmsEvery is how often what alarms rest on is looked at.
const alarmsEvery = time.Second

// feedAge tells how old what was not read of a feed yet is.
type feedAge interface {
	Unread(ctx context.Context, group, after string) (entry string, age time.Duration, err error)
}

// alarmWatch keeps what alarms rest on.
type alarmWatch struct {
	*sharedState
	store feedAge
}

// run keeps what alarms rest on, and nothing else does.
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
		a.lookAheadAll(ctx)
	}
}

// lookAheadAll is short of time where the database hangs: the next round comes.
func (a *alarmWatch) lookAheadAll(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, alarmsEvery)
	defer cancel()
	for _, g := range a.syncedGroups() {
		a.lookAhead(ctx, g)
	}
}

// unread is the oldest entry of a feed that was not taken yet at the time of a look.
type unread struct {
	entry string // "" for none
	age   time.Duration
	seen  time.Time
}

// lookAhead looks how far the engine is behind the group's feed. A database that
// does not answer leaves what was seen last: redis_up tells of it.
func (a *alarmWatch) lookAhead(ctx context.Context, g *group) {
	entry, age, err := a.store.Unread(ctx, g.Name, a.positionOf(g))
	if err != nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	g.unread = unread{entry, age, a.now()}
}

// lagLocked is the age of the oldest entry that was not taken. One that has been
// taken since the last look tells how far the engine was behind then.
func (g *group) lagLocked(now time.Time) time.Duration {
	u := &g.unread
	if u.entry == "" || subscriber.CompareVersions(g.Position, u.entry) >= 0 {
		return u.age
	}
	return u.age + max(0, now.Sub(u.seen))
}

// shortageEvery is how often an exhausted pool is told of.
const shortageEvery = time.Minute

// poolShortage is what was said of a group's exhausted pool.
type poolShortage struct {
	told  time.Time // when it was spoken of last
	lasts bool      // so it was said then
}

// tellExhausted says of each group whose pool is exhausted how many wait, once a
// minute, and that nobody does any more. One line for each subscriber would be as
// many as there are customers without service, and more again with each Interim.
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
		if waiting > 0 {
			a.log.Warn("pool exhausted, subscribers wait for a block", "group", g.Name, "waiting", waiting,
				"alarm", "sessiond_subscribers_pending")
		} else {
			a.log.Info("pool suffices again, nobody waits for a block", "group", g.Name)
		}
	}
}
