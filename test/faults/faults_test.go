package faults

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// area is the part that a fault affects; a round has at most one fault of each.
type area string

const (
	inDaemon area = "daemon"
	inRedis  area = "redis"
	inKernel area = "kernel"
	inPool   area = "pool"
)

// A fault is something that breaks, and its repair. If several are combined, each can be
// repaired before the others.
type fault struct {
	name string
	area
	weight int
	inject func(context.Context, *world) error
	lift   func(context.Context, *world) error // nil: no repair needed

	down      bool // sessiond is not running during it
	loses     bool // the database loses the changes of this round, or all data
	returns   bool // the database goes back in time
	disturbs  bool // live flows may stall during it
	kernel    bool // the kernel loses state that otherwise only the database has
	crowds    bool // conntrack may evict entries that are not assured
	endsFlows bool // live flows end
	reconcile bool // needs a reconcile, which the harness requests
	quiet     bool // nothing of the kernel, sessiond or the data is affected: receipts count all
	opens     bool // sessions of addresses that are not online may begin during it
}

var faults = []fault{
	{name: "sessiond kill -9", area: inDaemon, weight: 10, down: true, inject: killDaemon, lift: launch},
	{name: "sessiond SIGTERM", area: inDaemon, weight: 4, down: true, inject: stopDaemon, lift: launch},
	{name: "sessiond killed at start", area: inDaemon, weight: 5, down: true, inject: killStarting, lift: launch},
	{name: "sessiond SIGSTOP", area: inDaemon, weight: 4, inject: pauseDaemon, lift: resumeDaemon},

	{name: "redis kill -9", area: inRedis, weight: 6, inject: killRedis, lift: startRedis},
	{name: "redis restart", area: inRedis, weight: 4, inject: stopRedis, lift: startRedis},
	{name: "redis SIGSTOP", area: inRedis, weight: 6, inject: hangRedis, lift: resumeRedis},
	{name: "redis restarted empty", area: inRedis, weight: 3, loses: true, inject: emptyRedis, lift: startRedis},
	{name: "redis FLUSHALL", area: inRedis, weight: 3, loses: true, inject: flushRedis},
	// Bindings are not in the feed: if nothing else was lost, only a reconcile finds it
	// out.
	{name: "redis from the past", area: inRedis, weight: 3, loses: true, returns: true, reconcile: true, inject: revertRedis, lift: startRedis},
	{name: "redis out of memory", area: inRedis, weight: 2, inject: redisDo("CONFIG", "SET", "maxmemory", "1"), lift: redisDo("CONFIG", "SET", "maxmemory", "0")},
	{name: "redis read-only", area: inRedis, weight: 2, inject: redisDo("REPLICAOF", "127.0.0.1", "1"), lift: redisDo("REPLICAOF", "NO", "ONE")},
	{name: "redis connections killed", area: inRedis, weight: 2, quiet: true, inject: redisDo("CLIENT", "KILL", "TYPE", "normal")},
	{name: "redis SCRIPT FLUSH", area: inRedis, weight: 2, quiet: true, inject: redisDo("SCRIPT", "FLUSH")},
	{name: "redis feed trimmed", area: inRedis, weight: 2, quiet: true, inject: trimFeeds},
	{name: "redis notices turned off", area: inRedis, weight: 2, quiet: true, reconcile: true, inject: redisDo("CONFIG", "SET", "notify-keyspace-events", ""), lift: redisDo("CONFIG", "SET", "notify-keyspace-events", "Egxe")},

	{name: "nft table deleted", area: inKernel, weight: 3, kernel: true, disturbs: true, inject: deleteTable},
	{name: "nft rules changed", area: inKernel, weight: 3, disturbs: true, inject: changeRules},
	{name: "nft elements changed", area: inKernel, weight: 4, opens: true, kernel: true, disturbs: true, reconcile: true, inject: changeElements},
	{name: "nft table owned by another (EPERM)", area: inKernel, weight: 2, kernel: true, disturbs: true, reconcile: true, inject: ownTable, lift: disownTable},
	{name: "blackhole route deleted", area: inKernel, weight: 2, quiet: true, inject: deleteRoute},
	{name: "conntrack entries of nobody", area: inKernel, weight: 3, reconcile: true, inject: injectEntries},
	{name: "conntrack flushed", area: inKernel, weight: 2, disturbs: true, endsFlows: true, inject: flushConntrack},
	{name: "conntrack table full", area: inKernel, weight: 1, disturbs: true, crowds: true, reconcile: true, inject: fillTable, lift: drainTable},
	{name: "conntrack events lost (ENOBUFS)", area: inKernel, weight: 1, disturbs: true, crowds: true, reconcile: true, inject: overrunEvents, lift: drainTable},

	{name: "more subscribers than blocks", area: inPool, weight: 3, quiet: true},
}

