package reconcile

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/nftnat"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb"
)

// Lock is the lock around the life cycle and all groups.
type Lock interface {
	sync.Locker
	RLock()
	RUnlock()
}

// Groups has the groups that are served. Its methods are called with the lock held.
type Groups interface {
	AllRLocked() []*Group
	NamedRLocked(name string) *Group // nil for none
}

// Feed follows the change feeds of the groups, which are named.
type Feed interface {
	// CaughtUp waits until the feed was taken up to an entry, and reports whether it was
	// before ctx ended. It gives up when the feed is not followed.
	CaughtUp(ctx context.Context, group, entry string) bool
	// TakenUpLocked notes that the group was taken up: its feed goes on at its Position.
	TakenUpLocked(group string)
}

// Settings are the settings in force.
type Settings interface {
	// Load puts in force what the database has.
	Load(ctx context.Context) error
	// StoreAll stores those in force where the database has none.
	StoreAll(ctx context.Context) error
}

// Served knows what is served beside the configuration.
type Served interface {
	// RetireLocked ends what a group may give of its drained prefixes, now that its
	// bindings are in the engine.
	RetireLocked(group string) error
	// RebuiltLocked says that the database lost what it had of a group.
	RebuiltLocked(group string)
}

// Leases make this daemon the only one that serves a group.
type Leases interface {
	// Check is an error unless the group's lease is ours beyond doubt.
	Check(ctx context.Context, group string) error
}

// Health knows whether the database can be used.
type Health interface {
	// Severity is how bad it is that something failed for want of the database.
	Severity(ctx context.Context) slog.Level
	// Retry calls try, which needs the database, until it succeeds or ctx ends.
	Retry(ctx context.Context, what string, try func(context.Context) error) error
}

// Observer counts what a comparison finds, for metrics.
type Observer interface {
	Drift(kind string)
	Looked(look inspect.Look, took time.Duration) // at all groups, for differences, the rests included
}

// Store is the database as a comparison needs it.
type Store interface {
	absenceStore
	recordStore
	rowStore
	databaseMarks
}

// recordStore has the records that stand.
type recordStore interface {
	Records(ctx context.Context, group string, yield func([]subscriber.Record) error) error
	Versions(ctx context.Context, group string, yield func([]subscriberdb.Standing) error) error
	VersionsInOrder(ctx context.Context, group string, yield func([]subscriberdb.Standing) error) error
	RecordsAt(ctx context.Context, group string, inside []netip.Addr) ([]subscriber.Record, error)
	Gone(ctx context.Context, group string, inside []netip.Addr) ([]netip.Addr, error)
	Restore(ctx context.Context, records []subscriber.Record) error
}

// rowStore has the stored bindings.
type rowStore interface {
	BindingRows(ctx context.Context, group string, yield func([]subscriberdb.BindingRow) error) error
	BindingRowsInOrder(ctx context.Context, group string, yield func([]subscriberdb.BindingRow) error) error
	BindingRowsAt(ctx context.Context, group string, blocks []nat.Place) ([]subscriberdb.BindingRow, error)
	SaveBindings(ctx context.Context, group string, put []nat.Binding, remove []nat.Place) error
}

// databaseMarks tell whether a database is the one that it was, and where its feeds end.
type databaseMarks interface {
	Marker(ctx context.Context, group string) (subscriberdb.Marker, bool, error)
	SetMarker(ctx context.Context, group string, m subscriberdb.Marker) error
	Tail(ctx context.Context, group string) (string, error)
	RolledBack(ctx context.Context, group, entry string) (bool, error)
	Join(ctx context.Context, group, reader, entry string) error
	Recent(ctx context.Context, group string, since time.Time) ([]subscriber.Change, error)
}

// Kernel is the kernel as a comparison needs it.
type Kernel interface {
	elementKernel
	sessionKernel
}

// elementKernel has the gates and blocks of inside addresses.
type elementKernel interface {
	Programmed() bool                                     // it had elements at an earlier start
	Learn(ctx context.Context, inside []netip.Addr) error // reads what it holds at these addresses
	LearnRest(ctx context.Context) error                  // reads what it holds anywhere else
	Known() bool                                          // all that it holds was read or programmed
	EntryAt(inside netip.Addr) (nat.Entry, bool)          // of what was read or programmed
	EntriesFrom(ctx context.Context, from netip.Addr, n int) (entries []nat.Entry, next netip.Addr)
	Changed() <-chan struct{} // tells that others changed what it holds
	Apply(ctx context.Context, entries []nat.Entry) error
	Reap(ctx context.Context, inside []netip.Addr) ([]nat.Reaped, error)
}

// sessionKernel has the conntrack entries of inside addresses.
type sessionKernel interface {
	Sessions(ctx context.Context, yield func(nftnat.Session) error) error
	KillSession(ctx context.Context, s nftnat.Session) error
	Translators(ctx context.Context) ([]string, error) // chains of others that may translate what leaves
}
