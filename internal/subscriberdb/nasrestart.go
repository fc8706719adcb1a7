package subscriberdb

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/nases"
	"github.com/sessiond/sessiond/internal/subscriberdb/redisconn"
	"github.com/sessiond/sessiond/internal/subscriberdb/txn"
)

// sweepPause is the interval at which SweepRestarts looks for restarts that other daemons
// recorded. Restarts that this daemon records wake it.
const sweepPause = 2 * time.Second

// Followed yields the records that a reader of a group's feed has in memory for some
// addresses, each with the index of its address.
type Followed func(group string, inside []netip.Addr, yield func(i int, r *subscriber.Packed))

// restartSweeper ends the sessions that began before the restart of their NAS.
type restartSweeper struct {
	*shared
	nases  *nases.Registry
	reader *recordReader
	writer *recordWriter
	probe  *prober
	guards *restartGuards
	fresh  chan struct{} // wakes SweepRestarts after a new restart; capacity one
}

// SweepRestarts ends the sessions that NAS restarts left behind (SES-15..17), at start and
// after each new restart, until the context ends. A restart stays listed in Redis until it
// was swept. Errors are logged and retried.
//
// SweepRestarts does not read a record that known yields: the transaction compares its
// version. known may be nil.
func (sw *restartSweeper) SweepRestarts(ctx context.Context, known Followed) error {
	ticker := time.NewTicker(sweepPause)
	defer ticker.Stop()
	for failing := false; ; {
		err := sw.sweepAll(ctx, known)
		if err != nil && ctx.Err() == nil && !failing { // once, not every time
			sw.logger.Log(ctx, sw.probe.severity(ctx), "sessions of a restarted NAS not ended yet", "error", err)
		}
		failing = err != nil
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		case <-sw.fresh:
		}
	}
}

func (sw *restartSweeper) sweepAll(ctx context.Context, known Followed) error {
	var errs []error
	groups := sw.inForce()
	for i := range groups.groups {
		errs = append(errs, sw.sweepGroup(ctx, &groups.groups[i], known))
	}
	return errors.Join(errs...)
}

// sweepGroup ends the sessions that all pending restarts of a group leave behind. It scans
// the online addresses once, for any number of restarts.
func (sw *restartSweeper) sweepGroup(ctx context.Context, g *Group, known Followed) error {
	refs, err := sw.client.SMembers(ctx, codec.RestartsKey(g.Name)).Result()
	if err != nil {
		return fmt.Errorf("list restarts of group %q: %w", g.Name, err)
	}
	if len(refs) == 0 {
		return nil
	}
	pending, err := sw.readRestarts(ctx, g, refs)
	if err != nil {
		return fmt.Errorf("read restarts of group %q: %w", g.Name, err)
	}
	if err := sw.checkLimits(ctx, g, pending); err != nil {
		return fmt.Errorf("check restarts of group %q: %w", g.Name, err)
	}
	if err := sw.endOlder(ctx, g, pending, known); err != nil {
		return fmt.Errorf("sweep group %q: %w", g.Name, err)
	}
	return sw.markSwept(ctx, g, pending)
}

// pendingRestart is a restart whose older sessions have not all ended.
type pendingRestart struct {
	nases *nases.Registry
	now   func() time.Time
	nas   subscriber.SessionID
	line  string
	since subscriber.Restart
	ended int
	held  bool // its sessions end only after a confirmation
}

// pendingRestarts holds restarts by the reference of their NAS.
type pendingRestarts map[string]*pendingRestart

// of returns the restart of a NAS, by its reference; nil for none. A NAS that is reported
// under two names restarts under both.
func (p pendingRestarts) of(known *nases.Registry, ref string) *pendingRestart {
	if r := p[ref]; r != nil {
		return r
	}
	id, err := codec.ParseNASRef(ref)
	if err != nil {
		return nil
	}
	return p[codec.NASRef(known.Original(codec.NASOf(id)).Session())]
}

// readRestarts returns the restarts by the reference of their NAS.
func (sw *restartSweeper) readRestarts(ctx context.Context, g *Group, refs []string) (pendingRestarts, error) {
	pending := make(pendingRestarts, len(refs))
	for _, ref := range refs {
		nas, err := codec.ParseNASRef(ref)
		if err != nil {
			sw.found(g.Name, codec.GarbageRestart, codec.RestartsKey(g.Name)+" "+codec.Escape(ref))
			continue
		}
		line, err := sw.client.Get(ctx, codec.RestartKey(g.Name, nas)).Result()
		switch {
		case redisconn.IsWrongType(err):
			sw.found(g.Name, codec.GarbageRestart, codec.RestartKey(g.Name, nas))
			continue
		case err != nil && !errors.Is(err, redis.Nil):
			return nil, err
		}
		pending[ref] = &pendingRestart{nases: sw.nases, now: sw.now, nas: nas, line: line, since: codec.ParseRestart(line)}
	}
	return pending, nil
}

// endOlder finds the sessions that the restarts ended in the hash of online addresses,
// which is written in one step with the records. It ends them in the order of inside
// addresses, which is the order of the followers' memory.
func (sw *restartSweeper) endOlder(ctx context.Context, g *Group, pending pendingRestarts, known Followed) error {
	left, err := sw.leftBehind(ctx, g, pending)
	if err != nil {
		return err
	}
	s := restartSweep{sweeper: sw, group: g, pending: pending, known: known, rooms: make(chan *sweepRoom, endWorkers+1)}
	for range cap(s.rooms) {
		s.rooms <- new(sweepRoom)
	}
	s.workers, ctx = errgroup.WithContext(ctx)
	s.workers.SetLimit(endWorkers)
	for some := range slices.Chunk(left, redisconn.ScanCount) {
		if err = ctx.Err(); err != nil {
			break
		}
		s.end(ctx, some)
	}
	if failed := s.workers.Wait(); failed != nil {
		err = failed
	}
	for _, p := range pending {
		if p.ended > 0 {
			sw.logger.Info("sessions of a restarted NAS ended",
				"group", g.Name, "client", p.nas.Client, "nas", p.nas.NAS, "sessions", p.ended)
		}
	}
	return err
}

