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

// absentKey is the key of a record that others seem to have removed.
type absentKey struct {
	key    subscriber.Key
	reason subscriber.Reason
}

// absenceStore finds missing records, announces their end, and writes back
// those whose removal a guard suspends.
type absenceStore interface {
	WatchRemovals(ctx context.Context, scan func(group string) bool, saw func(subscriber.Key, subscriber.Reason)) error
	FindMissing(ctx context.Context, known []subscriber.Record, reason subscriber.Reason) ([]subscriberdb.Absence, error)
	AnnounceDeleted(ctx context.Context, keys []subscriber.Key, reason subscriber.Reason) error
	SuspendRemovals(ctx context.Context, endings []subscriber.Ending) error
}

// absences decide about records that others have removed. Every part that finds
// such a record queues it here, and the guard of its group is asked.
type absences struct {
	mu          Lock
	life        *lifecycle.Machine
	groups      Groups
	store       absenceStore
	health      Health
	log         *slog.Logger
	now         func() time.Time
	compareSoon func() // called when the database is suspect

	missing *queue.Queue[absentKey]
}

// push queues a record for a look-up, with the reason for which it seems to be
// gone.
func (a *absences) push(k subscriber.Key, why subscriber.Reason) { a.missing.Push(absentKey{k, why}) }

// runVanished listens for the database's notices of removed keys. Notices can
// be lost; they only make the detection faster. A group that is not taken up yet
// is not scanned for lost ones: the comparison that takes it up finds them, and
// a start would read a million addresses twice.
func (a *absences) runVanished(ctx context.Context) error {
	return a.health.Retry(ctx, "listen for deleted keys", func(ctx context.Context) error {
		return a.store.WatchRemovals(ctx, a.isTakenUp, a.push)
	})
}

// runMissing announces the end of missing records in the change feed, so that
// every deletion takes the same path.
func (a *absences) runMissing(ctx context.Context) error {
	for {
		batch, err := a.missing.Dequeue(ctx, nil)
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

func (a *absences) isTakenUp(group string) bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	g := a.groups.NamedRLocked(group)
	return g != nil && g.synced
}

// takenUp returns the keys whose group was taken up. The others wait: until
// then it is unknown which subscribers they serve, and the guard depends on
// that.
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

// lookAgain sets the timers of records that the database keeps although they
// should have expired. It runs only after the database was asked, so that an
// outage does not make the queue grow.
func (a *absences) lookAgain(batch []absentKey) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.now()
	for _, x := range batch {
		a.life.StillThere(x.key.Inside, now)
	}
}

// byReason groups the missing keys by reason, each key once.
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
