package control

import (
	"context"
	"io"
	"iter"
	"net/netip"
	"time"

	"github.com/sessiond/sessiond/internal/audit"
	"github.com/sessiond/sessiond/internal/history"
	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// Subscribers is the backend of SubscriberService: it reads, changes and
// watches online subscribers. Errors wrap those of package inspect; until all
// state is restored after a start they are ErrNotReady. All methods may be
// called concurrently.
type Subscribers interface {
	// Subscriber returns one subscriber. With an empty Group the address determines
	// the group. ErrNotFound, ErrNoGroup.
	Subscriber(ctx context.Context, key subscriber.Key) (inspect.Subscriber, error)

	// Subscribers returns up to limit subscribers that match, in the order of
	// inspect.CompareKeys, after the key after (zero: from the first). Next is the
	// key to continue after, zero at the end. A page may be shorter than limit, or
	// empty, before the end, because a call examines a bounded number.
	Subscribers(ctx context.Context, f inspect.SubscriberFilter, after subscriber.Key, limit int) (page []inspect.Subscriber, next subscriber.Key, err error)

	// SubscribersByName is Subscribers in the order of User-Names, and of inside
	// addresses where these are equal. Subscribers without a name are left out.
	SubscribersByName(ctx context.Context, f inspect.SubscriberFilter, after inspect.NameKey, limit int) (page []inspect.Subscriber, next inspect.NameKey, err error)

	// SubscriberTotal returns the number of subscribers that match, if it is counted
	// anyway.
	SubscriberTotal(ctx context.Context, f inspect.SubscriberFilter) (total int, counted bool)

	// Put creates or replaces a record by hand and returns it as stored, once the
	// engine has applied it or a bounded time is over. With an empty Group the
	// address determines the group. A Version is that of the record to replace.
	// ErrNoGroup, ErrConflict, ErrUnavailable.
	Put(ctx context.Context, r subscriber.Record) (subscriber.Record, error)

	// Delete deletes the records that match and returns them as they last were. No
	// match is no error. The teardown follows from the deletions. ErrUnavailable,
	// possibly after some deletions: these are returned too.
	Delete(ctx context.Context, f inspect.SubscriberFilter) ([]subscriber.Record, error)

	// DeleteVersion deletes the record of one subscriber, if it still has the version, and
	// returns it as it last was. ErrNotFound, ErrConflict, ErrNoGroup, ErrUnavailable.
	DeleteVersion(ctx context.Context, key subscriber.Key, version string) (subscriber.Record, error)

	// Watch returns the events that match from now on, or behind a position: of the kinds of
	// inspect.RecordKinds also if another run of the daemon gave the position out. It never
	// makes the engine wait. The sequence ends without error when the daemon stops. With gaps
	// or progress it begins with a message that has only a position, or a gap at its begin.
	// ErrListAgain, also within the sequence, where events are lost and w does not ask for
	// gaps; ErrLagging within it for a slow reader. Behind a position: ErrNotReady,
	// ErrUnavailable.
	Watch(ctx context.Context, w inspect.Watch) (iter.Seq2[inspect.Message, error], error)
}

// Nat is the backend of NatService: bindings and pools. Bindings returns
// ErrNotReady until all state is restored after a start.
type Nat interface {
	// Bindings returns up to limit bindings that match, including held ones, in the
	// order of inspect.BindingKey.Compare, after the key after (zero: from the
	// first). Next is as in Subscribers.
	Bindings(ctx context.Context, f inspect.BindingFilter, after inspect.BindingKey, limit int) (page []inspect.Binding, next inspect.BindingKey, err error)

	// BindingTotal returns the number of bindings that match, if it is counted anyway.
	BindingTotal(ctx context.Context, f inspect.BindingFilter) (total int, counted bool)

	// LookupOutside returns the binding that has, or had at the given time, this
	// outside port. A zero time means now. ErrNotFound if the port had no binding,
	// ErrNotCovered if the present state does not reach back to that time.
	LookupOutside(ctx context.Context, outside netip.Addr, port nat.Port, at time.Time) (inspect.Binding, error)

	// Pools returns the block counts of every outside prefix, by group and prefix.
	Pools(ctx context.Context) ([]inspect.Pool, error)

	// AddPool makes a configured group (empty: the only one) give the blocks of an outside
	// prefix, and returns the pools there. ErrNotFound: no such group. ErrPoolConflict,
	// ErrNotReady, ErrUnavailable: nothing was changed.
	AddPool(ctx context.Context, group string, outside netip.Prefix) ([]inspect.Pool, error)

	// DrainPool makes a group (empty: the one that has it) give no more blocks of an
	// outside prefix or a part of one. ErrNotFound: it does not have it; otherwise as
	// AddPool.
	DrainPool(ctx context.Context, group string, outside netip.Prefix) ([]inspect.Pool, error)

	// RemovePool takes an outside prefix or a part of one away from a group, and returns
	// the number of live bindings that are being cut. Without cut a prefix with live
	// bindings is refused with LiveBindingsError. Otherwise as DrainPool.
	RemovePool(ctx context.Context, group string, outside netip.Prefix, cut bool) ([]inspect.Pool, int, error)

	// Drops returns the counts of packets that did not pass, of every reason and
	// direction, in the order of nat.Drops.
	Drops(ctx context.Context) ([]nat.DropCount, error)

	// PortUse returns the ports in use in every group and pool, by group.
	PortUse(ctx context.Context) ([]inspect.PortUse, error)

	// AdviseBlockSize returns, for one group or with an empty name for all, the
	// outcomes of block sizes, and which to take for at most the target share of
	// bindings that overflow. ErrNotFound if no group with the name is configured.
	AdviseBlockSize(ctx context.Context, group string, target float64) ([]inspect.BlockSizes, error)
}

// Sessions is the backend of SessionService: the conntrack entries of
// subscribers.
type Sessions interface {
	// Sessions calls yield for every matching session, in no particular order. It
	// stops at yield's first error, and returns that.
	Sessions(ctx context.Context, f inspect.SessionFilter, yield func(inspect.Session) error) error

	// CountSessions counts the matching sessions.
	CountSessions(ctx context.Context, f inspect.SessionFilter) (int, error)

	// TerminateSessions deletes the matching sessions and returns their number. The
	// subscribers keep their bindings, and may begin new sessions.
	TerminateSessions(ctx context.Context, f inspect.SessionFilter) (int, error)
}

// Controls is the backend of ControlService: settings, status, reconcile.
type Controls interface {
	// Settings returns the live settings.
	Settings(ctx context.Context) (inspect.Settings, error)

	// UpdateSettings stores and applies the named settings (inspect.SettingNames)
	// of s and returns all settings after the change. ErrUnavailable.
	UpdateSettings(ctx context.Context, s inspect.Settings, names []string) (inspect.Settings, error)

	// Status returns a summary of the daemon's state. It works even when all other
	// methods fail.
	Status(ctx context.Context) (inspect.Status, error)

	// Reconcile compares Redis, engine and kernel in full, repairs the differences
	// unless dryRun, and returns them.
	Reconcile(ctx context.Context, dryRun bool) ([]inspect.Drift, error)
}

// Removals is the backend of RemovalService: pending removals, and the decision
// about those that a guard suspends. All methods return ErrNotReady until all
// state is restored after a start.
type Removals interface {
	// Removals returns up to limit removals that match, in the order of
	// inspect.RemovalKey.Compare, after the key after (zero: from the first). Next
	// is as in Subscribers.
	Removals(ctx context.Context, f inspect.RemovalFilter, after inspect.RemovalKey, limit int) (page []inspect.Removal, next inspect.RemovalKey, err error)

	// ConfirmRemovals executes the suspended removals that match, and returns their
	// number. With the etag of PreviewRemovals it is about those that had it: ErrConflict if
	// others match by now. ErrUnavailable, possibly after some were executed.
	ConfirmRemovals(ctx context.Context, f inspect.RemovalFilter, etag string) (int, error)

	// RefuseRemovals drops the suspended removals that match, and returns their
	// number. An etag is as in ConfirmRemovals. ErrUnavailable, possibly after some were dropped.
	RefuseRemovals(ctx context.Context, f inspect.RemovalFilter, etag string) (int, error)
}

// Mappings is the backend of MappingService: the mappings that outlive their sessions. All
// methods return ErrNotReady until all state is restored after a start.
type Mappings interface {
	// CreateMapping makes a mapping, for a lifetime if that is not 0, and chooses its outside
	// endpoint unless it has one. Its errors are those of package inspect, and ErrNotFound
	// for an unknown group, ErrNoGroup where the group has to be named, ErrUnavailable.
	CreateMapping(ctx context.Context, m nat.Mapping, lifetime time.Duration) (inspect.Mapping, error)

	// DeleteMapping ends the mapping of an outside endpoint, in a group or with an empty name
	// in any, and returns the number of its sessions that were ended. ErrNotFound,
	// ErrMappingConfigured, ErrUnavailable.
	DeleteMapping(ctx context.Context, group string, outside nat.Endpoint) (inspect.Mapping, int, error)

	// Mappings returns up to limit mappings that match, in the order of
	// inspect.MappingKey.Compare, after the key after (zero: from the first). Next is as in
	// Subscribers.
	Mappings(ctx context.Context, f inspect.MappingFilter, after inspect.MappingKey, limit int) (page []inspect.Mapping, next inspect.MappingKey, err error)

	// MappingsAt returns the mappings of an outside port at a time, zero for now.
	MappingsAt(ctx context.Context, outside netip.AddrPort, at time.Time) ([]inspect.Mapping, error)
}

// NASes is the backend of NasService: the NASes, as known from their
// accounting.
type NASes interface {
	// NASes returns up to limit NASes that match, in the order of
	// inspect.NASKey.Compare, after the key after (zero: from the first).
	// ErrNotReady until all state is restored after a start; ErrUnavailable.
	NASes(ctx context.Context, f inspect.NASFilter, after inspect.NASKey, limit int) ([]inspect.NAS, error)
}

// Desk is the backend of DeskService. All methods return ErrNotReady until all state is
// restored after a start.
type Desk interface {
	// Explain returns everything about a customer, for each of its inside addresses.
	// ErrNotFound where nothing is known, ErrNoGroup.
	Explain(ctx context.Context, who inspect.Customer) ([]inspect.Explanation, error)

	// Endings returns up to limit endings that match, the latest first, with numbers below
	// before; 0 for all.
	Endings(ctx context.Context, f inspect.EndingFilter, before uint64, limit int) (inspect.Endings, error)

	// Top returns the busiest subscribers, the busiest first.
	Top(ctx context.Context, q inspect.TopQuery) ([]inspect.Top, error)
}

// Audits is the backend of AuditService, and remembers the requests of callers.
type Audits interface {
	// ListAudit returns up to limit entries that match, newest first, after a place (zero:
	// from the newest), and names the trails that it cannot read. ErrUnavailable if it can
	// read none.
	ListAudit(ctx context.Context, f audit.Filter, after audit.Place, limit int) (audit.Page, error)

	// VerifyAudit checks one trail, or with an empty name all. ErrNotFound, ErrUnavailable.
	VerifyAudit(ctx context.Context, trail string) ([]audit.Verified, error)

	// Ordered carries out the order of the context, to something that is not in Redis, between
	// its two audit entries. carryOut returns the number of subjects, with an error too.
	// audit.ErrUnwritten: it was not carried out.
	Ordered(ctx context.Context, entry func(*audit.Entry), carryOut func() (int, error)) (int, error)

	// BeginRequest remembers a request for 15 minutes, across restarts, and returns the
	// knowledge from before. ErrUnavailable.
	BeginRequest(ctx context.Context, r audit.Request) (audit.Remembered, error)

	// EndRequest stores the outcome of a request.
	EndRequest(ctx context.Context, r audit.Request, answer []byte) error

	// ForgetRequest forgets a request that changed nothing.
	ForgetRequest(ctx context.Context, r audit.Request) error
}

// History is the backend of HistoryService, and of lookups in the past. Its methods are those of
// history.Store.
type History interface {
	LookupOutside(q history.Question) (history.Answer, error)
	ListHolders(group string, outside netip.Addr, at time.Time, page string, size int) (history.Candidates, error)
	ListRecords(f history.Filter, page string, size int) (list []history.Record, next string, err error)
	Complete(r history.Record) (history.Record, error)
	Prove(r history.Record) ([]byte, error)
	Groups() []string
	Progress(group string) (p history.Progress, ok bool)
	Verify(ctx context.Context, group string, known ...string) ([]history.Verified, error)
	Backup(w io.Writer) error
	Erase(user string) (int, error)

	// PublicKey returns the key by which checkpoints and proofs are verified.
	PublicKey() string
}

// Previews is the backend of calls with validate_only: it changes nothing, and returns the
// outcome that the call would have, with the errors that it would have.
type Previews interface {
	// PreviewPut returns the number of subscribers that would lose the record's address, and
	// of their conntrack entries.
	PreviewPut(ctx context.Context, r subscriber.Record) (subscribers, sessions int, err error)

	// PreviewDelete returns up to most of the subscribers that Delete would end, the number of
	// all, and of their
	// conntrack entries.
	PreviewDelete(ctx context.Context, f inspect.SubscriberFilter, most int) (records []subscriber.Record, all, sessions int, err error)

	// PreviewRemovals returns the number of suspended removals that a decision is about, that of
	// the conntrack entries of their subscribers, and the etag of the removals.
	PreviewRemovals(ctx context.Context, f inspect.RemovalFilter) (removals, sessions int, etag string, err error)

	// PreviewSettings returns the settings after UpdateSettings, and the number of draining
	// bindings that would be cut, with their conntrack entries.
	PreviewSettings(ctx context.Context, s inspect.Settings, names []string) (after inspect.Settings, bindings, sessions int, err error)

	// PreviewAddPool and PreviewDrainPool return the pools in the prefix, as they are.
	PreviewAddPool(ctx context.Context, group string, outside netip.Prefix) ([]inspect.Pool, error)
	PreviewDrainPool(ctx context.Context, group string, outside netip.Prefix) ([]inspect.Pool, error)

	// PreviewRemovePool does so too, with the number of bindings that would be cut, and of
	// their conntrack entries.
	PreviewRemovePool(ctx context.Context, group string, outside netip.Prefix, cut bool) (pools []inspect.Pool, bindings, sessions int, err error)

	// PreviewMapping returns the mapping that CreateMapping would make.
	PreviewMapping(ctx context.Context, m nat.Mapping, lifetime time.Duration) (inspect.Mapping, error)

	// PreviewMappingEnd returns the mapping that DeleteMapping would end, and the number of
	// conntrack entries through it.
	PreviewMappingEnd(ctx context.Context, group string, outside nat.Endpoint) (view inspect.Mapping, sessions int, err error)
}
