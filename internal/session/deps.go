package session

import (
	"context"
	"net/netip"
	"time"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/nftnat"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb"
)

// Store is the database as the parts of a Manager need it; each names its share beside it.
// *subscriberdb.DB is one.
type Store interface {
	accountingProbe
	bindingStore
	absenceStore
	feedStore
	feedAge
	settingsStore
	markerStore
	servedStore
	reconcileStore
	backendStore
}

// Kernel is the NAT below, as the parts of a Manager need it: *nftnat.Kernel, or its
// in-memory twin.
type Kernel interface {
	Ready() <-chan struct{} // closed once its sessions are known
	executorKernel
	idleKernel
	timeoutKernel
	prefixKernel
	reconcileKernel
	backendKernel
}

// Observer is told what happened, for metrics. Its methods must not block.
type Observer interface {
	removalObserver
	driftObserver
}

// driftObserver counts what a comparison finds, for metrics.
type driftObserver interface {
	Drift(kind string)
	Looked(look inspect.Look, took time.Duration) // at all groups, for differences, the rests included
}

// reconcileStore is the database as a comparison needs it.
type reconcileStore interface {
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

// reconcileKernel is the kernel as a comparison needs it.
type reconcileKernel interface {
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
