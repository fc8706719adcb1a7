package metrics

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/portuse"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// seconds are the buckets of all durations: from a hundred microseconds to ten
// seconds.
var seconds = []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}

// Metrics holds sessiond's metrics. Its methods may be called concurrently.
type Metrics struct {
	registry *prometheus.Registry

	radiusRequests *prometheus.CounterVec
	radiusResponse prometheus.Histogram
	radsec         radsecConnections
	removals       *prometheus.CounterVec
	growths        *prometheus.CounterVec
	wouldRemove    *prometheus.CounterVec
	wouldEnd       *prometheus.CounterVec
	stopToCut      prometheus.Histogram
	stopToReaped   prometheus.Histogram
	drift          *prometheus.CounterVec
	looked         *prometheus.GaugeVec
	verdicts       *prometheus.CounterVec
	refused        *prometheus.CounterVec
	reloadGood     prometheus.Gauge
	reloadTime     prometheus.Gauge
	nasConflicts   *prometheus.CounterVec
	bounds         *prometheus.CounterVec
	garbage        *prometheus.CounterVec
	limits         *prometheus.CounterVec
	calls          *Calls
	audit          auditCounters

	// Caches for the counters that every accounting request and every removal needs.
	requestsBy *counterCache[Outcome]
	removalsBy *counterCache[subscriber.Reason]
	verdictsBy *counterCache[subscriber.Verdict]
}

// radsecConnections are the metrics of RadSec connections.
type radsecConnections struct {
	open            *prometheus.GaugeVec
	closed, refused *prometheus.CounterVec
}

