package subscriberdb

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/bindings"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/nases"
	"github.com/sessiond/sessiond/internal/subscriberdb/redisconn"
	"github.com/sessiond/sessiond/internal/subscriberdb/removals"
	"github.com/sessiond/sessiond/internal/subscriberdb/trail"
	"github.com/sessiond/sessiond/internal/subscriberdb/txn"
)

// Errors that callers check for.
var (
	ErrNoGroup  = errors.New("no such group")
	ErrNotFound = errors.New("no such record")
	// ErrFeedGap: the feed no longer has the entries behind the given one, or never had
	// that entry. The reader must compare everything.
	ErrFeedGap = errors.New("change feed does not reach back that far")
	// ErrSuspect: the marker is missing, so absent data may be lost rather than deleted
	// (I6).
	ErrSuspect = errors.New("database has lost its marker")
	// ErrConflict: other writers kept changing the same record.
	ErrConflict = txn.ErrConflict
)

// Defaults of Options.
const (
	defaultTombstoneTTL = 24 * time.Hour
	defaultTombstones   = 1_000_000
	tombstoneOctets     = 400_000_000 // of one client that is alone
	defaultFeedLength   = 30_000
	defaultFeedLimit    = 500_000
	defaultFeedOctets   = 256 << 20
	defaultCacheSize    = 131_072
)

// Options configure a DB.
type Options struct {
	Client       redis.UniversalClient                     // required; see redisconn.Dial
	Groups       []Group                                   // may be empty
	Clients      Realms                                    // see DB.SetClients; nil takes every name for a client without a realm
	NamedRealms  bool                                      // two clients report the same NASes only where Clients puts them into one realm
	Node         string                                    // name of this daemon, for logs
	TombstoneTTL time.Duration                             // time to live of tombstones; default 24 h
	Tombstones   int                                       // tombstones of one client with TombstoneTTL; further ones live 5 min; default 1 000 000
	FeedLength   int64                                     // about the number of entries that each feed keeps although all readers have read them; default 30 000
	FeedLimit    int64                                     // most entries of a feed whose readers are behind; default 500 000
	FeedOctets   int64                                     // about the most octets of such a feed; default 256 MiB
	CacheSize    int                                       // sessions in the cache, which saves reads; default 131 072
	OnVerdict    func(group string, v subscriber.Verdict)  // optional: gets the verdict on each event, with group "" where it is the same in all; called concurrently
	Refused      func(client string, v subscriber.Verdict) // optional: gets each event that changed nothing because of its contents; called concurrently
	Conflict     func(client string)                       // optional: called for an event with a name that several NASes use; called concurrently
	Garbage      func(group string, kind Garbage)          // optional: called for unusable data in Redis, each time it is read; called concurrently
	Limited      func(client string, b Bound)              // optional: called when a RADIUS client has used up its share; called concurrently
	Unwritten    func()                                    // optional: called for each change that is refused, as its audit entry cannot be written; called concurrently
	LogNAT       bool                                      // the NAT of the groups is logged, see bindings.Store.SaveLogged
	Logger       *slog.Logger                              // default: discard
	Now          func() time.Time                          // default: time.Now
}

// DB is the store of subscriber records. Its methods may be called concurrently, and the
// DBs of several daemons may share one Redis. Its methods are its own, those of its parts
// here, and those of a [nases.Store], a [removals.Watcher] and a [bindings.Store].
type DB struct {
	*shared
	*clientSet      // RADIUS clients and their limits
	*nasStore       // NASes
	*valueStore     // settings, and the single values of groups
	*keyTypes       // types of sessiond's keys
	*prober         // whether Redis can be used
	*changeFeed     // changes of records
	*recordReader   // records
	*recordWriter   // records written without an event
	*suspensions    // removals that a guard suspends
	*absences       // records that are not in Redis
	*removalWatcher // records that other programs remove
	*restartSweeper // sessions that restarts of NASes end
	*bindingStore   // bindings, see package bindings
	*mappingStore   // mappings that outlive their sessions
	*callerOrders   // audit entries about the changes that callers order

	txns      *txn.Engine
	nases     *nases.Registry
	reports   *eventReports
	onVerdict func(group string, v subscriber.Verdict)
}

// Parts of a DB from other packages. The aliases make the embedded fields unexported.
type (
	nasStore       = nases.Store
	bindingStore   = bindings.Store
	removalWatcher = removals.Watcher
)

// NAS describes one NAS from its accounting.
type NAS = nases.NAS

// NASName names a NAS.
type NASName = codec.NASName

// BindingRow is a binding as stored in Redis.
type BindingRow = bindings.Row

// BindingDigests stand for all stored bindings of a group.
type BindingDigests = bindings.Digests

// The log of a group's NAT.
type (
	LoggedWrite = bindings.LoggedWrite
	LogPosition = bindings.LogPosition
	LogState    = bindings.LogState
	LogFill     = bindings.LogFill
)

// Errors of readers of a NAT log.
var (
	ErrLogGap      = bindings.ErrLogGap
	ErrLogNotWhole = bindings.ErrLogNotWhole
)

// NewBindingDigests returns BindingDigests with room for n bindings.
func NewBindingDigests(n int) *BindingDigests { return bindings.NewDigests(n) }

// shared holds the dependencies that all parts of a DB have in common.
type shared struct {
	*groupSet
	*garbageReports
	client *redisconn.Client
	logger *slog.Logger
	now    func() time.Time
}

