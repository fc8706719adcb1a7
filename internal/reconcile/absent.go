package reconcile

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/sessiond/sessiond/internal/lifecycle"
	"github.com/sessiond/sessiond/internal/queue"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb"
)

// absentKey is a record that seems to be gone by other hands than sessiond's.
type absentKey struct {
	key    subscriber.Key
	reason subscriber.Reason
}

// absenceStore tells which records are gone, has their end announced, and takes back those
// whose removal a guard holds.
type absenceStore interface {
	WatchRemovals(ctx context.Context, saw func(subscriber.Key, subscriber.Reason)) error
	FindMissing(ctx context.Context, known []subscriber.Record, reason subscriber.Reason) ([]subscriberdb.Absence, error)
	AnnounceDeleted(ctx context.Context, keys []subscriber.Key, reason subscriber.Reason) error
	SuspendRemovals(ctx context.Context, endings []subscriber.Ending) error
}

// absences settle what becomes of records that are gone by other hands than sessiond's: whoever
// notices one puts it here, and the guard of its group is asked.
type absences struct {
	mu          Lock
	life        *lifecycle.Machine
	groups      Groups
	store       absenceStore
	health      Health
	log         *slog.Logger
	now         func() time.Time
	compareSoon func() // is called when the database does not know itself to be complete

	missing *queue.Queue[absentKey]
}

// push has a record looked up that seems to be gone for a reason.
func (a *absences) push(k subscriber.Key, why subscriber.Reason) { a.missing.Push(absentKey{k, why}) }

// runVanished listens for the database's notices of keys that went away. They
// are lossy; they only make things faster.
func (a *absences) runVanished(ctx context.Context) error {
	return a.health.Retry(ctx, "listen for deleted keys", func(ctx context.Context) error {
		return a.store.WatchRemovals(ctx, a.push)
	})
}

// runMissing has the change feed told of records that are gone, so that a
// deletion takes the same way whoever made it.
func (a *absences) runMissing(ctx context.Context) error {
	for {
		batch, err := a.missing.Take(ctx, nil)
		if err != nil {
			return err
		}
		batch = a.takenUp(batch)
		for reason, keys := range byReason(batch) {
			if err := a.settleMissing(ctx, keys, reason); err != nil {
				return err
			}
		}
		a.lookAgain(batch)
	}
}

// takenUp returns those of the batch whose group was taken up. Of the others it is
// not known yet whom they serve, which is what the guard asks: they wait.
func (a *absences) takenUp(batch []absentKey) []absentKey {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.DeleteFunc(batch, func(x absentKey) bool {
		g := a.groups.NamedRLocked(x.key.Group)
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
func (a *absences) lookAgain(batch []absentKey) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.now()
	for _, x := range batch {
		a.life.StillThere(x.key.Inside, now)
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
