package subscriberdb

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/redisconn"
	"github.com/sessiond/sessiond/internal/throttle"
)

// What callers decide on.
var (
	ErrNoGroup  = errors.New("no such group")
	ErrNotFound = errors.New("no such record")
	// ErrFeedGap: the feed no longer holds what followed the given entry, or
	// never had that entry: the reader must compare everything.
	ErrFeedGap = errors.New("change feed does not reach back that far")
	// ErrSuspect: the marker is missing, so what is absent may be lost rather
	// than deleted (I6).
	ErrSuspect = errors.New("database has lost its marker")
	// ErrConflict: somebody else kept changing what was to be changed.
	ErrConflict = errors.New("record kept changing under the update")
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
	Clients      Realms                                    // see DB.SetClients; nil takes every name for a client's
	NamedRealms  bool                                      // two clients report the same NASes only where Clients gives them one realm
	Node         string                                    // name of this daemon, for logs
	TombstoneTTL time.Duration                             // how long an ended session is remembered; default 24 h
	Tombstones   int                                       // ended sessions of one client remembered for so long; more are forgotten after 5 min; default 1 000 000
	FeedLength   int64                                     // entries kept in each feed, about, that everybody has read; default 30 000
	FeedLimit    int64                                     // entries that a feed may grow to for who has not read them; default 500 000
	FeedOctets   int64                                     // octets that it may grow to, about; default 256 MiB
	CacheSize    int                                       // sessions whose last state is kept to save a read; default 131 072
	Observe      func(group string, v subscriber.Verdict)  // optional: what each event came to, group "" where that is the same in all; called concurrently
	Refused      func(client string, v subscriber.Verdict) // optional: events that changed nothing because of what they said, by RADIUS client; called concurrently
	Conflict     func(client string)                       // optional: a NAS name that several NASes have was heard through the client; called concurrently
	Garbage      func(group string, kind Garbage)          // optional: what stands in Redis and cannot be used, each time it is met; called concurrently
	Limited      func(client string, b Bound)              // optional: what a RADIUS client told found no room; called concurrently
	Logger       *slog.Logger                              // default: discard
	Now          func() time.Time                          // default: time.Now
}

// DB is the store. Its methods may be called concurrently, and several DBs of
// several daemons may share one Redis.
type DB struct {
	client       *redisconn.Client
	notices      serverNotices
	namedRealms  bool // two clients are of one realm by its name only
	node         string
	groups       atomic.Pointer[groupTable]
	regrouping   sync.Mutex // one change of groups at a time
	tombstoneTTL time.Duration
	tombstones   tombstoneBudget
	feedLength   int64 // entries that are kept for whoever looks back
	feedLimit    int64 // entries that are kept for who has not read them
	feedOctets   int64 // what these may take
	feeds        feedStates
	cache        *cache
	courier      committer
	generalOnly  bool        // all commits go through commitScript: so a test compares both ways
	moved        movedGroups // whose bindings are where they belong
	nases        *nasRegistry
	observe      func(string, subscriber.Verdict)
	refused      func(string, subscriber.Verdict)
	logger       *slog.Logger
	now          func() time.Time
	restarted    chan struct{} // tells SweepRestarts of a new restart; holds one
	guards       restartGuards
	foreign      throttles[subscriber.Verdict]
	addresses    nasAddresses
	clients      atomic.Pointer[knownClients] // see SetClients; nil for none
	places       atomic.Pointer[places]       // see SetPlaces; nil for no limits
	conflict     func(string)
	conflictLog  *throttle.Throttle
	limited      func(string, Bound)
	limitLogs    throttles[Bound]
	garbage      func(string, Garbage)
	garbageLogs  throttles[Garbage]
	uniteLog     *throttle.Throttle
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
	db := &DB{
		client:       redisconn.New(o.Client, scripts...),
		namedRealms:  o.NamedRealms,
		node:         o.Node,
		tombstoneTTL: o.TombstoneTTL,
		tombstones:   newTombstones(o.TombstoneTTL, o.Tombstones, tombstoneOctets),
		feedLength:   o.FeedLength,
		feedLimit:    max(o.FeedLimit, o.FeedLength),
		feedOctets:   o.FeedOctets,
		cache:        newCache(o.CacheSize),
		nases:        newNASRegistry(),
		observe:      o.Observe,
		refused:      o.Refused,
		conflict:     o.Conflict,
		limited:      o.Limited,
		conflictLog:  newThrottle(),
		limitLogs:    newThrottles(slices.Values(Bounds())),
		garbage:      o.Garbage,
		garbageLogs:  newThrottles(slices.Values(GarbageKinds())),
		uniteLog:     newThrottle(),
		logger:       o.Logger.With("node", o.Node),
		now:          o.Now,
		restarted:    make(chan struct{}, 1),
		foreign:      newThrottles(maps.Keys(foreignEvents)),
	}
	db.courier.trip = db.execute
	db.nases.toldApart = db.toldApart
	db.SetClients(o.Clients)
	if err := db.SetGroups(o.Groups); err != nil {
		return nil, fmt.Errorf("subscriberdb: %w", err)
	}
	return db, nil
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
	if o.Observe == nil {
		o.Observe = func(string, subscriber.Verdict) {}
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
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
}
