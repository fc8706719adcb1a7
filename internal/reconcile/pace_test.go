package reconcile

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"
)

// TestPacerKeepsItsShare: for stretches of any length, work stays within its
// share of the time plus the accumulated credit.
func TestPacerKeepsItsShare(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 50 {
		share := 0.005 + 0.2*r.Float64()
		p := newPacer(share, time.Duration(r.IntN(60))*time.Second, nil)
		began := time.Now()
		now, worked := began, time.Duration(0)
		p.since = now
		for range 5000 {
			work := time.Duration(r.Int64N(int64(20 * time.Millisecond)))
			now, worked = now.Add(work), worked+work
			now = now.Add(p.owed(now))
			p.rested(now)
			if r.IntN(100) == 0 { // between two passes
				now = now.Add(time.Duration(r.Int64N(int64(time.Minute))))
				p.rested(now)
			}
			if most := p.most + time.Duration(share*float64(now.Sub(began))) + time.Millisecond; worked > most {
				t.Fatalf("worked %v of %v, with a share of %.3f and %v saved up", worked, now.Sub(began), share, p.most)
			}
		}
	}
}

// TestPacerLetsLittleWorkBe: work within the accumulated credit does not pause,
// and a database that hung for long costs the pause of one stretch.
func TestPacerLetsLittleWorkBe(t *testing.T) {
	p := newPacer(0.01, time.Second, nil)
	now := p.since
	for range 24 {
		now = now.Add(10 * time.Millisecond)
		if wait := p.owed(now); wait != 0 {
			t.Fatalf("waits %v with %v saved up", wait, p.credit)
		}
	}
	if wait, most := p.owed(now.Add(time.Hour)), longestWork*100; wait <= 0 || wait > most {
		t.Errorf("after a stretch of an hour it rests for %v, want at most %v", wait, most)
	}
}

// TestHurriedPassDoesNotRest: a request makes the rest of the pass run at once.
func TestHurriedPassDoesNotRest(t *testing.T) {
	hurry := make(chan struct{}, 1)
	p := newPacer(1e-9, time.Second, hurry)
	p.credit = 0
	p.begin(false)
	hurry <- struct{}{}
	for range 3 {
		p.since = time.Now().Add(-longestWork)
		if err := p.rest(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.rest(ctx); err == nil {
		t.Error("rests although it is to end")
	}
	if err := (*pacer)(nil).rest(ctx); err == nil {
		t.Error("goes on although it is to end")
	}
}