// New returns the metrics of a sessiond of the given version.
func New(version string) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		calls:    newCalls(),
		audit:    newAuditCounters(),
		radiusRequests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sessiond_radius_requests_total",
			Help: "RADIUS packets received, by configured client, kind of request and result (RFC 4671).",
		}, []string{"client", "type", "result"}),
		radiusResponse: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "sessiond_radius_response_seconds",
			Help:    "Time from the receipt of an accounting request to its reply.",
			Buckets: seconds,
		}),
		radsec: radsecConnections{
			open: prometheus.NewGaugeVec(prometheus.GaugeOpts{
				Name: "sessiond_radsec_connections",
				Help: "RadSec connections that are open, by client.",
			}, []string{"client"}),
			closed: prometheus.NewCounterVec(prometheus.CounterOpts{
				Name: "sessiond_radsec_connections_closed_total",
				Help: "RadSec connections that ended, by client and cause.",
			}, []string{"client", "cause"}),
			refused: prometheus.NewCounterVec(prometheus.CounterOpts{
				Name: "sessiond_radsec_connections_refused_total",
				Help: "RadSec connections that were not served, by client (empty: unknown) and cause.",
			}, []string{"client", "cause"}),
		},
		removals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sessiond_removals_total",
			Help: "Bindings torn down and proved to be gone, by group and by why the record ended.",
		}, []string{"group", "reason"}),
		growths: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sessiond_growths_total",
			Help: "Port blocks that subscribers at three quarters of their ports got, gave back, or were refused (once a minute each), by group and by result.",
		}, []string{"group", "result"}),
		wouldRemove: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sessiond_removals_observed_total",
			Help: "Removals that subscriber_session_removal=on would have carried out where it is observe, by group and by why the record ended.",
		}, []string{"group", "reason"}),
		wouldEnd: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sessiond_sessions_observed_total",
			Help: "Conntrack entries that the observed removals would have deleted, by group.",
		}, []string{"group"}),
		stopToCut: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "sessiond_stop_to_cut_seconds",
			Help:    "Time from the deletion of a record to the closing of its gate.",
			Buckets: seconds,
		}),
		stopToReaped: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "sessiond_stop_to_reaped_seconds",
			Help:    "Time from the deletion of a record to the proof that no conntrack entry is left.",
			Buckets: seconds,
		}),
		looked: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "sessiond_reconcile_duration_seconds",
			Help: "How long the newest look at all groups took, at its bounded rate, by what it looked at.",
		}, []string{"look"}),
		drift: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sessiond_drift_total",
			Help: "Differences between Redis, engine and kernel that were found and mended, by kind.",
		}, []string{"kind"}),
		verdicts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sessiond_accounting_verdicts_total",
			Help: "What accounting events came to, by group (empty: the same in all) and verdict.",
		}, []string{"group", "verdict"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sessiond_accounting_refused_total",
			Help: "Accounting events that changed nothing because of what they said, by RADIUS client and verdict.",
		}, []string{"client", "verdict"}),
		reloadGood: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sessiond_config_last_reload_successful",
			Help: "1 if the newest reading of the configuration, the start's included, was taken, 0 if it was refused.",
		}),
		reloadTime: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sessiond_config_last_reload_timestamp_seconds",
			Help: "When the configuration was read last, whether it was taken or refused.",
		}),
		garbage: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sessiond_database_garbage_total",
			Help: "Times that something in Redis could not be used and was left out, by group and where it stands.",
		}, []string{"group", "kind"}),
		limits: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sessiond_limit_reached_total",
			Help: "Subscribers that were refused new sessions at a limit of their group, counted once a minute each, by group and limit.",
		}, []string{"group", "limit"}),
		bounds: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sessiond_accounting_bounds_reached_total",
			Help: "Accounting events that found no room in what a RADIUS client may take of Redis and of memory, by bound.",
		}, []string{"client", "bound"}),
		nasConflicts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sessiond_nas_conflicts_total",
			Help: "Events whose NAS has the name of another one at another address, by client.",
		}, []string{"client"}),
	}
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "sessiond_build_info",
		Help: "Always 1; the version is the label.",
	}, []string{"version"})
	build.WithLabelValues(version).Set(1)
	m.registry.MustRegister(m.radiusRequests, m.radiusResponse,
		m.radsec.open, m.radsec.closed, m.radsec.refused, m.removals, m.growths, m.wouldRemove, m.wouldEnd, m.stopToCut, m.stopToReaped,
		m.drift, m.looked, m.verdicts, m.refused, m.nasConflicts, m.bounds, m.garbage, m.limits, m.reloadGood, m.reloadTime, m.audit.unwritten, m.audit.lost, m.audit.gaps, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.registry.MustRegister(m.calls.all()...)
	m.requestsBy = newCounterCache(func(client string, o Outcome) prometheus.Counter {
		return m.radiusRequests.WithLabelValues(client, o.Kind, o.Result)
	})
	m.removalsBy = newCounterCache(func(group string, why subscriber.Reason) prometheus.Counter {
		return m.removals.WithLabelValues(group, reasonLabel(why))
	})
	m.verdictsBy = newCounterCache(func(group string, v subscriber.Verdict) prometheus.Counter {
		return m.verdicts.WithLabelValues(group, v.String())
	})
	return m
}

// Series that exist from the start.

// Expected lists the label values that are known in advance.
type Expected struct {
	Groups   []string  // the configured groups
	Clients  []string  // the configured clients
	Outcomes []Outcome // possible outcomes of a client's requests

	RadSec   []string // clients that may connect by RadSec
	Closings []string // causes of the end of their connections
	Limit    string   // cause of a refused connection of a known client

	Strangers []Outcome // possible outcomes of requests of unknown clients
	Refusals  []string  // causes of refused connections of unknown clients; empty without RadSec
	Bounds    []string  // resources of which a client has a bounded share
	Garbage   []string  // kinds of garbage in the database

	Streams      []string // streaming methods of gRPC
	StreamEnds   []string // reasons of their end
	CallRefusals []string // causes of refused gRPC connections and streams
	CallClosings []string // causes of the end of gRPC connections
}

// Outcome is a kind of request with its result.
type Outcome struct {
	Kind, Result string
}