// leftover is an address whose session a restart may have ended.
type leftover struct {
	inside  [16]byte // as netip.Addr.As16 has it
	restart *pendingRestart
}

// leftBehind returns the addresses of sessions that restarts left behind, in order of
// address.
func (sw *restartSweeper) leftBehind(ctx context.Context, g *Group, pending pendingRestarts) ([]leftover, error) {
	var left []leftover
	err := sw.client.ScanHash(ctx, codec.OnlineKey(g.Name), func(fields []string) error {
		for i := 0; i+1 < len(fields); i += 2 {
			inside, err := netip.ParseAddr(fields[i])
			if p := pending.of(sw.nases, codec.NASOfOnlineEntry(fields[i+1])); err == nil && p != nil {
				left = append(left, leftover{inside.As16(), p})
			}
		}
		return nil
	})
	slices.SortFunc(left, func(a, b leftover) int { return bytes.Compare(a.inside[:], b.inside[:]) })
	return slices.CompactFunc(left, func(a, b leftover) bool { return a.inside == b.inside }), err // a scan may yield one twice
}

// restartSweep ends the sessions of restarted NASes in a group.
type restartSweep struct {
	sweeper *restartSweeper
	group   *Group
	pending pendingRestarts
	known   Followed
	workers *errgroup.Group
	rooms   chan *sweepRoom // reused, because each session that ends needs a transaction

	mu sync.Mutex // guards ended of the restarts
}

type sweepRoom struct {
	txns     []txn.Txn
	refs     []*txn.Txn
	inside   []netip.Addr
	restarts []*pendingRestart // one for each transaction
}

// end runs transactions for some leftovers, and ends the sessions that a restart ended.
func (s *restartSweep) end(ctx context.Context, some []leftover) {
	room := <-s.rooms
	clear(room.txns)
	room.txns, room.refs, room.inside, room.restarts = room.txns[:0], room.refs[:0], room.inside[:0], room.restarts[:0]
	for _, l := range some {
		inside := netip.AddrFrom16(l.inside).Unmap()
		room.txns = append(room.txns, l.restart.endTxn(s.group, inside))
		room.inside, room.restarts = append(room.inside, inside), append(room.restarts, l.restart)
	}
	s.guess(room)
	for i := range room.txns {
		room.refs = append(room.refs, &room.txns[i])
	}
	s.workers.Go(func() error {
		defer func() { s.rooms <- room }()
		err := s.sweeper.writer.endInTurn(ctx, room.refs)
		s.count(room.refs)
		return err
	})
}

// guess gives the transactions the records that a reader of the feed has in memory, where
// these would end. The others are read from Redis.
func (s *restartSweep) guess(room *sweepRoom) {
	if s.known == nil {
		return
	}
	s.known(s.group.Name, room.inside, func(i int, packed *subscriber.Packed) {
		if p, r := room.restarts[i], packed.Record(); !p.holds() && p.means(&r) {
			room.txns[i].Guess(&r)
		}
	})
}

func (s *restartSweep) count(txns []*txn.Txn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for e := range endingsOf(txns) {
		if p := s.pending.of(s.sweeper.nases, codec.NASRef(e.Record.SessionID)); p != nil {
			p.ended++
		}
	}
}

// endTxn returns the transaction that ends the record at an address if the restart ended
// its session, or that suspends the removal.
func (p *pendingRestart) endTxn(g *Group, inside netip.Addr) txn.Txn {
	if p.holds() {
		return txn.Txn{Group: g.txns, Inside: inside, Decider: txn.DecideFunc(func(v subscriber.View) subscriber.Decision { return p.suspend(g, v) })}
	}
	return endTxn(g, subscriber.Key{Group: g.Name, Inside: inside}, p.means, subscriber.ReasonNASRestart, p.since.At)
}

// holds reports whether the sessions end only after a confirmation.
func (p *pendingRestart) holds() bool { return p.held || p.since.Confirm }

// means reports whether the restart ended the record's session.
func (p *pendingRestart) means(r *subscriber.Record) bool {
	same := p.nases.Original(codec.NASOf(r.SessionID)) == p.nases.Original(codec.NASOf(p.nas))
	return same && p.since.Ends(r)
}

func (sw *restartSweeper) markSwept(ctx context.Context, g *Group, pending pendingRestarts) error {
	calls := make([]redis.Cmder, 0, len(pending))
	for ref, p := range pending {
		keys := []string{codec.RestartKey(g.Name, p.nas), codec.RestartsKey(g.Name)}
		calls = append(calls, redisconn.NewCall(ctx, sweptScript, keys, p.line, ref))
	}
	if err := sw.client.Exchange(ctx, calls); err != nil {
		return err
	}
	for _, p := range pending {
		sw.guards.swept(groupNASOf(g.Name, p.nas))
	}
	return nil
}

// sweptScript removes a restart from the set of restarts to sweep, unless its NAS restarted
// again.
//
// KEYS: 1 restart, 2 set of restarts to sweep. ARGV: 1 the restart that was swept, 2 the
// NAS. Returns 1 when it is done, 0 when there is a newer restart.
var sweptScript = redis.NewScript(`
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
redis.call('SREM', KEYS[2], ARGV[2])
return 1
`)
