package subscriber

import (
	"testing"
	"time"
)

func TestEventTime_SES13(t *testing.T) {
	tests := []struct {
		name  string
		stamp time.Time
		delay time.Duration
		want  time.Time
	}{
		{"no stamp", time.Time{}, 0, t0},
		{"delay", time.Time{}, 90 * time.Second, t0.Add(-90 * time.Second)},
		{"stamp", t0.Add(-time.Hour), time.Minute, t0.Add(-time.Hour)},
		{"oldest stamp", t0.Add(-48 * time.Hour), 0, t0.Add(-48 * time.Hour)},
		{"too old", t0.Add(-48*time.Hour - time.Second), 0, t0},
		{"clock at 1970", time.Unix(3, 0), time.Second, t0.Add(-time.Second)},
		{"a little ahead", t0.Add(5 * time.Minute), 0, t0.Add(5 * time.Minute)},
		{"a day ahead", t0.Add(24 * time.Hour), 0, t0},
		{"negative delay", time.Time{}, -time.Hour, t0},
		{"absurd delay", time.Time{}, 1 << 32 * time.Second, t0},
		{"longest delay", time.Time{}, 48 * time.Hour, t0.Add(-48 * time.Hour)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := EventTime(t0, tt.stamp, tt.delay); !got.Equal(tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestReasonNames(t *testing.T) {
	for r := ReasonNone; r <= ReasonRemovedInDatabase; r++ {
		if got, err := ParseReason(r.String()); err != nil || got != r {
			t.Errorf("%d: %q parses to %d, %v", r, r, got, err)
		}
	}
	if _, err := ParseReason("NOPE"); err == nil {
		t.Error("unknown name parsed")
	}
}

func TestCompareVersions(t *testing.T) {
	ordered := []string{"", "0-1", "5-0", "5-2", "5-10", "40-0", "18446744073709551615-0"}
	for i, a := range ordered {
		for j, b := range ordered {
			want := 0
			if i < j {
				want = -1
			} else if i > j {
				want = 1
			}
			if got := CompareVersions(a, b); got != want {
				t.Errorf("%q against %q: %d, want %d", a, b, got, want)
			}
		}
	}
}

// TestTablesAreComplete: every standing that can be ignored has a verdict, and
// every scope has a row for every standing.
func TestTablesAreComplete(t *testing.T) {
	for scope, rows := range sessionRules {
		for standing, row := range rows {
			for kind, step := range row {
				if step == StepIgnore && ignored[standing] == NotHere {
					t.Errorf("scope %d, standing %d, kind %d is ignored without a verdict", scope, standing, kind)
				}
			}
		}
	}
}
