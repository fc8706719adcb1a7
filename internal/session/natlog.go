package session

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/sessiond/sessiond/internal/clock"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriberdb"
	"github.com/sessiond/sessiond/internal/walk"
)

// natLogStore has the logs of the groups' NAT, which are written with the stored bindings.
type natLogStore interface {
	LogsNAT() bool
	NATLogEnd(ctx context.Context, group string) (subscriberdb.LogState, error)
	NotLogged(ctx context.Context, group string, list []nat.Binding) ([]nat.Place, error)
	LoggedPlaces(ctx context.Context, group string, yield func([]nat.Place) error) error
	MarkLogWhole(ctx context.Context, group, epoch string) error
	SaveLogged(ctx context.Context, group string, list []subscriberdb.LoggedWrite) (anew bool, err error)
	TrimNATLogs(ctx context.Context) error
}

// natLogKeeper makes the log of a group's NAT agree with the bindings in force, where that does
// not follow from their writes: at a start, as others may have written meanwhile or nobody
// logged; and in a database that lost the log.
type natLogKeeper struct {
	*sharedState
	store  natLogStore
	health *databaseHealth
	leases *groupLeases
	logged bool // the NAT is logged

	asks  sync.Mutex
	asked []string // groups whose log is to be compared
	wake  chan struct{}
}

// ask requests a comparison of a group's log. It may be called with the Manager's lock held.
func (k *natLogKeeper) ask(group string) {
	if !k.logged {
		return
	}
	k.asks.Lock()
	defer k.asks.Unlock()
	if !slices.Contains(k.asked, group) {
		k.asked = append(k.asked, group)
	}
	signal(k.wake)
}

func (k *natLogKeeper) groupsAsked() []string {
	k.asks.Lock()
	defer k.asks.Unlock()
	groups := k.asked
	k.asked = nil
	return groups
}

// trim trims the logs.
func (k *natLogKeeper) trim(ctx context.Context) error {
	if k.logged {
		return k.store.TrimNATLogs(ctx)
	}
	return nil
}

// run compares logs when asked.
func (k *natLogKeeper) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-k.wake:
		}
		for _, group := range k.groupsAsked() {
			err := k.health.Retry(ctx, "compare the NAT log of group "+group, func(ctx context.Context) error { return k.complete(ctx, group) })
			if err != nil {
				return err
			}
		}
	}
}

// complete compares the log of a group until it agrees, and marks it as whole.
// Writes that were under way at the begin are waited for: they may be those of a log that has just
// begun anew.
func (k *natLogKeeper) complete(ctx context.Context, group string) error {
	for all := true; ; all = false {
		if !k.serves(group) {
			return nil
		}
		if err := k.leases.Check(ctx, group); err != nil {
			return err
		}
		if _, err := k.store.SaveLogged(ctx, group, nil); err != nil { // begins a log
			return err
		}
		end, err := k.store.NATLogEnd(ctx, group)
		if err != nil {
			return err
		}
		stored, err := k.missing(ctx, group, all)
		if err != nil {
			return err
		}
		more, err := k.surplus(ctx, group, all)
		if err != nil {
			return err
		}
		if stored = append(stored, more...); len(stored) == 0 {
			return k.store.MarkLogWhole(ctx, group, end.Epoch)
		}
		if err := k.await(ctx, stored); err != nil {
			return err
		}
	}
}

// serves reports whether the group is served, and its bindings are known.
func (k *natLogKeeper) serves(group string) bool {
	k.mu.RLock()
	defer k.mu.RUnlock()
	g := k.groups[group]
	return g != nil && g.Adopted()
}

// missing stores the bindings again that the log does not have as they are, and returns their
// places. A binding with a write under way is logged by that; it is returned with all alone.
func (k *natLogKeeper) missing(ctx context.Context, group string, all bool) (stored []nat.Place, err error) {
	var list []nat.Binding
	for from, more := (netip.Addr{}), true; more; more = from.IsValid() {
		list = list[:0]
		k.mu.RLock()
		from = k.life.Engine().BindingsFrom(group, from, walk.Every, func(b nat.Binding) { list = append(list, b) })
		k.mu.RUnlock()
		list = slices.DeleteFunc(list, func(b nat.Binding) bool { return b.State == nat.Held })
		if len(list) == 0 {
			continue
		}
		places, err := k.store.NotLogged(ctx, group, list)
		if err != nil {
			return nil, err
		}
		stored = append(stored, k.storeAgain(group, places, all)...)
	}
	return stored, nil
}

// surplus stores the bindings again that are in service by the log alone, or removes them, and
// returns their places.
func (k *natLogKeeper) surplus(ctx context.Context, group string, all bool) (stored []nat.Place, err error) {
	err = k.store.LoggedPlaces(ctx, group, func(places []nat.Place) error {
		k.mu.RLock()
		places = slices.DeleteFunc(places, func(p nat.Place) bool {
			b, ok := k.life.Engine().AtOutside(p.Outside, p.First)
			return ok && b.Group == group && b.Place() == p && b.State != nat.Held
		})
		k.mu.RUnlock()
		stored = append(stored, k.storeAgain(group, places, all)...)
		return nil
	})
	return stored, err
}

// storeAgain requests writes of the state of places, except those with a write under way, and
// returns the requested ones, or all.
func (k *natLogKeeper) storeAgain(group string, places []nat.Place, all bool) (stored []nat.Place) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, p := range places {
		if k.life.Writes().Of(p) > 0 {
			if all {
				stored = append(stored, p)
			}
			continue
		}
		b, ok := k.life.Engine().AtOutside(p.Outside, p.First)
		if ok && b.Group == group && b.Place() == p {
			k.life.Repairs().StoreAgain(p)
		} else {
			k.life.Repairs().Unstore(nat.Binding{Group: group, Blocks: nat.Blocks{Block: nat.Block{Outside: p.Outside, First: p.First}}})
		}
		stored = append(stored, p)
	}
	return stored
}

// awaitEvery is the interval between looks whether writes are done.
const awaitEvery = 10 * time.Millisecond

// await waits until no write of the places is under way.
func (k *natLogKeeper) await(ctx context.Context, places []nat.Place) error {
	for {
		k.mu.RLock()
		places = slices.DeleteFunc(places, func(p nat.Place) bool { return k.life.Writes().Of(p) == 0 })
		k.mu.RUnlock()
		if len(places) == 0 {
			return nil
		}
		if err := clock.Sleep(ctx, awaitEvery); err != nil {
			return err
		}
	}
}
