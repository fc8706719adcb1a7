package main

import (
	"errors"
	"testing"
	"time"
)

// TestMoment: the forms of a time in an argument; local ones are of the zone of the present time.
func TestMoment(t *testing.T) {
	t.Parallel()
	zone := time.FixedZone("CET", 3600)
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, zone)
	for text, want := range map[string]time.Time{
		"2026-03-01T12:30:00Z":      time.Date(2026, 3, 1, 12, 30, 0, 0, time.UTC),
		"2026-03-01T12:30:00+02:00": time.Date(2026, 3, 1, 10, 30, 0, 0, time.UTC),
		"2026-03-01 12:30:15":       time.Date(2026, 3, 1, 12, 30, 15, 0, zone),
		"2026-03-01 12:30":          time.Date(2026, 3, 1, 12, 30, 0, 0, zone),
		"2026-03-01T12:30":          time.Date(2026, 3, 1, 12, 30, 0, 0, zone),
		"2026-02-28":                time.Date(2026, 2, 28, 0, 0, 0, 0, zone),
		"09:15":                     time.Date(2026, 3, 1, 9, 15, 0, 0, zone),
		"09:15:30":                  time.Date(2026, 3, 1, 9, 15, 30, 0, zone),
		"-90m":                      now.Add(-90 * time.Minute),
		"-1h30m":                    now.Add(-90 * time.Minute),
		"-2d":                       time.Date(2026, 2, 27, 12, 0, 0, 0, zone),
		"-0s":                       now,
	} {
		if got, err := moment("--at", text, now); err != nil || !got.Equal(want) {
			t.Errorf("%q is %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "noon", "-", "-1", "--1h", "1h", "-1w", "-1.5d", "-99999999d", "25:00", "2026-13-01", "2026-03-01T12:30:00Zx"} {
		if got, err := moment("--at", text, now); !errors.As(err, new(usageError)) {
			t.Errorf("%q is %v, %v", text, got, err)
		}
	}
}

// FuzzMoment: no text makes it panic, and a time ago is not in the future.
func FuzzMoment(f *testing.F) {
	for _, text := range []string{"-1h", "-2d", "12:30", "2026-03-01", "-9223372036854775808ns"} {
		f.Add(text)
	}
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, text string) {
		got, err := moment("--at", text, now)
		if err == nil && len(text) > 0 && text[0] == '-' && got.After(now) {
			t.Errorf("%q is %v", text, got)
		}
	})
}
