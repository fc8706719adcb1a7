package reconcile

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb"
	"github.com/sessiond/sessiond/internal/walk"
)

// known returns the records of the keys in the slots' versions, for the
// database to tell which of them are gone.
func (a *absences) known(keys []subscriber.Key) []subscriber.Record {
	a.mu.RLock()
	defer a.mu.RUnlock()
	records := make([]subscriber.Record, len(keys))
	for i, k := range keys {
		records[i] = a.knownRLocked(k)
	}
	return records
}

func (a *absences) knownRLocked(k subscriber.Key) subscriber.Record {
	s := a.life.Slot(k.Inside)
	if s == nil || !s.Online() || s.Group() != k.Group {
		return subscriber.Record{Key: k}
	}
	r := s.Record()
	if r.Version == "" { // known from its binding alone: no older event concerns it
		if b, ok := a.life.Engine().Live(k.Group, k.Inside); ok {
			r.Version = fmt.Sprintf("%d-0", b.AllocatedAt.UnixMilli())
		}
	}
	return r
}

// judge asks the guards about missing records. It returns the keys whose end is
// announced, and the endings that are suspended.
func (a *absences) judge(gone []subscriberdb.Absence) (pass []subscriber.Key, hold []subscriber.Ending) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range walk.All(a.mu, slices.All(gone)) {
		switch x := &gone[i]; {
		case x.Told, x.Past:
		case x.Over || a.passesLocked(&x.Ending):
			pass = append(pass, x.Record.Key)
		default:
			hold = append(hold, x.Ending)
		}
	}
	return pass, hold
}

// passesLocked reports whether the record may end, and logs an exceeded limit.
func (a *absences) passesLocked(e *subscriber.Ending) bool {
	g := a.life.Groups().Named(e.Record.Group)
	if g == nil {
		return true // the group serves no subscriber
	}
	passes, alarm := g.Passes(a.life.Slot(e.Record.Inside), e.Reason, a.now())
	if alarm != nil {
		a.log.Error("more subscribers would go than the guard allows; their removal is held until it is confirmed or refused",
			"group", e.Record.Group, "reason", e.Reason.String(), "subscribers", g.Online(), "limit", alarm.Limit,
			"alarm", "sessiond_removals_held", "see", "sessionctl removal list")
	}
	return passes
}

// settleMissing announces the end of missing records, and writes back those
// whose removal a guard suspends.
func (a *absences) settleMissing(ctx context.Context, keys []subscriber.Key, reason subscriber.Reason) error {
	var gone []subscriberdb.Absence
	err := a.health.Retry(ctx, "look at records that are gone", func(ctx context.Context) (err error) {
		gone, err = a.store.FindMissing(ctx, a.known(keys), reason)
		return a.unlessSuspect(err)
	})
	if err != nil || len(gone) == 0 {
		return err
	}
	pass, hold := a.judge(gone)
	a.endPast(gone)
	return a.health.Retry(ctx, "record a deletion by others", func(ctx context.Context) error {
		if err := a.store.SuspendRemovals(ctx, hold); err != nil {
			return err
		}
		// Records whose session is known to have ended were not written back.
		return a.unlessSuspect(a.store.AnnounceDeleted(ctx, append(keysOf(hold), pass...), reason))
	})
}

func keysOf(endings []subscriber.Ending) []subscriber.Key {
	keys := make([]subscriber.Key, len(endings))
	for i := range endings {
		keys[i] = endings[i].Record.Key
	}
	return keys
}

// unlessSuspect returns nil for ErrSuspect, because absence in a suspect
// database is no deletion (I6), and starts a comparison.
func (a *absences) unlessSuspect(err error) error {
	if errors.Is(err, subscriberdb.ErrSuspect) {
		a.compareSoon()
		return nil
	}
	return err
}

// settleOrphans ends slots whose records are missing when their feed is taken
// up again, or writes back the records whose removal a guard suspends. It runs
// before any gate is changed.
func (a *absences) settleOrphans(ctx context.Context, group string, orphans []netip.Addr) error {
	if len(orphans) == 0 {
		return nil
	}
	keys := make([]subscriber.Key, len(orphans))
	for i, inside := range orphans {
		keys[i] = subscriber.Key{Group: group, Inside: inside}
	}
	gone, err := a.store.FindMissing(ctx, a.known(keys), subscriber.ReasonNone)
	if err != nil {
		return err
	}
	_, hold := a.judge(gone)
	if err := a.store.SuspendRemovals(ctx, hold); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range walk.All(a.mu, slices.All(gone)) {
		a.endGoneLocked(&gone[i])
	}
	return nil
}

// endPast ends the slots of records whose end the feed no longer contains. A
// slot whose record has another version by now has received later changes of
// its address, and stays.
func (a *absences) endPast(gone []subscriberdb.Absence) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range gone {
		x := &gone[i]
		s := a.life.Slot(x.Record.Inside)
		if !x.Past || s == nil || !s.Online() {
			continue
		}
		if v := s.Packed().Version(); v != (subscriber.Version{}) && v != subscriber.ParseVersion(x.Record.Version) {
			continue
		}
		a.life.End(s, x.Reason, a.now())
	}
}

// endGoneLocked ends the slot of a missing record, unless its removal is
// suspended. The feed may have announced its end already, in an unread or lost
// part.
func (a *absences) endGoneLocked(x *subscriberdb.Absence) {
	if !x.Told && !x.Past {
		a.push(x.Record.Key, x.Reason) // looked up again: a suspended one's session may have ended
	}
	s := a.life.Slot(x.Record.Inside)
	if s != nil && s.Online() && !s.Held() {
		a.life.End(s, x.Reason, a.now())
	}
}
