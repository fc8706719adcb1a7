package guard

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/subscriber"
)

const (
	removed = subscriber.ReasonRemovedInDatabase
	expired = subscriber.ReasonExpired
	restart = subscriber.ReasonNASRestart
)

var (
	t0   = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	some = Limits{Minimum: 10, Removed: 0.10, Expired: 0.30, NASRestart: 1, Window: time.Minute}
)

// ask is one request to a guard, with the expected answer.
type ask struct {
	after  time.Duration // since t0
	why    subscriber.Reason
	n      int
	online int
	want   Answer
}

func TestTake_DEL13(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		limits Limits
		asks   []ask
	}{
		"a share passes, the rest is held": {some, []ask{
			{0, removed, 60, 1000, Answer{Passed: 60}},
			{0, removed, 60, 940, Answer{Passed: 40, Limit: 100, First: true}},
			{time.Second, removed, 1, 900, Answer{Limit: 100}},
		}},
		"the minimum passes in any case": {some, []ask{
			{0, removed, 10, 10, Answer{Passed: 10}},
			{0, removed, 1, 0, Answer{Limit: 10, First: true}},
		}},
		"share 0 leaves the minimum": {Limits{Minimum: 3, Window: time.Minute}, []ask{
			{0, expired, 5, 1000, Answer{Passed: 3, Limit: 3, First: true}},
		}},
		"nothing passes where nothing may": {Limits{Window: time.Minute}, []ask{
			{0, expired, 1, 1000, Answer{First: true}},
		}},
		"share 1 bounds nothing": {some, []ask{
			{0, restart, 1_000_000, 10, Answer{Passed: 1_000_000}},
		}},
		"zero limits bound nothing": {Limits{}, []ask{
			{0, removed, 1000, 10, Answer{Passed: 1000}},
		}},
		"what a NAS or a person says is not bounded": {Limits{Window: time.Minute}, []ask{
			{0, subscriber.ReasonStop, 1000, 1000, Answer{Passed: 1000}},
			{0, subscriber.ReasonAdmin, 1000, 1000, Answer{Passed: 1000}},
			{0, subscriber.ReasonSuperseded, 1000, 1000, Answer{Passed: 1000}},
		}},
		"reasons have waves of their own": {some, []ask{
			{0, removed, 101, 1000, Answer{Passed: 100, Limit: 100, First: true}},
			{0, expired, 300, 1000, Answer{Passed: 300}},
		}},
		"the limit comes back within the window": {some, []ask{
			{0, removed, 100, 1000, Answer{Passed: 100}},
			{30 * time.Second, removed, 50, 1000, Answer{Passed: 50}},
			{45 * time.Second, removed, 26, 1000, Answer{Passed: 25, Limit: 100, First: true}},
		}},
		"not once something was held": {some, []ask{
			{0, removed, 101, 1000, Answer{Passed: 100, Limit: 100, First: true}},
			{50 * time.Second, removed, 10, 1000, Answer{Limit: 100}},
			{100 * time.Second, removed, 10, 1000, Answer{Limit: 100}},
		}},
		"a wave is over when none came for a window": {some, []ask{
			{0, removed, 101, 1000, Answer{Passed: 100, Limit: 100, First: true}},
			{time.Minute, removed, 31, 300, Answer{Passed: 30, Limit: 30, First: true}},
		}},
		"a full bucket is measured anew": {some, []ask{
			{0, removed, 1, 1000, Answer{Passed: 1}},
			{59 * time.Second, removed, 201, 2000, Answer{Passed: 200, Limit: 200, First: true}},
		}},
		"a clock that is set back gives nothing": {some, []ask{
			{0, removed, 100, 1000, Answer{Passed: 100}},
			{-time.Hour, removed, 1, 1000, Answer{Limit: 100, First: true}},
		}},
		"shares have no rounding errors": {Limits{Removed: 0.29, Window: time.Minute}, []ask{
			{0, removed, 29, 100, Answer{Passed: 29}},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			g := New(tt.limits)
			for i, a := range tt.asks {
				if got := g.Ask(a.why, a.n, a.online, t0.Add(a.after)); got != a.want {
					t.Errorf("ask %d: %+v, want %+v", i, got, a.want)
				}
			}
		})
	}
}

func TestTakeWhole_SES16(t *testing.T) {
	t.Parallel()
	g := New(Limits{Minimum: 10, NASRestart: 0.5, Window: time.Minute})
	for i, a := range []ask{
		{0, restart, 300, 1000, Answer{Passed: 300}},
		{0, restart, 300, 700, Answer{Limit: 500, First: true}},
		{0, restart, 1, 700, Answer{Limit: 500}},
		{time.Minute, restart, 350, 700, Answer{Passed: 350}},
	} {
		if got := g.AskWhole(a.why, a.n, a.online, t0.Add(a.after)); got != a.want {
			t.Errorf("ask %d: %+v, want %+v", i, got, a.want)
		}
	}
}

func TestDecided_DEL13(t *testing.T) {
	t.Parallel()
	g := New(some)
	g.Ask(removed, 101, 1000, t0)
	g.Ask(expired, 301, 1000, t0)
	g.Decided(removed)
	if got := g.Ask(removed, 90, 900, t0); got.Passed != 90 {
		t.Errorf("after the decision %+v, want a new wave", got)
	}
	if got := g.Ask(expired, 1, 900, t0); got.Passed != 0 {
		t.Errorf("%+v, want the other reason's wave to go on", got)
	}
}

func TestSetLimits(t *testing.T) {
	t.Parallel()
	g := New(Limits{})
	g.SetLimits(some)
	if got := g.Ask(removed, 11, 10, t0); got.Passed != 10 {
		t.Errorf("%+v, want the new limits", got)
	}
	g.SetLimits(Limits{})
	if got := g.Ask(removed, 11, 10, t0); got.Passed != 11 {
		t.Errorf("%+v, want no limits", got)
	}
}

// TestRandomWalk_DEL13: within one window no more passes than twice the largest
// limit: a bucket and its refill. Nothing passes between a hold and the end of
// its wave; each wave reports its first hold once.
func TestRandomWalk_DEL13(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 13))
		l := Limits{Minimum: rnd.IntN(5), Removed: rnd.Float64() * 0.9, Window: time.Minute}
		g := New(l)
		online, now := 100+rnd.IntN(1000), t0
		most := l.of(l.Removed, online)
		type taken struct {
			at time.Time
			n  int
		}
		var history []taken
		holding, last := false, t0.Add(-time.Hour)
		for range 300 {
			now = now.Add(time.Duration(rnd.Int64N(int64(5 * time.Second << rnd.IntN(5)))))
			if rnd.IntN(50) == 0 {
				g.Decided(removed)
				holding, history = false, nil
			}
			n := 1 + rnd.IntN(online/4)
			if now.Sub(last) >= l.Window {
				holding = false
			}
			last = now
			a := g.Ask(removed, n, online, now)
			switch {
			case holding && (a.Passed > 0 || a.First):
				t.Fatalf("seed %d: %+v while the wave is held", seed, a)
			case a.Passed < n && !holding != a.First:
				t.Fatalf("seed %d: %+v, holding %t", seed, a, holding)
			case a.Passed > n || a.Passed < 0:
				t.Fatalf("seed %d: %+v of %d", seed, a, n)
			}
			holding = holding || a.Passed < n
			history = append(history, taken{now, a.Passed})
			within := 0
			for _, h := range history {
				if now.Sub(h.at) < l.Window {
					within += h.n
				}
			}
			if within > 2*most {
				t.Fatalf("seed %d: %d passed within a window, limit %d", seed, within, most)
			}
		}
	}
}
