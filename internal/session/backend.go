package session

import (
	"context"
	"net/netip"

	"github.com/sessiond/sessiond/internal/audit"
	"github.com/sessiond/sessiond/internal/conntrack"
	"github.com/sessiond/sessiond/internal/lsn"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/nftnat"
	"github.com/sessiond/sessiond/internal/reconcile"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb"
	"github.com/sessiond/sessiond/internal/subscriberdb/trail"
)

// backendStore carries out the changes that gRPC callers order, and lists
// NASes.
type backendStore interface {
	Put(ctx context.Context, r subscriber.Record) (subscriber.Record, error)
	Delete(ctx context.Context, keys []subscriber.Key, reason subscriber.Reason, meant func(*subscriber.Record) bool) ([]subscriber.Record, error)
	DeleteVersion(ctx context.Context, key subscriber.Key, version string, reason subscriber.Reason) (subscriber.Record, error)
	ConfirmRemovals(ctx context.Context, keys []subscriber.Key) ([]subscriber.Record, error)
	RefuseRemovals(ctx context.Context, keys []subscriber.Key) ([]subscriber.Record, error)
	SetSettings(ctx context.Context, changed map[string]string) error
	BeginOrder(ctx context.Context, entry func(*audit.Entry)) (end func(count int, failed error) error, err error)
	EarlierEntries(ctx context.Context) ([]audit.Entry, error)
	Audit() *trail.Store
	NASes(ctx context.Context) ([]subscriberdb.NAS, error)
	FeedFill(group string) float64
}

// backendKernel lists conntrack entries, and ends them, and counts dropped packets.
type backendKernel interface {
	sessionCounter
	SessionTotal() int
	Sessions(ctx context.Context, yield func(nftnat.Session) error) error
	SessionsOf(ctx context.Context, inside netip.Prefix, yield func(nftnat.Session) error) error
	KillSession(ctx context.Context, s nftnat.Session) error
	Drops(ctx context.Context) ([]nat.DropCount, error)
	Counts(inside netip.Addr) nat.SessionCounts
	AddressCounts(yield func([]conntrack.AddressCount))
	PortUses(yield func([]conntrack.PortUser))
	Talking(remote conntrack.Remote, most int) (list []netip.Addr, few bool)
	Talks(inside netip.Addr, remote conntrack.Remote) bool
}

// A Backend answers the gRPC queries about a Manager, and carries out the
// orders of callers: lists, single views, deletions, settings, decisions about
// held removals. It implements the interfaces of package control, which
// document the errors. All methods may be called concurrently.
type Backend struct {
	shared     *sharedState
	store      backendStore
	kernel     backendKernel
	node       string
	readiness  *readiness
	reports    *reports
	settings   *liveSettings
	follower   *feedFollower
	served     *servedGroups
	reconciler *reconcile.Reconciler
	ports      *portWatch
	mappings   *mappingKeeper
	watches    *eventWatches
	configured func() []lsn.GroupConfig
}

// Backend returns the Manager's Backend.
func (m *Manager) Backend() *Backend { return m.backend }
