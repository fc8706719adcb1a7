package lifecycle

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/subscriber"
)

func TestTimersKeepOneEntryAnAddress(t *testing.T) {
	t0 := time.Unix(1000, 0)
	a, b := netip.MustParseAddr("100.64.0.1"), netip.MustParseAddr("100.64.0.2")
	timers := newTimers(func() {})
	timers.expire(a, time.Time{}) // never expires
	timers.expire(a, t0.Add(60*time.Second))
	timers.expire(a, t0.Add(90*time.Second)) // an Interim: noticed when the first entry is due
	timers.expire(b, t0.Add(80*time.Second))
	timers.expire(b, t0.Add(20*time.Second)) // earlier: must not wait for the first entry

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

// TestTimersTakeWhatPeopleWrite: the key of a record may contain an IPv6
// address, and a record may expire in centuries.
func TestTimersTakeWhatPeopleWrite(t *testing.T) {
	timers := newTimers(func() {})
	timers.expire(netip.MustParseAddr("2001:db8::1"), time.Unix(1000, 0))
	far := subscriber.Record{ExpiresAt: time.Date(2500, 1, 1, 0, 0, 0, 0, time.UTC)}
	packed := far.Pack()
	timers.expire(netip.MustParseAddr("100.64.0.7"), packed.ExpiresAt())
	timers.expire(netip.MustParseAddr("100.64.0.8"), far.ExpiresAt)
	if got := timers.pop(time.Unix(2000, 0)); len(got) > 0 {
		t.Errorf("%v are due", got)
	}
}
