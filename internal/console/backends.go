package console

import (
	"context"
	"iter"
	"net/netip"
	"time"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// Subscribers are the online subscribers, as in package control.
type Subscribers interface {
	Subscriber(ctx context.Context, key subscriber.Key) (inspect.Subscriber, error)
	Subscribers(ctx context.Context, f inspect.SubscriberFilter, after subscriber.Key, limit int) (page []inspect.Subscriber, next subscriber.Key, err error)
	Watch(ctx context.Context, w inspect.Watch) (iter.Seq2[inspect.Message, error], error)
}

// Nat are the bindings and pools, as in package control.
type Nat interface {
	Bindings(ctx context.Context, f inspect.BindingFilter, after inspect.BindingKey, limit int) (page []inspect.Binding, next inspect.BindingKey, err error)
	LookupOutside(ctx context.Context, outside netip.Addr, port nat.Port, at time.Time) (inspect.Binding, error)
	Pools(ctx context.Context) ([]inspect.Pool, error)
}

// Sessions are the conntrack entries of subscribers, as in package control.
type Sessions interface {
	Sessions(ctx context.Context, f inspect.SessionFilter, yield func(inspect.Session) error) error
}

// Controls tells the state and the settings of the daemon, as in package control.
type Controls interface {
	Settings(ctx context.Context) (inspect.Settings, error)
	Status(ctx context.Context) (inspect.Status, error)
}

// Removals are the removals that wait, as in package control.
type Removals interface {
	Removals(ctx context.Context, f inspect.RemovalFilter, after inspect.RemovalKey, limit int) (page []inspect.Removal, next inspect.RemovalKey, err error)
}

// Machine tells about the machine, and counts what has happened.
type Machine interface {
	Kernel() Kernel
	Totals() Totals

	// Layout returns how a group's outside addresses are divided into blocks; false for one that
	// is not configured any more.
	Layout(group string) (Layout, bool)
}

// Kernel is the state of the kernel side.
type Kernel struct {
	Entries, Limit int  // of the conntrack table; Limit is 0 where it is not known
	Barrier        bool // in place on every outside interface
}

// Totals are counts since the start of the daemon.
type Totals struct {
	Starts, Stops uint64 // accounting requests, recorded and answered

	// CutCounts has the removals whose gate closed within each of CutBounds, in seconds, and
	// after them all removals.
	CutBounds []float64
	CutCounts []uint64
}

// Layout divides the ports of an outside address into blocks, aligned to their size.
type Layout struct {
	First, Last nat.Port // inclusive
	BlockSize   int
}
