package faults

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/conntrack/conntracktest"
	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/rig"
)

// A world is a whole sessiond with its model. One goroutine drives it.
type world struct {
	*rig.Rig
	model   *model
	report  *report
	logf    func(format string, args ...any)
	history []string // printed if a check fails

	rng      *rand.Rand // operations and faults; the same draws for the same seed
	faultRNG *rand.Rand // details of faults
	flowRNG  *rand.Rand // choice of subscribers with flows, and of other packets

	db     *redis.Client
	echo   *netlab.Echo
	plain  *netlab.Echo // at plainHost
	sink   *net.UDPConn // takes the datagrams of bursts
	leaks  leakWatch
	second secondPoolState

	mappings []*mapping
	ended    []*mapping // in this round
	services services   // of subscribers with mappings
	visited  []*visit   // of services by UDP that were reached at the end of the last round

	radius  atomic.Value // string: sessiond's RADIUS address
	now     time.Time    // event time of the round
	told    time.Time    // when the last event was answered
	began   time.Time    // start of the round
	rested  time.Time    // time of rest in this round
	flows   []*flow
	counts  map[*line][]time.Time // when the conntrack entries of lines with flows expire, at the end of the last round
	bound   map[netip.Addr]bool   // inside addresses with a live binding, at the end of the last round
	waited  map[*line]*session    // online sessions without a block, at the end of the last round
	blocks  map[*line]binding     // of online subscribers, at the end of the last round
	holders map[*line]*session
	foreign string
	holds   *holds
	briefs  []*brief

	udpPorts atomic.Uint64
	owner    *rig.Program // of the table, instead of sessiond
	flood    *conntracktest.Flood
	overrun  bool // sessiond is stopped during the flood
	adopted  bool // sessiond knows bindings in this round from the kernel alone
	survives bool // sessiond may have written back what an emptied database lost, before it ended in this round
	crowded  bool // the conntrack table was full in this round
	left     int  // rounds until the toggle is on again
}

// newPlan returns a world of a model and random numbers, without a sessiond.
func newPlan(seed uint64) *world {
	w := &world{briefs: newBriefs(), second: secondPoolState{state: poolAbsent}}
	var clockRNG *rand.Rand
	for i, rng := range []**rand.Rand{&w.rng, &w.faultRNG, &w.flowRNG, &clockRNG} {
		*rng = rand.New(rand.NewPCG(seed, uint64(i)))
	}
	w.model = newModel(clockRNG)
	for _, g := range groups {
		w.mappings = append(w.mappings, g.configured()...)
	}
	return w
}

func newWorld(ctx context.Context, t *testing.T, seed uint64, r *report) (*world, error) {
	w := newPlan(seed)
	w.report, w.logf = r, t.Logf
	var inside []netip.Addr
	for _, l := range w.model.lines {
		inside = append(inside, l.inside)
	}
	var err error
	w.Rig, err = rig.Start(ctx, rig.Options{
		Sessiond: programs.Sessiond, Sessionctl: programs.Sessionctl,
		Lab:       netlab.Options{Subscribers: inside, Pool: poolPrefixes, Remotes: []netip.Addr{answering, stranger, plainHost}},
		BlockSize: defaultGroup.blockSize, PortRange: defaultGroup.portRange(), Hold: hold,
		// With everysec, a Redis that is killed while its disk is busy loses up to two
		// seconds of answered writes.
		RedisArgs: []string{"--appendfsync", "always"},
		Inside:    defaultGroup.inside.String(),
		Guard:     guardConfig,
		Settings:  defaultGroup.static(),
		Groups:    []string{growingGroup.text(), coneGroup.text(), limitedGroup.text(), fixedGroup.text(), briefConfig()},
		Clients:   clientConfig,
	})
	if err != nil {
		return nil, err
	}
	w.radius.Store(w.Daemon.RADIUS)
	w.db = redis.NewClient(&redis.Options{Network: "unix", Addr: w.Redis.Socket, MaxRetries: -1, ReadTimeout: 5 * time.Second})
	return w, errors.Join(w.furnish(ctx))
}

// furnish adds parts besides sessiond: servers, a way back to inside addresses, a watch on all
// that leaves, and a foreign table.
func (w *world) furnish(ctx context.Context) (err error) {
	if w.echo, err = w.Lab.StartEcho(netip.AddrPortFrom(answering, 0)); err != nil {
		return err
	}
	if w.plain, err = w.Lab.StartEcho(netip.AddrPortFrom(plainHost, 0)); err != nil {
		return err
	}
	if w.sink, err = w.Lab.Internet.ListenUDP(netip.AddrPortFrom(answering, sinkPort)); err != nil {
		return err
	}
	w.Lab.Own(w.sink)
	if err := w.Lab.Internet.AddRoute(netlab.Route{Destination: insidePrefix, Gateway: netlab.OutsideGateway.Addr()}); err != nil {
		return err
	}
	if err := w.watchLeaks(); err != nil {
		return err
	}
	if err := w.nft(ctx, "add table inet foreign; add set inet foreign s { type ipv4_addr; elements = { 192.0.2.1 } }"); err != nil {
		return err
	}
	var s snapshot
	if err := w.lookForeign(ctx, &s); err != nil {
		return err
	}
	w.foreign = s.foreign
	w.holds = w.watchHolds(ctx)
	w.services = services{}
	return w.populate(ctx)
}

// populate brings most subscribers online before the first round.
func (w *world) populate(ctx context.Context) error {
	if err := w.tick(ctx); err != nil {
		return err
	}
	ops := w.model.crowd(w.model.sparse())
	if err := w.start(ctx, ops).wait(); err != nil {
		return err
	}
	if err := w.meet(ctx); err != nil {
		return err
	}
	return w.settle(ctx, nil)
}

func (w *world) close() error {
	if w.holds != nil {
		w.report.moves.Add(int64(w.holds.end()))
	}
	if w.owner != nil {
		_ = w.owner.Kill()
	}
	return errors.Join(w.services.close(), w.ebb(), w.db.Close(), w.Rig.Close())
}

// tick begins a new second of event time, more than one after the last event, so that earlier events
// are older, also by a clock that drifts within its seconds. Then all NASes are heard.
func (w *world) tick(ctx context.Context) error {
	before := w.told.Truncate(time.Second).Add(time.Second)
	err := w.Until(ctx, "the next second", func() (bool, error) {
		w.now = time.Now().Truncate(time.Second)
		return w.now.After(before), nil
	})
	if err != nil {
		return err
	}
	return w.hearNASes(ctx)
}
