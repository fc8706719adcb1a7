package reconcile

import (
	"context"
	"time"

	"github.com/sessiond/sessiond/internal/clock"
)

// A pacer limits a comparison to a share of the time, however much it compares.
// The database's time for it counts too. Unused time accumulates up to a bound,
// so that a short comparison never pauses.
type pacer struct {
	share float64         // of all time that work may take, above 0
	most  time.Duration   // unused work that may accumulate
	hurry <-chan struct{} // a value makes the rest of the pass run without pauses; may be nil

	credit  time.Duration
	since   time.Time // credit is counted up to here
	hurried bool
}

const (
	// savedUp is the least work that a pacer may accumulate.
	savedUp = 250 * time.Millisecond

	// longestWork bounds the counted time of one stretch: a database that hangs
	// does no work.
	longestWork = 100 * time.Millisecond
)

func newPacer(share float64, every time.Duration, hurry <-chan struct{}) *pacer {
	most := max(savedUp, time.Duration(share*float64(every)))
	return &pacer{share: share, most: most, hurry: hurry, credit: most, since: time.Now()}
}

// begin starts a pass; a hurried one has no pauses.
func (p *pacer) begin(hurried bool) {
	p.rested(time.Now())
	p.hurried = hurried
}

// rested counts the time since the last count as idle.
func (p *pacer) rested(now time.Time) {
	p.credit = min(p.most, p.credit+time.Duration(p.share*float64(now.Sub(p.since))))
	p.since = now
}

// owed counts the time since the last count as work, and returns the pause that
// is due.
func (p *pacer) owed(now time.Time) time.Duration {
	worked := min(now.Sub(p.since), longestWork)
	p.since = now
	p.credit -= worked
	if p.credit >= 0 || p.hurried {
		p.credit = max(p.credit, 0)
		return 0
	}
	return time.Duration(float64(-p.credit) / p.share)
}

// rest pauses if due. It is called after each piece of work. A nil pacer never
// pauses.
func (p *pacer) rest(ctx context.Context) error {
	if p == nil {
		return ctx.Err()
	}
	wait := p.owed(time.Now())
	if wait <= 0 {
		return ctx.Err()
	}
	woken, err := clock.SleepOr(ctx, wait, p.hurry)
	if err != nil {
		return err
	}
	p.hurried = p.hurried || woken
	p.rested(time.Now())
	return nil
}
