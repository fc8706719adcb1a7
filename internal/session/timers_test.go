package session

import (
	"net/netip"
	"slices"
	"testing"
	"time"
)

func TestTimersKeepOneEntryAnAddress(t *testing.T) {
	t0 := time.Unix(1000, 0)
	a, b := netip.MustParseAddr("100.64.0.1"), netip.MustParseAddr("100.64.0.2")
	timers := newTimers()
	timers.expire(a, time.Time{}) // never expires
	timers.expire(a, t0.Add(60*time.Second))
	timers.expire(a, t0.Add(90*time.Second)) // an Interim: found out when the first comes up
	timers.expire(b, t0.Add(80*time.Second))
	timers.expire(b, t0.Add(20*time.Second)) // earlier: must not wait for the first

	steps := []struct {
		after time.Duration
		want  []netip.Addr
	}{
		{19 * time.Second, nil},
		{21 * time.Second, []netip.Addr{b}},
		{61 * time.Second, []netip.Addr{a}},
		{200 * time.Second, nil}, // b's later entry was replaced
	}
	for _, step := range steps {
		if got := timers.pop(t0.Add(step.after)); !slices.Equal(got, step.want) {
			t.Errorf("after %v: %v, want %v", step.after, got, step.want)
		}
	}
	if _, ok := timers.next(); ok {
		t.Error("entries are left")
	}
}
