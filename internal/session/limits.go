package session

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/sessiond/sessiond/internal/clock"
	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/lifecycle"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/throttle"
	"github.com/sessiond/sessiond/internal/walk"
)

// limitKernel tells which subscribers were refused new sessions since it was
// asked last.
type limitKernel interface {
	Refusals(ctx context.Context) ([]nat.Refusal, error)
}

// limitObserver counts subscribers at their limits, for metrics.
type limitObserver interface {
	LimitReached(group string, limit nat.Limit)
}

const (
	// refusalsEvery is the interval at which the kernel is asked. Where the answer takes long it is
	// asked more rarely: refusalsShare bounds the time that answers take, one part in so many. The
	// kernel knows a refusal for ten seconds, so the interval is refusalsMost at most.
	refusalsEvery = time.Second
	refusalsShare = 20
	refusalsMost  = 7 * time.Second
	// limitEvery is the least time between two events about the limits of one
	// subscriber.
	limitEvery = time.Minute
)

// limitWatch tells watchers, log and metrics of subscribers that are refused new
// sessions at a limit (RFC 6888 REQ-11C): once a minute for each subscriber,
// whatever it tries.
type limitWatch struct {
	*sharedState
	kernel   limitKernel
	observer limitObserver
	reports  *reports
	told     map[netip.Addr]limitTold // of the last minute
	thin     throttle.Throttle        // of the log
}

// limitTold is what watchers were told of a subscriber, and the limits at which
// it was refused sessions since then.
type limitTold struct {
	at   time.Time
	more []nat.Limit
}

// run asks the kernel every refusalsEvery. Its errors are only those of ctx.
func (w *limitWatch) run(ctx context.Context) error {
	for took := time.Duration(0); ; {
		if err := clock.Sleep(ctx, min(max(refusalsEvery, (refusalsShare-1)*took), refusalsMost)); err != nil {
			return err
		}
		began := time.Now()
		refused, err := w.kernel.Refusals(ctx)
		took = time.Since(began)
		if err != nil && ctx.Err() == nil {
			if suppressed, ok := w.thin.Allow(time.Now()); ok {
				w.log.Error("the subscribers at their limits are not known", "error", err, "suppressed", suppressed)
			}
			continue
		}
		w.tell(refused)
	}
}

// tell takes the refusals since the last call. A subscriber that was told of
// less than limitEvery ago waits, and what it was refused is told of then.
func (w *limitWatch) tell(refused []nat.Refusal) {
	now := w.now()
	for _, r := range refused {
		w.reports.refused.note(r.Inside, r.Limit.String(), now)
		told := w.told[r.Inside]
		if !slices.Contains(told.more, r.Limit) {
			told.more = append(told.more, r.Limit)
		}
		w.told[r.Inside] = told
	}
	w.mu.RLock()
	defer w.mu.RUnlock()
	for inside, told := range walk.All(w.mu.RLocker(), maps.All(w.told)) {
		switch {
		case now.Sub(told.at) < limitEvery:
		case len(told.more) == 0:
			delete(w.told, inside)
		default:
			w.tellRLocked(inside, told.more, now)
			w.told[inside] = limitTold{at: now}
		}
	}
}

// tellRLocked tells of one subscriber. One that has ended meanwhile is nobody
// to tell of.
func (w *limitWatch) tellRLocked(inside netip.Addr, limits []nat.Limit, now time.Time) {
	slot := w.life.Slot(inside)
	if slot == nil || !slot.Online() {
		return
	}
	slices.Sort(limits)
	names := make([]string, 0, len(limits))
	for _, l := range limits {
		names = append(names, l.String())
		w.observer.LimitReached(slot.Group(), l)
	}
	record := slot.Packed()
	w.reports.Emit(lifecycle.Transition{Kind: inspect.EventLimitReached, At: now, Record: record, Slot: slot, Limits: limits})
	if suppressed, ok := w.thin.Allow(now); ok {
		w.log.Warn("a subscriber is refused new sessions at a limit of its group; what it has goes on", "group", slot.Group(),
			"inside", inside, "limit", strings.Join(names, ","), "suppressed", suppressed)
	}
}
