package subscriber

import (
	"testing"
	"time"
)

// come is an event that arrives at a time after t0, with its own stamp and
// delay.
func come(after time.Duration, stamp time.Time, delay time.Duration) Event {
	return Event{Kind: EventInterim, Arrival: at(after), Stamp: stamp, Delay: delay}
}

const noDelay time.Duration = -1

func TestPlace_SES13(t *testing.T) {
	right := NewClock(0, t0)
	behind := NewClock(-8*time.Hour, t0)
	tests := []struct {
		name   string
		clock  Clock
		stamp  time.Time
		delay  time.Duration
		want   time.Duration // At, after t0
		latest time.Duration
		told   bool
	}{
		{"nothing told", Clock{}, time.Time{}, noDelay, 0, 0, false},
		{"delay", Clock{}, time.Time{}, 90 * time.Second, -90 * time.Second, -90 * time.Second, true},
		{"no delay, told", Clock{}, time.Time{}, 0, 0, 0, true},
		{"absurd delay", Clock{}, time.Time{}, 1 << 31 * time.Second, 0, 0, true},
		{"longest delay", Clock{}, time.Time{}, 48 * time.Hour, -48 * time.Hour, -48 * time.Hour, true},
		{"first stamp of a clock tells nothing", Clock{}, at(-8 * time.Hour), noDelay, 0, 0, false},
		{"late by a known clock", right, at(-time.Hour), noDelay, -time.Hour, 0, true},
		{"prompt by a clock that is behind", behind, at(-8 * time.Hour), noDelay, 0, 0, true},
		{"late by a clock that is behind", behind, at(-9 * time.Hour), noDelay, -time.Hour, 0, true},
		{"never later than it came", right, at(3 * time.Minute), noDelay, 0, 0, true},
		{"never later than its delay", right, at(0), time.Minute, -time.Minute, -time.Minute, true},
		{"a counted delay, and a stamp that agrees", right, at(-61 * time.Second), time.Minute, -61 * time.Second, -time.Minute, true},
		{"a counted delay needs no clock", right, at(-time.Hour), time.Minute, -time.Minute, -time.Minute, true},
		{"no delay told, and late by the clock", right, at(-time.Hour), 0, -time.Hour, 0, true},
		{"clock at 1970", right, time.Unix(3, 0), noDelay, 0, 0, false},
		{"clock in 2036", right, at(10 * 365 * 24 * time.Hour), noDelay, 0, 0, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ev := come(0, tt.stamp, tt.delay)
			tt.clock.Place(&ev)
			if !ev.At.Equal(at(tt.want)) || !ev.Latest.Equal(at(tt.latest)) || ev.Told != tt.told {
				t.Errorf("at %v, latest %v, told %v", ev.At.Sub(t0), ev.Latest.Sub(t0), ev.Told)
			}
		})
	}
}

// TestClockLearns_SES13 feeds a clock events at intervals, ahead by the table's
// values, and checks the final offset.
func TestClockLearns_SES13(t *testing.T) {
	const hour = time.Hour
	repeat := func(n int, ahead time.Duration) (list []time.Duration) {
		for range n {
			list = append(list, ahead)
		}
		return list
	}
	tests := []struct {
		name  string
		every time.Duration
		ahead []time.Duration
		want  time.Duration
	}{
		{"constant", time.Second, repeat(5, -8*hour), -8 * hour},
		{"set forward: at once", time.Second, []time.Duration{0, hour}, hour},
		{"one late event changes nothing", time.Second, []time.Duration{0, -hour, 0}, 0},
		{"set back: two that agree", 10 * time.Second, append(repeat(3, 240*time.Second), 0, 0), 0},
		{"set back, not long ago", time.Second, append(repeat(3, 240*time.Second), 0, 0, 0), 240 * time.Second},
		{"late ones among prompt ones", 5 * time.Second, []time.Duration{0, -hour, 0, -hour, 0}, 0},
		{"a queue that is played back", 5 * time.Second, []time.Duration{0, -hour, -hour + 4*time.Minute, -hour + 8*time.Minute, -hour + 12*time.Minute}, 0},
		{"set back on a quiet NAS: two windows", 10 * time.Minute, append(repeat(2, hour), -10*time.Minute, -20*time.Minute), -10 * time.Minute},
		{"drifts back", time.Minute, []time.Duration{0, 0, -time.Second, -time.Second, -time.Second, -2 * time.Second, -2 * time.Second, -2 * time.Second,
			-2 * time.Second, -2 * time.Second, -2 * time.Second, -2 * time.Second, -2 * time.Second, -2 * time.Second, -2 * time.Second}, -2 * time.Second},
		{"set to 1970 and back", time.Second, []time.Duration{0, -50 * 365 * 24 * hour, 0}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var c Clock
			for i, ahead := range tt.ahead {
				now := time.Duration(i) * tt.every
				ev := come(now, at(now+ahead), noDelay)
				c.Place(&ev)
				if ev.At.After(ev.Latest) {
					t.Fatalf("reading %d: after it came", i)
				}
			}
			if got, known := c.Offset(); !known || got != tt.want {
				t.Errorf("offset %v, known %v, want %v", got, known, tt.want)
			}
		})
	}
}

