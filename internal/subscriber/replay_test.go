package subscriber

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/testenv"
)

// TestReplays_SES10: any packet of a NAS without Event-Timestamps, repeated to
// the octet at any time, costs no other session its address; and a Start does
// not bring back a session that has ended.
func TestReplays_SES10(t *testing.T) {
	for seed := range uint64(testenv.Walks(1500)) {
		rng := rand.New(rand.NewPCG(seed, 7))
		events, _ := history(rng, 1+rng.IntN(3), 4+rng.IntN(30))
		w := newWorld()
		for i, ev := range events {
			w.apply(t, replayable(ev, i, ev.At))
			if rng.IntN(3) > 0 {
				continue
			}
			n := rng.IntN(i + 1)
			late := replayable(events[n], n, ev.At.Add(time.Duration(rng.IntN(9))*time.Second))
			stood := map[string]bool{}
			for inside, r := range w.records {
				stood[inside.String()+" "+r.AcctSessionID] = true
			}
			d := w.apply(t, late)
			for inside, r := range w.records {
				delete(stood, inside.String()+" "+r.AcctSessionID)
			}
			delete(stood, late.Inside.String()+" "+late.AcctSessionID)
			if len(stood) > 0 || late.Kind == EventStart && d.Created {
				t.Fatalf("seed %d: kind %d of session %s, %v old, again: %v, ends %v", seed, late.Kind, late.AcctSessionID,
					late.Arrival.Sub(events[n].At), d.Verdict, stood)
			}
		}
	}
}

// replayable is an event as its packet gives it on arrival, without a time of
// its own.
func replayable(ev Event, number int, arrival time.Time) Event {
	ev.Digest, ev.Stamp, ev.At, ev.Arrival, ev.Delay = uint64(number+1), time.Time{}, time.Time{}, arrival, -1
	new(Clock).Place(&ev)
	return ev
}

// TestRestartPackets_SES15: the packets of the last restarts are recognised,
// and no others.
func TestRestartPackets_SES15(t *testing.T) {
	var known Restart
	on := func(digest uint64, after time.Duration) Verdict {
		ev := Event{Kind: EventAccountingOn, Digest: digest, Arrival: at(after), Delay: -1}
		new(Clock).Place(&ev)
		d := Decide(View{Group: "g", Restart: known}, ev)
		if d.Restart != nil {
			known = *d.Restart
		}
		return d.Verdict
	}
	for i := range 2 * maxPackets {
		if v := on(uint64(i)<<40+1, time.Duration(i)*time.Hour); v != Restarted {
			t.Fatalf("restart %d: %v", i, v)
		}
	}
	for i := range 2 * maxPackets {
		want := RestartRepeated
		if i < maxPackets {
			want = Restarted
		}
		before := known
		if v := on(uint64(i)<<40+1, 100*time.Hour); v != want {
			t.Errorf("the packet of restart %d: %v, want %v", i, v, want)
		}
		known = before
	}
	if v := on(0, 200*time.Hour); v != Restarted || known.told(0) {
		t.Errorf("without a digest: %v", v)
	}
}

// TestLongAgo_SES11: an event that is older than the memory of session ends
// opens no session, however far back a known clock puts it; a clock that lost
// its time becomes unknown.
func TestLongAgo_SES11(t *testing.T) {
	day := 24 * time.Hour
	for name, tt := range map[string]struct {
		stamp, delay time.Duration // of the Start, before its arrival; delay negative for none
		known        bool
		want         Verdict
	}{
		"prompt":                       {0, -1, true, Opened},
		"23 h":                         {23 * time.Hour, -1, true, Opened},
		"a clock set back by a day":    {24*time.Hour + time.Minute, -1, true, Opened},
		"26 h":                         {26 * time.Hour, -1, true, Outdated},
		"26 h, counted":                {26 * time.Hour, 26 * time.Hour, true, Outdated},
		"49 h":                         {49 * time.Hour, -1, true, Outdated},
		"29 days":                      {29 * day, -1, true, Outdated},
		"a clock of a year ago":        {365 * day, -1, true, Opened},
		"a clock ahead":                {-20 * day, -1, true, Opened},
		"49 h, of a clock not known":   {49 * time.Hour, -1, false, Opened},
		"26 h, of a clock not known":   {26 * time.Hour, -1, false, Opened},
		"counted, of one not known":    {0, 26 * time.Hour, false, Outdated},
		"without a stamp, and counted": {-1, 26 * time.Hour, true, Outdated},
	} {
		var c Clock
		if tt.known {
			c = NewClock(0, t0)
		}
		ev := Event{Kind: EventStart, SessionID: me, Inside: home, Arrival: t0, Delay: tt.delay, SessionTime: -1}
		if tt.stamp != -1 {
			ev.Stamp = t0.Add(-tt.stamp)
		}
		c.Place(&ev)
		if d := Decide(View{Group: "g"}, ev); d.Verdict != tt.want {
			t.Errorf("%s: %v, want %v", name, d.Verdict, tt.want)
		}
	}
	c := NewClock(0, t0)
	for i := range 3 {
		ev := Event{Kind: EventStart, SessionID: me, Inside: home, Arrival: at(time.Duration(i) * 10 * time.Second), Delay: -1}
		ev.Stamp = ev.Arrival.Add(-5 * day)
		c.Place(&ev)
		if old := ev.forgotten(); old != (i == 0) {
			t.Errorf("a clock set back by days, event %d: old is %t", i, old)
		}
	}
}
