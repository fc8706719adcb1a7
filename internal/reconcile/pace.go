package reconcile

import (
	"context"
	"time"
)

// A pacer keeps a comparison to a share of the time, whatever it has to look at. The
// time that the database works for it counts, too. What was left unused for a while may
// be spent at once, so that where there is little to look at, nothing waits.
type pacer struct {
	share float64         // of all time that work may take, above 0
	most  time.Duration   // work that may be saved up
	hurry <-chan struct{} // whoever sends has the rest of the pass done at once; may be nil

	credit  time.Duration
	since   time.Time // up to when credit was counted
	hurried bool
}

const (
	// savedUp is the work that a pacer may at least save up.
	savedUp = 250 * time.Millisecond

	// longestWork bounds what one stretch counts: a database that hung is no work.
	longestWork = 100 * time.Millisecond
)

func newPacer(share float64, every time.Duration, hurry <-chan struct{}) *pacer {
	most := max(savedUp, time.Duration(share*float64(every)))
	return &pacer{share: share, most: most, hurry: hurry, credit: most, since: time.Now()}
}

// begin starts a pass; a hurried one does not rest.
func (p *pacer) begin(hurried bool) {
	p.rested(time.Now())
	p.hurried = hurried
}

// rested counts the time since the last count as time without work.
func (p *pacer) rested(now time.Time) {
	p.credit = min(p.most, p.credit+time.Duration(p.share*float64(now.Sub(p.since))))
	p.since = now
}

// owed counts the time since the last count as work, and returns how long to rest
// for it.
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

// rest is called after each piece of work. A pass without a pacer does not rest.
func (p *pacer) rest(ctx context.Context) error {
	if p == nil {
		return ctx.Err()
	}
	wait := p.owed(time.Now())
	if wait <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
	case <-p.hurry:
		p.hurried = true
	}
	p.rested(time.Now())
	return nil
}