// New returns a DB. It does not talk to Redis yet.
func New(o Options) (*DB, error) {
	if o.Client == nil {
		return nil, errors.New("subscriberdb: Options.Client is required")
	}
	if o.TombstoneTTL < 0 || o.Tombstones < 0 || o.FeedLength < 0 || o.FeedLimit < 0 || o.FeedOctets < 0 || o.CacheSize < 0 {
		return nil, errors.New("subscriberdb: TombstoneTTL, Tombstones, FeedLength, FeedLimit, FeedOctets and CacheSize must not be negative")
	}
	o.setDefaults()
	db := assemble(&o)
	db.SetClients(o.Clients)
	if err := db.SetGroups(o.Groups); err != nil {
		return nil, fmt.Errorf("subscriberdb: %w", err)
	}
	return db, nil
}

// assemble creates the parts of a DB.
func assemble(o *Options) *DB {
	logger := o.Logger.With("node", o.Node)
	common := &shared{
		groupSet:       &groupSet{},
		garbageReports: &garbageReports{o.Garbage, newThrottles(slices.Values(GarbageKinds())), logger, o.Now},
		client:         redisconn.New(o.Client, scripts()...),
		logger:         logger,
		now:            o.Now,
	}
	reports := newEventReports(o, logger)
	clients := &clientSet{namedRealms: o.NamedRealms}
	known := nases.NewRegistry(clients.toldApart)
	feedLimit := max(o.FeedLimit, o.FeedLength)
	feed := &changeFeed{shared: common, length: o.FeedLength, limit: feedLimit, octets: o.FeedOctets}
	txns := txn.New(txn.Options{
		Client: common.client, FeedLimit: feedLimit,
		TombstoneTTL: o.TombstoneTTL, Tombstones: o.Tombstones, TombstoneOctets: tombstoneOctets,
		NASLife: nases.Life, CacheSize: o.CacheSize, Now: o.Now,
		KnowsNAS:  func(id subscriber.SessionID) bool { return known.Knows(codec.NASOf(id)) },
		Crowded:   func(client string) { reports.limit(client, BoundTombstones) },
		Exhausted: feed.renewFeed,
		Garbage:   common.found,
	})
	probe := &prober{common, txns, o.Node}
	feed.probe = probe
	reader := &recordReader{common, clients, &reports.reporters}
	orders := &callerOrders{trail.New(trail.Options{
		Client: common.client, Node: o.Node, Trails: common.GroupNames, Failed: o.Unwritten, Logger: logger, Now: o.Now,
	})}
	writer := &recordWriter{common, txns, feed, orders}
	guards := &restartGuards{}
	return &DB{
		shared: common, clientSet: clients, prober: probe, changeFeed: feed,
		nasStore: nases.NewStore(known, common.client, logger, o.Now), valueStore: &valueStore{common, orders.trails},
		mappingStore: &mappingStore{common, orders.trails}, callerOrders: orders, keyTypes: &keyTypes{common},
		recordReader: reader, recordWriter: writer, absences: &absences{common, feed, txns, o.TombstoneTTL},
		suspensions: &suspensions{common, reader, writer, guards},
		removalWatcher: removals.New(removals.Options{
			Client: common.client, Groups: common.GroupNames, Gone: reader.Gone, Severity: probe.severity, Logger: logger,
		}),
		restartSweeper: &restartSweeper{common, known, reader, writer, probe, guards, make(chan struct{}, 1)},
		bindingStore: bindings.New(bindings.Options{
			Client: common.client, Groups: common.GroupNames, Log: o.LogNAT, Logger: logger, Now: o.Now,
		}),
		txns: txns, nases: known, reports: reports, onVerdict: o.OnVerdict,
	}
}

func (o *Options) setDefaults() {
	if o.TombstoneTTL == 0 {
		o.TombstoneTTL = defaultTombstoneTTL
	}
	if o.Tombstones == 0 {
		o.Tombstones = defaultTombstones
	}
	if o.FeedLength == 0 {
		o.FeedLength = defaultFeedLength
	}
	if o.FeedLimit == 0 {
		o.FeedLimit = defaultFeedLimit
	}
	if o.FeedOctets == 0 {
		o.FeedOctets = defaultFeedOctets
	}
	if o.CacheSize == 0 {
		o.CacheSize = defaultCacheSize
	}
	if o.OnVerdict == nil {
		o.OnVerdict = func(string, subscriber.Verdict) {}
	}
	if o.Refused == nil {
		o.Refused = func(string, subscriber.Verdict) {}
	}
	if o.Conflict == nil {
		o.Conflict = func(string) {}
	}
	if o.Garbage == nil {
		o.Garbage = func(string, Garbage) {}
	}
	if o.Limited == nil {
		o.Limited = func(string, Bound) {}
	}
	if o.Unwritten == nil {
		o.Unwritten = func() {}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
}

// scripts returns all scripts that a server has to load. Those that free memory, or must
// not fail when memory is short, begin with a command that is never refused: see package
// txn.
func scripts() []*redis.Script {
	general, fast := txn.Scripts()
	fast = slices.Concat(fast, txn.RecordedScripts(), trail.Scripts(), bindings.Scripts(), nases.Scripts())
	return append([]*redis.Script{
		general, announceScript, sweptScript, forgetScript.Plain(), forgetScript.Recorded(),
		ownerScript, positionScript, trimScript, aheadScript, renewScript, discardScript, discardTextScript,
	}, fast...)
}
