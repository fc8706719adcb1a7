package control

import (
	"context"
	"iter"
	"net/netip"
	"time"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/lsn"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// Subscribers is what SubscriberService needs: reading, changing and watching
// who is online. Errors wrap those of package inspect; until everything was
// restored after a start it is ErrNotReady. All methods may be called
// concurrently.
type Subscribers interface {
	// Subscriber returns one subscriber. With an empty Group the group is found
	// by the address. ErrNotFound, ErrNoGroup.
	Subscriber(ctx context.Context, key subscriber.Key) (inspect.Subscriber, error)

	// Subscribers returns up to limit subscribers that match, in the order of
	// inspect.CompareKeys, beginning behind after (zero: at the first). Next is the
	// key to go on behind, zero after the last; there may be fewer than limit before
	// it, or none: a call looks at a bounded number.
	Subscribers(ctx context.Context, f inspect.SubscriberFilter, after subscriber.Key, limit int) (page []inspect.Subscriber, next subscriber.Key, err error)

	// Put makes or replaces a record by hand and returns it as stored, once the
	// engine has taken it or a bounded time is over. With an empty Group the
	// group is found by the address. ErrNoGroup, ErrConflict, ErrUnavailable.
	Put(ctx context.Context, r subscriber.Record) (subscriber.Record, error)

	// Delete deletes the records that match and returns them as they last were.
	// No match is no error. The teardown follows from the deleted records.
	// ErrUnavailable, possibly after some were deleted: those are returned too.
	Delete(ctx context.Context, f inspect.SubscriberFilter) ([]subscriber.Record, error)

	// Watch returns the events of matching subscribers from now on. It never
	// makes the engine wait: a lagging watcher is ended with ErrLagging. The
	// sequence ends without error when the daemon stops.
	Watch(ctx context.Context, f inspect.SubscriberFilter) iter.Seq2[*inspect.Notice, error]
}

// Nat is what NatService needs: bindings and pools. Bindings fail with ErrNotReady
// until everything was restored after a start.
type Nat interface {
	// Bindings returns up to limit bindings that match, held ones included, in
	// the order of inspect.BindingKey.Compare, beginning behind after (zero: at
	// the first). Next is as that of Subscribers.
	Bindings(ctx context.Context, f inspect.BindingFilter, after inspect.BindingKey, limit int) (page []inspect.Binding, next inspect.BindingKey, err error)

	// LookupOutside returns the binding that has, or had at the given time, this
	// public port. A zero time means now. ErrNotFound when nobody had it,
	// ErrNotCovered when the present state cannot tell.
	LookupOutside(ctx context.Context, outside netip.Addr, port nat.Port, at time.Time) (inspect.Binding, error)

	// Pools counts the blocks of every outside prefix, by group and prefix.
	Pools(ctx context.Context) ([]lsn.Usage, error)
}

// Sessions is what SessionService needs: the kernel's conntrack entries of
// subscribers.
type Sessions interface {
	// Sessions hands every matching session to yield, in no particular order,
	// and stops at its first error, which it returns.
	Sessions(ctx context.Context, f inspect.SessionFilter, yield func(inspect.Session) error) error

	// CountSessions counts the matching sessions.
	CountSessions(ctx context.Context, f inspect.SessionFilter) (int, error)

	// TerminateSessions deletes the matching sessions and returns how many. The
	// subscribers keep their bindings, and may begin new sessions.
	TerminateSessions(ctx context.Context, f inspect.SessionFilter) (int, error)
}

// Controls is what ControlService needs: settings, status, reconcile.
type Controls interface {
	// Settings returns the live settings.
	Settings(ctx context.Context) (inspect.Settings, error)

	// UpdateSettings stores and applies the named settings (inspect.SettingNames)
	// of s and returns all as they then are. ErrUnavailable.
	UpdateSettings(ctx context.Context, s inspect.Settings, names []string) (inspect.Settings, error)

	// Status returns the daemon at a glance. It works while nothing else does.
	Status(ctx context.Context) (inspect.Status, error)

	// Reconcile compares Redis, engine and kernel in full, mends what differs
	// unless dryRun, and returns what differed.
	Reconcile(ctx context.Context, dryRun bool) ([]inspect.Drift, error)
}

// Removals is what RemovalService needs: removals that wait, and the decision
// about those that a guard holds. All fail with ErrNotReady until everything was
// restored after a start.
type Removals interface {
	// Removals returns up to limit removals that match, in the order of
	// inspect.RemovalKey.Compare, beginning behind after (zero: at the first). Next
	// is as that of Subscribers.
	Removals(ctx context.Context, f inspect.RemovalFilter, after inspect.RemovalKey, limit int) (page []inspect.Removal, next inspect.RemovalKey, err error)

	// ConfirmRemovals carries out the held removals that match, and returns how
	// many. ErrUnavailable, possibly after some were carried out.
	ConfirmRemovals(ctx context.Context, f inspect.RemovalFilter) (int, error)

	// RefuseRemovals drops the held removals that match, and returns how many.
	// ErrUnavailable, possibly after some were dropped.
	RefuseRemovals(ctx context.Context, f inspect.RemovalFilter) (int, error)
}

// NASes is what NasService needs: the NASes, as their accounting shows them.
type NASes interface {
	// NASes returns up to limit NASes that match, in the order of
	// inspect.NASKey.Compare, beginning behind after (zero: at the first).
	// ErrNotReady until everything was restored after a start; ErrUnavailable.
	NASes(ctx context.Context, f inspect.NASFilter, after inspect.NASKey, limit int) ([]inspect.NAS, error)
}