// Expect creates the counters of the expected label values, at 0 if they are
// new. If a series began at 1, an alarm on its increase would miss the first
// event. Existing counters keep their values.
func (m *Metrics) Expect(e Expected) {
	for _, kind := range inspect.DriftKinds() {
		m.drift.WithLabelValues(string(kind))
	}
	for _, look := range inspect.Looks() {
		m.looked.WithLabelValues(string(look))
	}
	for _, group := range e.Groups {
		m.wouldEnd.WithLabelValues(group)
		for l := range nat.LimitCount {
			m.limits.WithLabelValues(group, l.String())
		}
		for _, how := range inspect.Growths {
			m.growths.WithLabelValues(group, string(how))
		}
		for _, kind := range e.Garbage {
			m.garbage.WithLabelValues(group, kind)
		}
		for _, why := range subscriber.Reasons() {
			m.removals.WithLabelValues(group, reasonLabel(why))
			m.wouldRemove.WithLabelValues(group, reasonLabel(why))
		}
	}
	for _, group := range append([]string{everyGroup, noGroup}, e.Groups...) {
		for _, v := range subscriber.Verdicts() {
			m.verdicts.WithLabelValues(group, v.String())
		}
	}
	m.expectRefusals(e.Clients, e.Bounds)
	m.expectRequests(e.Clients, e.Outcomes)
	m.expectRequests([]string{nobody}, e.Strangers)
	for _, client := range e.RadSec {
		m.radsec.open.WithLabelValues(client)
		m.radsec.refused.WithLabelValues(client, e.Limit)
		for _, cause := range e.Closings {
			m.radsec.closed.WithLabelValues(client, cause)
		}
	}
	for _, cause := range e.Refusals {
		m.radsec.refused.WithLabelValues(nobody, cause)
	}
	m.calls.expect(&e)
}

// Calls returns the metrics of the control plane's connections and streams.
func (m *Metrics) Calls() *Calls { return m.calls }

// Labels that name no configured group or client.
const (
	everyGroup = ""  // the verdict is the same in all groups
	noGroup    = "_" // sessions without an address of any group
	nobody     = ""  // no configured client
)

func (m *Metrics) expectRequests(clients []string, outcomes []Outcome) {
	for _, client := range clients {
		for _, o := range outcomes {
			m.radiusRequests.WithLabelValues(client, o.Kind, o.Result)
		}
	}
}

func (m *Metrics) expectRefusals(clients, bounds []string) {
	for _, client := range clients {
		m.nasConflicts.WithLabelValues(client)
		for _, b := range bounds {
			m.bounds.WithLabelValues(client, b)
		}
		for _, v := range subscriber.Verdicts() {
			if v.Refused() {
				m.refused.WithLabelValues(client, v.String())
			}
		}
	}
}

func reasonLabel(why subscriber.Reason) string { return strings.ToLower(why.String()) }

// Watch adds the metrics that are read from the source at each scrape.
func (m *Metrics) Watch(s Source) { m.registry.MustRegister(collector{s}) }

// Handler serves the metrics.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// Counters and histograms: a method for each.

// Request counts one RADIUS packet; took is zero when it was not answered.
func (m *Metrics) Request(client, kind, result string, took time.Duration) {
	m.requestsBy.of(client, Outcome{kind, result}).Inc()
	if took > 0 {
		m.radiusResponse.Observe(took.Seconds())
	}
}

// ConnectionOpened counts a new RadSec connection.
func (m *Metrics) ConnectionOpened(client string) { m.radsec.open.WithLabelValues(client).Inc() }

// ConnectionClosed counts the end of a RadSec connection.
func (m *Metrics) ConnectionClosed(client, cause string) {
	m.radsec.open.WithLabelValues(client).Dec()
	m.radsec.closed.WithLabelValues(client, cause).Inc()
}

// ConnectionRefused counts one RadSec connection that was not served.
func (m *Metrics) ConnectionRefused(client, cause string) {
	m.radsec.refused.WithLabelValues(client, cause).Inc()
}

