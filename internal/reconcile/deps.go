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

// Groups returns the served groups. Its methods are called with the lock held.
type Groups interface {
	AllRLocked() []*Group
	NamedRLocked(name string) *Group // nil for none
}

// Feed follows the change feeds of the groups, by group name.
type Feed interface {
	// CaughtUp waits until the feed was taken up to an entry, and reports whether
	// that happened before ctx ended. It gives up when the feed is not followed.
	CaughtUp(ctx context.Context, group, entry string) bool
	// TakenUpLocked records that the group was taken up: its feed goes on at its
	// Position.
	TakenUpLocked(group string)
}

// Settings are the settings in force.
type Settings interface {
	// Load applies the settings in the database.
	Load(ctx context.Context) error
	// StoreAll stores the settings in force that the database lacks.
	StoreAll(ctx context.Context) error
}

// Mappings are those that outlive their sessions.
type Mappings interface {
	// Load takes the stored mappings of a group over, before its slots.
	Load(ctx context.Context, group string) error
	// StoreAll makes the stored mappings of a group those in force.
	StoreAll(ctx context.Context, group string) error
}

// Served knows the drained prefixes that are served beside the configuration.
type Served interface {
	// RetireLocked makes the engine free the unused rest of a group's drained
	// prefixes, now that its bindings are in the engine.
	RetireLocked(group string) error
	// RebuiltLocked records that the database lost its data about a group.
	RebuiltLocked(group string)
}

// Leases make this daemon the only one that serves a group.
type Leases interface {
	// Check returns an error unless the group's lease is certainly ours.
	Check(ctx context.Context, group string) error
}

// Health knows whether the database can be used.
type Health interface {
	// Severity returns the log level for a failure that the database may have
	// caused.
	Severity(ctx context.Context) slog.Level
	// Retry calls try, which needs the database, until it succeeds or ctx ends.
	Retry(ctx context.Context, what string, try func(context.Context) error) error
}

// Observer counts the results of comparisons, for metrics.
type Observer interface {
	Drift(kind string)
	Looked(look inspect.Look, took time.Duration) // one look at all groups, including its pauses
}

// Store is the database as a comparison needs it.
type Store interface {
	absenceStore
	recordStore
	rowStore
	databaseMarks
}

// recordStore reads and restores records.
type recordStore interface {
	Records(ctx context.Context, group string, yield func([]subscriber.Record) error) error
	Versions(ctx context.Context, group string, yield func([]subscriberdb.RecordVersion) error) error
	VersionsInOrder(ctx context.Context, group string, about int, yield func([]subscriberdb.RecordVersion) error) error
	RecordsAt(ctx context.Context, group string, inside []netip.Addr) ([]subscriber.Record, error)
	Gone(ctx context.Context, group string, inside []netip.Addr) ([]netip.Addr, error)
	Restore(ctx context.Context, records []subscriber.Record) error
}

// rowStore reads and writes stored bindings.
type rowStore interface {
	BindingRows(ctx context.Context, group string, yield func([]subscriberdb.BindingRow) error) error
	BindingRowsInOrder(ctx context.Context, group string, yield func([]subscriberdb.BindingRow) error) error
	BindingRowsAt(ctx context.Context, group string, blocks []nat.Place) ([]subscriberdb.BindingRow, error)
	SaveBindings(ctx context.Context, group string, put []nat.Binding, remove []nat.Place) error
}

// databaseMarks tell whether a database is the known one, and where its feeds
// end.
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

// elementKernel reads and programs the gates and blocks of inside addresses.
type elementKernel interface {
	Programmed() bool                                     // it had elements at an earlier start
	Learn(ctx context.Context, inside []netip.Addr) error // reads the elements of these addresses
	LearnRest(ctx context.Context) error                  // reads all other elements
	Known() bool                                          // all elements were read or programmed
	EntryAt(inside netip.Addr) (nat.Entry, bool)          // among those read or programmed
	EntriesFrom(ctx context.Context, from netip.Addr, n int) (entries []nat.Entry, next netip.Addr)
	Changed() <-chan struct{} // receives when others changed the elements
	Apply(ctx context.Context, entries []nat.Entry) error
	Reap(ctx context.Context, inside []netip.Addr) ([]nat.Reaped, error)
}

// sessionKernel reads and deletes the conntrack entries of inside addresses.
type sessionKernel interface {
	Sessions(ctx context.Context, yield func(nftnat.Session) error) error
	KillSession(ctx context.Context, s nftnat.Session) error
	Translators(ctx context.Context) ([]string, error) // chains of others that may translate outgoing packets
}
