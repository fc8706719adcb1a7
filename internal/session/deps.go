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

// Store is what the life cycle needs of the database. *subscriberdb.DB is one.
type Store interface {
	Probe(ctx context.Context) error // why accounting cannot be recorded, within about a second
	Trouble() <-chan struct{}        // tells that a commit of accounting failed

	Tail(ctx context.Context, group string) (string, error)
	RolledBack(ctx context.Context, group, entry string) (bool, error)
	Unread(ctx context.Context, group, after string) (entry string, age time.Duration, err error)
	Feed(ctx context.Context, group, after string, limit int, block time.Duration, room []subscriber.Change) ([]subscriber.Change, string, error)
	Join(ctx context.Context, group, reader, entry string) error
	TellPosition(ctx context.Context, group, reader, entry string) error
	FeedFill(group string) float64
	Recent(ctx context.Context, group string, since time.Time) ([]subscriber.Change, error)
	Records(ctx context.Context, group string, yield func([]subscriber.Record) error) error
	Versions(ctx context.Context, group string, yield func([]subscriberdb.Standing) error) error
	VersionsInOrder(ctx context.Context, group string, yield func([]subscriberdb.Standing) error) error
	RecordsAt(ctx context.Context, group string, inside []netip.Addr) ([]subscriber.Record, error)
	Gone(ctx context.Context, group string, inside []netip.Addr) ([]netip.Addr, error)
	WatchRemovals(ctx context.Context, saw func(subscriber.Key, subscriber.Reason)) error
	FindMissing(ctx context.Context, known []subscriber.Record, reason subscriber.Reason) ([]subscriberdb.Absence, error)
	AnnounceDeleted(ctx context.Context, keys []subscriber.Key, reason subscriber.Reason) error
	SuspendRemovals(ctx context.Context, endings []subscriber.Ending) error
	ConfirmRemovals(ctx context.Context, keys []subscriber.Key) ([]subscriber.Record, error)
	RefuseRemovals(ctx context.Context, keys []subscriber.Key) ([]subscriber.Record, error)
	Restore(ctx context.Context, records []subscriber.Record) error

	Put(ctx context.Context, r subscriber.Record) (subscriber.Record, error)
	Delete(ctx context.Context, keys []subscriber.Key, reason subscriber.Reason) ([]subscriber.Record, error)

	Marker(ctx context.Context, group string) (subscriberdb.Marker, bool, error)
	SetMarker(ctx context.Context, group string, m subscriberdb.Marker) error

	BindingRows(ctx context.Context, group string, yield func([]subscriberdb.BindingRow) error) error
	BindingRowsInOrder(ctx context.Context, group string, yield func([]subscriberdb.BindingRow) error) error
	BindingRowsAt(ctx context.Context, group string, blocks []nat.Place) ([]subscriberdb.BindingRow, error)
	SaveBindings(ctx context.Context, group string, put []nat.Binding, remove []nat.Place) error

	NASes(ctx context.Context) ([]subscriberdb.NAS, error)
	Served(ctx context.Context, named []string) ([]subscriberdb.Served, error)
	SaveServed(ctx context.Context, s subscriberdb.Served) error
	ForgetServed(ctx context.Context, group string) error
	Serve(more []subscriberdb.Group) error
	Unserve(group string) error

	Settings(ctx context.Context) (map[string]string, error)
	InitSettings(ctx context.Context, first map[string]string) error
	SetSettings(ctx context.Context, changed map[string]string) error
}

// Kernel is the NAT below: *nftnat.Kernel, or its in-memory twin.
type Kernel interface {
	Ready() <-chan struct{}                               // closed once its sessions are known
	Programmed() bool                                     // it had elements at an earlier start
	Learn(ctx context.Context, inside []netip.Addr) error // reads what it holds at these addresses
	LearnRest(ctx context.Context) error                  // reads what it holds anywhere else
	Known() bool                                          // all that it holds was read or programmed
	EntryAt(inside netip.Addr) (nat.Entry, bool)          // of what was read or programmed
	EntriesFrom(ctx context.Context, from netip.Addr, n int) (entries []nat.Entry, next netip.Addr)
	Changed() <-chan struct{} // tells that others changed what it holds
	Apply(ctx context.Context, entries []nat.Entry) error
	Reap(ctx context.Context, inside []netip.Addr) ([]nat.Reaped, error)
	Sessions(ctx context.Context, yield func(nftnat.Session) error) error
	SessionsOf(ctx context.Context, inside netip.Prefix, yield func(nftnat.Session) error) error
	KillSession(ctx context.Context, s nftnat.Session) error
	Idlers(ctx context.Context, inside []netip.Addr) ([]netip.Addr, error) // of a few addresses, those that have no session for certain
	SessionCount(inside netip.Addr) int
	SessionTotal() int
	Idle() <-chan netip.Addr
	Translators(ctx context.Context) ([]string, error) // chains of others that may translate what leaves
	SetTimeouts(ctx context.Context, t nat.Timeouts) error
	SetPrefixes(ctx context.Context, inside, outside []netip.Prefix) error
}

// Observer is told what happened, for metrics. Its methods must not block.
type Observer interface {
	Removed(group string, reason subscriber.Reason)
	Observed(group string, reason subscriber.Reason, sessions int) // would have been removed
	StopToCut(time.Duration)                                       // record deleted to gate closed
	StopToReaped(time.Duration)                                    // record deleted to nothing left
	Drift(kind string)
	Looked(look inspect.Look, took time.Duration) // at all groups, for differences, the rests included
}