// Removed counts one binding that was torn down.
func (m *Metrics) Removed(group string, why subscriber.Reason) {
	m.removalsBy.of(group, why).Inc()
}

// Resized counts a subscriber that has a block more or less, or was refused one.
func (m *Metrics) Resized(group string, how inspect.Growth) {
	m.growths.WithLabelValues(group, string(how)).Inc()
}

// Observed counts one removal that was only observed, and the conntrack entries
// that it would have ended.
func (m *Metrics) Observed(group string, why subscriber.Reason, sessions int) {
	m.wouldRemove.WithLabelValues(group, reasonLabel(why)).Inc()
	m.wouldEnd.WithLabelValues(group).Add(float64(sessions))
}

// StopToCut observes the time from a record's deletion until no packet passed.
func (m *Metrics) StopToCut(d time.Duration) { m.stopToCut.Observe(max(0, d.Seconds())) }

// StopToReaped observes the time from a record's deletion to the proof that no
// conntrack entry is left.
func (m *Metrics) StopToReaped(d time.Duration) { m.stopToReaped.Observe(max(0, d.Seconds())) }

// Reloaded notes that the configuration was read, and whether it was accepted.
func (m *Metrics) Reloaded(taken bool, at time.Time) {
	m.reloadGood.Set(float64(number(taken)))
	m.reloadTime.Set(float64(at.UnixMilli()) / 1000)
}

// Looked notes the duration of a comparison of all groups, including its
// pauses.
func (m *Metrics) Looked(look inspect.Look, took time.Duration) {
	m.looked.WithLabelValues(string(look)).Set(took.Seconds())
}

// Drift counts one difference.
func (m *Metrics) Drift(kind string) { m.drift.WithLabelValues(kind).Inc() }

// Verdict counts the verdict of one accounting event.
func (m *Metrics) Verdict(group string, v subscriber.Verdict) {
	m.verdictsBy.of(group, v).Inc()
}

// Refused counts one accounting event that changed nothing because of its
// content.
func (m *Metrics) Refused(client string, v subscriber.Verdict) {
	m.refused.WithLabelValues(client, v.String()).Inc()
}

// Garbage counts one unusable value in the database.
func (m *Metrics) Garbage(group, kind string) { m.garbage.WithLabelValues(group, kind).Inc() }

// LimitReached counts one subscriber that was refused new sessions at a limit in
// a minute.
func (m *Metrics) LimitReached(group string, l nat.Limit) {
	m.limits.WithLabelValues(group, l.String()).Inc()
}

// BoundReached counts one event beyond a client's share.
func (m *Metrics) BoundReached(client, bound string) { m.bounds.WithLabelValues(client, bound).Inc() }

// NASConflict counts one event that shows that several NASes have the same
// name.
func (m *Metrics) NASConflict(client string) { m.nasConflicts.WithLabelValues(client).Inc() }

// Counters of frequent events, found faster.

// A counterCache keeps the counters of a vector that have counted something, by the name of a
// group or client and by K, which stands for the further labels and has few values. A look-up
// in the vector hashes the texts of all labels and locks: it takes 63 ns, this takes 12
// (BenchmarkVerdict).
type counterCache[K comparable] struct {
	lookUp func(name string, key K) prometheus.Counter // in the vector, which creates the series

	mu    sync.Mutex // held to add
	known atomic.Pointer[map[string]*counterList[K]]
}

// A counterList is the counters of one name, in the order in which they were used first. It is
// replaced as a whole.
type counterList[K comparable] struct {
	atomic.Pointer[[]knownCounter[K]]
}

type knownCounter[K comparable] struct {
	key     K
	counter prometheus.Counter
}

func newCounterCache[K comparable](lookUp func(name string, key K) prometheus.Counter) *counterCache[K] {
	c := &counterCache[K]{lookUp: lookUp}
	c.known.Store(&map[string]*counterList[K]{})
	return c
}

// of returns a counter.
func (c *counterCache[K]) of(name string, key K) prometheus.Counter {
	if list := (*c.known.Load())[name]; list != nil {
		for _, k := range *list.Load() {
			if k.key == key {
				return k.counter
			}
		}
	}
	return c.add(name, key)
}

