package txn

import (
	"testing"
	"time"
)

// TestTombstonesBounded_I10: beyond the limit tombstones live for a short time only, until
// the earlier ones have expired.
func TestTombstonesBounded_I10(t *testing.T) {
	for name, octets := range map[string]int{"by number": 1, "by octets": 1000} {
		tomb := newTombstones(24*time.Hour, 100, 100_000)
		if octets > 1 {
			tomb.entries.Alone = 1_000_000
		}
		now := time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
		for i := range 150 {
			want := 24 * time.Hour
			if i >= 100 {
				want = CrowdedTTL
			}
			for range 3 { // ttl alone uses no share
				if got, crowded := tomb.ttl("greedy", now); got != want || crowded != (i >= 100) {
					t.Fatalf("%s, after %d: %v, want %v", name, i, got, want)
				}
			}
			if i < 100 {
				tomb.wrote("greedy", octets, now)
			}
			now = now.Add(time.Second)
		}
		for i := range 10 {
			if got, _ := tomb.ttl("other", now); got != tomb.full {
				t.Errorf("%s: %d of another client: %v", name, i, got)
			}
			tomb.wrote("other", octets, now)
		}
		if got, _ := tomb.ttl("greedy", now.Add(25*time.Hour)); got != tomb.full {
			t.Errorf("%s, a day later: %v", name, got)
		}
	}
}