// TestRestartedClockIsDoubtful_SES15: the stamp of a restart teaches nothing,
// and the next stamp, somewhat behind the known offset, is the new clock. A
// stamp far behind is taken for late, until a second one agrees.
func TestRestartedClockIsDoubtful_SES15(t *testing.T) {
	for ahead, want := range map[time.Duration]time.Duration{
		0: 0, -45 * time.Second: 0, 3 * time.Minute: 0, -3 * time.Minute: -3 * time.Minute, -2 * time.Hour: -2 * time.Hour,
	} {
		c := NewClock(0, t0)
		on := come(time.Minute, at(4*time.Minute), noDelay)
		on.Kind = EventAccountingOn
		c.Place(&on)
		if offset, known := c.Offset(); !known || offset != 0 || !on.At.Equal(at(time.Minute)) {
			t.Errorf("after the restart: offset %v, known %v, at %v", offset, known, on.At.Sub(t0))
		}
		ev := come(2*time.Minute, at(2*time.Minute+ahead), noDelay)
		if c.Place(&ev); !ev.At.Equal(at(2*time.Minute + want)) {
			t.Errorf("ahead by %v: at %v", ahead, ev.At.Sub(t0))
		}
		again := come(3*time.Minute, at(3*time.Minute+ahead), noDelay)
		c.Place(&again)
		if offset, _ := c.Offset(); offset != ahead {
			t.Errorf("ahead by %v: offset %v", ahead, offset)
		}
	}
}

func TestPlaceOfRestarts_SES15(t *testing.T) {
	c := NewClock(0, t0)
	late := come(time.Hour, at(time.Hour-30*time.Second), noDelay)
	late.Kind = EventAccountingOff
	c.Place(&late)
	if !late.At.Equal(at(time.Hour - 30*time.Second)) {
		t.Errorf("a restart that the network delayed: at %v", late.At.Sub(t0))
	}
	set := come(3*time.Hour, at(time.Hour), noDelay)
	set.Kind = EventAccountingOn
	c.Place(&set)
	if !set.At.Equal(at(3 * time.Hour)) {
		t.Errorf("a restart with a clock that was set back: at %v", set.At.Sub(t0))
	}
}

// TestAstray_SES13: a stamp is reported if it is too far off for its NAS's
// clock.
func TestAstray_SES13(t *testing.T) {
	const day = 24 * time.Hour
	for _, tt := range []struct{ ahead, want time.Duration }{
		{0, 0}, {-8 * time.Hour, 0}, {2 * day, 0}, {-2 * day, 0},
		{2*day + time.Second, 2*day + time.Second}, {-2*day - time.Second, -2*day - time.Second}, {-56 * 365 * day, -56 * 365 * day},
	} {
		var c Clock
		ev := come(0, at(tt.ahead), noDelay)
		c.Place(&ev)
		if got := ev.Astray(); got != tt.want {
			t.Errorf("ahead by %v: astray by %v", tt.ahead, got)
		}
		if _, learned := c.Offset(); learned == (tt.want != 0) {
			t.Errorf("ahead by %v: learned from what is astray, or not from what is not", tt.ahead)
		}
	}
	silent := come(0, time.Time{}, noDelay)
	if got := silent.Astray(); got != 0 {
		t.Errorf("without a stamp: astray by %v", got)
	}
}