// add puts a counter into the cache and returns it.
func (c *counterCache[K]) add(name string, key K) prometheus.Counter {
	c.mu.Lock()
	defer c.mu.Unlock()
	counter := c.lookUp(name, key)
	list := (*c.known.Load())[name]
	if list == nil {
		known := maps.Clone(*c.known.Load())
		list = new(counterList[K])
		list.Store(new([]knownCounter[K]))
		known[name] = list
		c.known.Store(&known)
	}
	known := *list.Load()
	if !slices.ContainsFunc(known, func(k knownCounter[K]) bool { return k.key == key }) {
		known = append(slices.Clip(known), knownCounter[K]{key, counter})
		list.Store(&known)
	}
	return counter
}

// States, read at each scrape.

// Source provides the states.
type Source interface {
	Snapshot() Snapshot
}

// Snapshot is the state at one scrape.
type Snapshot struct {
	Ready           bool
	RedisUp         bool
	Notified        bool // Redis reports records that others remove
	DatabaseSuspect bool
	Sessions        int // conntrack entries of all subscribers
	Index           Index
	Barrier         bool // in place on every existing outside interface
	Fill            Fill
	Learned         Learned
	Strays          uint64 // flows of subscribers that rules of other tables translated
	Flowtables      Flowtables
	RADIUS          RADIUS
	Groups          []Group
	Drops           []nat.DropCount // packets that did not pass
}

// Index holds the counts of the conntrack index.
type Index struct {
	Overruns uint64 // times the kernel dropped events
	Missed   uint64 // entries that no event had reported
	Stale    uint64 // entries that had ended without an event
	Passes   uint64 // walks through the whole table
}

// Learned is the number of learned mappings, and their bound.
type Learned struct{ Mappings, Limit int }

// Flowtables counts the flowtables of nftables that may carry flows of subscribers.
type Flowtables struct {
	Own      bool // one of sessiond's own table
	Accepted int  // of other tables, with the rules that add flows
	Refused  int  // of other tables, not allowed
}

// Fill is the fill level of the conntrack table.
type Fill struct {
	Entries, Limit int // of all addresses in the namespace
	Full           int // subscribers at their limit of sessions
}

// RADIUS counts losses that the counters of requests by result do not contain.
type RADIUS struct {
	Datagrams uint64 // dropped by the kernel
	Replies   uint64 // refused by the kernel
	Accepts   uint64 // RadSec connections that could not be accepted
}

// Group is the state of one group.
type Group struct {
	Name        string
	Subscribers int
	Pending     int
	FeedLag     time.Duration  // age of the oldest feed entry that is not applied yet
	FeedGaps    int            // times that the feed lost entries before they were applied
	FeedFill    float64        // used share of the feed's maximum length
	Bindings    map[string]int // by state: active, draining, cut, held
	Mappings    map[string]int // in force, by kind: static, pcp
	Blocks      map[string]int // by state: used, held, free

	Ports     nat.PortUse    // in use by all subscribers together
	Users     portuse.Counts // subscribers by their number of ports in use
	PeakUsers portuse.Counts // bindings since the start by their most ports at a time

	RemovalsHeld map[subscriber.Reason]int // by reason

	Owner bool // this daemon has the lease of the group's NAT
}