// drawFaults draws one to three faults that may be combined, or takes those of -only.
func drawFaults(rng *rand.Rand, m *model) []fault {
	if *onlyFlag != "" {
		var chosen []fault
		for name := range strings.SplitSeq(*onlyFlag, ",") {
			i := slices.IndexFunc(faults, func(f fault) bool { return f.name == name })
			chosen = append(chosen, faults[i])
		}
		return chosen
	}
	total := 0
	for _, f := range faults {
		total += f.weight
	}
	var drawn []fault
	for range 1 + rng.IntN(3) {
		at := rng.IntN(total)
		i := slices.IndexFunc(faults, func(f fault) bool { at -= f.weight; return at < 0 })
		if with := append(slices.Clone(drawn), faults[i]); together(with, m) {
			drawn = with
		}
	}
	return drawn
}

// together reports whether the faults leave a source to restore everything from: the
// database, or the kernel together with the running sessiond. Only the database and
// sessiond have the live settings.
func together(all []fault, m *model) bool {
	areas := map[area]bool{}
	var down, loses, kernel, enobufs, daemon bool
	for _, f := range all {
		if areas[f.area] {
			return false
		}
		areas[f.area] = true
		down = down || f.down
		loses = loses || f.loses
		kernel = kernel || f.kernel
		enobufs = enobufs || f.crowds
		daemon = daemon || f.area == inDaemon
	}
	return !(down && kernel) && !(down && loses && !m.removal) && !(enobufs && (daemon || loses))
}

// redisDo returns a fault that is a command to Redis by another client.
func redisDo(args ...any) func(context.Context, *world) error {
	return func(ctx context.Context, w *world) error { return w.db.Do(ctx, args...).Err() }
}

func trimFeeds(ctx context.Context, w *world) error {
	var errs []error
	for _, g := range groups {
		errs = append(errs, w.db.Do(ctx, "XTRIM", g.keys()+"feed", "MAXLEN", "1").Err())
	}
	return errors.Join(errs...)
}

func killDaemon(_ context.Context, w *world) error { return w.Daemon.Kill() }
func launch(ctx context.Context, w *world) error   { return w.Daemon.Launch(ctx) }

func stopDaemon(_ context.Context, w *world) error {
	code, err := w.Daemon.Stop()
	switch {
	case err != nil:
		return fmt.Errorf("%w; it printed:\n%s", err, tail(quiet(w.Daemon.Log()), 400_000))
	case code != 0:
		return fmt.Errorf("sessiond exits with %d after SIGTERM, want 0", code)
	}
	return nil
}

// killStarting kills sessiond during its start, in the recovery.
func killStarting(ctx context.Context, w *world) error {
	if err := w.Daemon.Kill(); err != nil {
		return err
	}
	for range 3 {
		if err := w.Daemon.Launch(ctx); err != nil {
			return err
		}
		// A start that waits for Redis logs no more lines.
		once, cancel := context.WithTimeout(ctx, retransmit)
		_ = w.Daemon.AwaitLines(once, 5+w.faultRNG.IntN(12))
		cancel()
		if err := w.Daemon.Kill(); err != nil {
			return err
		}
	}
	return nil
}

func pauseDaemon(_ context.Context, w *world) error  { return w.Daemon.Pause() }
func resumeDaemon(_ context.Context, w *world) error { return w.Daemon.Resume() }

func killRedis(_ context.Context, w *world) error    { return w.Redis.Kill() }
func stopRedis(_ context.Context, w *world) error    { return w.Redis.Stop() }
func startRedis(ctx context.Context, w *world) error { return w.Redis.Start(ctx) }
func hangRedis(_ context.Context, w *world) error    { return w.Redis.Hang() }
func resumeRedis(_ context.Context, w *world) error  { return w.Redis.Resume() }

func emptyRedis(_ context.Context, w *world) error {
	return errors.Join(w.Redis.Kill(), w.Redis.Empty())
}

func flushRedis(ctx context.Context, w *world) error {
	_, err := w.Redis.CLI(ctx, "FLUSHALL")
	return err
}

// revertRedis restores Redis as of the beginning of the round.
func revertRedis(_ context.Context, w *world) error {
	return errors.Join(w.Redis.Kill(), w.Redis.PutBack(w.past()))
}

func (w *world) past() string { return filepath.Join(w.Dir, "past") }

// remember saves the present data of Redis for revertRedis.
func (w *world) remember() error {
	return errors.Join(os.RemoveAll(w.past()), w.Redis.Copy(w.past()))
}