var (
	subscribers = desc("subscribers", "Subscribers online, by group.", "group")
	pending     = desc("subscribers_pending", "Subscribers online that wait for a block, by group.", "group")
	bindings    = desc("bindings", "Bindings, by group and state.", "group", "state")
	mapped      = desc("mappings", "Mappings that outlive their sessions, by group and kind.", "group", "kind")
	blocks      = desc("blocks", "Port blocks, by group and state.", "group", "state")
	ports       = desc("ports_in_use", "Ports that subscribers use, by group and protocol: inside ports with a mapping.", "group", "protocol")
	portUsers   = desc("subscriber_ports", "Subscribers that use a port, by their number of ports in use of the protocol with the most; a histogram of the present, not of the past.", "group")
	portPeaks   = desc("binding_ports_peak", "Bindings that used a port since the start, live and ended, by the most ports in use at a time of the protocol with the most.", "group")
	sessions    = desc("sessions", "Conntrack entries of subscribers.")
	barrier     = desc("outside_barrier", "1 while a filter on every outside interface keeps packets with an inside source back, whatever happens to nftables, else 0.")
	entries     = desc("conntrack_entries", "Entries of the conntrack table of nat.netns, of whatever address.")
	entryLimit  = desc("conntrack_limit", "Entries that the conntrack table may have (nf_conntrack_max); at the limit new flows of everybody are dropped. 0 where it is not known.")
	learned     = desc("learned_mappings", "Mappings of subscribers' endpoints that the kernel has learned, for endpoint-independent mapping and filtering.")
	learnedMost = desc("learned_mappings_limit", "Bound of learned mappings, nat.max_mappings; 0 where no group has any.")
	full        = desc("subscribers_at_session_limit", "Subscribers that open no new sessions, since they have more than nat.max_sessions_per_subscriber.")
	strays      = desc("foreign_translations_total", "Flows of subscribers that began with an outside address of no pool: a rule of another table translated them.")
	flowtables  = desc("flowtables", "Flowtables of nftables that may carry packets of subscribers past the gates, and rules of other tables that add flows to one, by what nat.flowtables says of them: own, accepted, refused.", "use")
	drops       = desc("drops_total", "Packets that did not pass, by reason and direction (sessionctl drops explains them).", "reason", "direction")
	removalHeld = desc("removals_held", "Subscribers whose removal a guard holds until it is confirmed or refused, by group and reason.", "group", "reason")
	owner       = desc("nat_owner", "1 while this daemon has the lease of the group's NAT, else 0: another daemon has it, or Redis is away.", "group")
	socketDrops = desc("radius_socket_drops_total", "RADIUS datagrams that the kernel dropped because a socket's buffer was full; they are in no other counter.")
	replyFails  = desc("radius_replies_failed_total", "RADIUS replies that the kernel did not take.")
	acceptFails = desc("radsec_accepts_failed_total", "RadSec connections that the system did not give.")
	overruns    = desc("conntrack_overruns_total", "Times the kernel dropped conntrack events for want of buffer; the index was rebuilt.")
	indexDrift  = desc("conntrack_index_drift_total", "Entries that an audit of the conntrack index found missing or stale, by kind.", "kind")
	passes      = desc("conntrack_table_passes_total", "Walks through the whole conntrack table, because the index could not prove a removal.")
	feedLag     = desc("feed_lag_seconds", "Age of the oldest entry of the group's change feed that was not taken yet, 0 when all were.", "group")
	feedGaps    = desc("feed_gaps_total", "Times the group's change feed had lost entries before they were taken, and everything was compared instead.", "group")
	feedFill    = desc("feed_fill_ratio", "Share in use of what the group's change feed may grow to for those who have not read it; at 1 its oldest entries go all the same.", "group")
	ready       = desc("ready", "1 while sessiond is ready, as /readyz and gRPC health say, else 0.")
	redisUp     = desc("redis_up", "1 while Redis takes accounting, else 0: it is away, hangs, or refuses to write.")
	notified    = desc("redis_notifications", "1 while Redis tells of records that others remove, else 0: sessiond may not turn that on and looks for them.")
	suspect     = desc("database_suspect", "1 while the database is not known to be complete, else 0; nobody is removed for being absent from it.")
)

// heldReasons are the reasons for which a guard may suspend removals. Their
// series always exist, so that an alarm can rely on them.
var heldReasons = []subscriber.Reason{
	subscriber.ReasonRemovedInDatabase, subscriber.ReasonExpired, subscriber.ReasonNASRestart,
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("sessiond_"+name, help, labels, nil)
}

// collector reads the source at each scrape.
type collector struct{ source Source }

// Describe implements prometheus.Collector.
func (collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{subscribers, pending, bindings, mapped, blocks, ports, portUsers, portPeaks, sessions, entries, entryLimit, learned, learnedMost, full, strays, flowtables, drops, removalHeld, barrier, owner, feedLag, feedGaps, feedFill, socketDrops, replyFails, acceptFails, overruns, indexDrift, passes, ready, redisUp, notified, suspect} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value int, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(value), labels...)
	}
	s := c.source.Snapshot()
	gauge(ready, number(s.Ready))
	gauge(redisUp, number(s.RedisUp))
	gauge(notified, number(s.Notified))
	gauge(suspect, number(s.DatabaseSuspect))
	gauge(sessions, s.Sessions)
	gauge(barrier, number(s.Barrier))
	gauge(entries, s.Fill.Entries)
	gauge(entryLimit, s.Fill.Limit)
	gauge(full, s.Fill.Full)
	gauge(learned, s.Learned.Mappings)
	gauge(learnedMost, s.Learned.Limit)
	count(ch, strays, s.Strays)
	gauge(flowtables, number(s.Flowtables.Own), "own")
	gauge(flowtables, s.Flowtables.Accepted, "accepted")
	gauge(flowtables, s.Flowtables.Refused, "refused")
	for _, d := range s.Drops {
		count(ch, drops, d.Packets, string(d.Reason), string(d.Direction))
	}
	s.Index.collect(ch)
	s.RADIUS.collect(ch)
	for _, g := range s.Groups {
		gauge(subscribers, g.Subscribers, g.Name)
		gauge(pending, g.Pending, g.Name)
		ch <- prometheus.MustNewConstMetric(feedLag, prometheus.GaugeValue, g.FeedLag.Seconds(), g.Name)
		ch <- prometheus.MustNewConstMetric(feedGaps, prometheus.CounterValue, float64(g.FeedGaps), g.Name)
		ch <- prometheus.MustNewConstMetric(feedFill, prometheus.GaugeValue, g.FeedFill, g.Name)
		for kind, n := range g.Mappings {
			gauge(mapped, n, g.Name, kind)
		}
		for state, n := range g.Bindings {
			gauge(bindings, n, g.Name, state)
		}
		for state, n := range g.Blocks {
			gauge(blocks, n, g.Name, state)
		}
		gauge(ports, g.Ports.TCP, g.Name, "tcp")
		gauge(ports, g.Ports.UDP, g.Name, "udp")
		gauge(ports, g.Ports.ICMP, g.Name, "icmp")
		histogram(ch, portUsers, &g.Users, g.Name)
		histogram(ch, portPeaks, &g.PeakUsers, g.Name)
		for _, why := range heldReasons {
			gauge(removalHeld, g.RemovalsHeld[why], g.Name, reasonLabel(why))
		}
		gauge(owner, number(g.Owner), g.Name)
	}
}

func (i Index) collect(ch chan<- prometheus.Metric) {
	count(ch, overruns, i.Overruns)
	count(ch, indexDrift, i.Missed, "missed")
	count(ch, indexDrift, i.Stale, "stale")
	count(ch, passes, i.Passes)
}

func (r RADIUS) collect(ch chan<- prometheus.Metric) {
	count(ch, socketDrops, r.Datagrams)
	count(ch, replyFails, r.Replies)
	count(ch, acceptFails, r.Accepts)
}

// histogram sends counts by number of ports, with a bucket for each power of two.
func histogram(ch chan<- prometheus.Metric, d *prometheus.Desc, c *portuse.Counts, labels ...string) {
	ch <- prometheus.MustNewConstHistogram(d, uint64(c.Users()), float64(c.Sum()), c.UpTo(), labels...)
}

func count(ch chan<- prometheus.Metric, d *prometheus.Desc, value uint64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(value), labels...)
}

func number(b bool) int {
	if b {
		return 1
	}
	return 0
}
