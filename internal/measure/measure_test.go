package measure

import (
	"math"
	"testing"
	"time"
)

func TestSpan(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 0: "0s", 400 * time.Millisecond: "0s", 45 * time.Second: "45s",
		60 * time.Second: "1m", 61 * time.Second: "1m1s", 7440 * time.Second: "2h4m",
		24 * time.Hour: "1d", 79 * time.Hour: "3d7h", 59*time.Second + 900*time.Millisecond: "1m",
	} {
		if got := Span(d); got != want {
			t.Errorf("Span(%v) = %s, want %s", d, got, want)
		}
	}
}

func TestOctets(t *testing.T) {
	t.Parallel()
	for n, want := range map[uint64]string{
		0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 1<<20 - 1: "1.0 MiB", 5 << 30: "5.0 GiB", math.MaxUint64: "16.0 EiB",
	} {
		if got := Octets(n); got != want {
			t.Errorf("Octets(%d) = %s, want %s", n, got, want)
		}
	}
}

func TestCount(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]string{
		0: "0", 7: "7", 999: "999", 1000: "1,000", 1_234_567: "1,234,567", -999: "-999", -123_456: "-123,456", math.MinInt64: "-9,223,372,036,854,775,808",
	} {
		if got := Count(n); got != want {
			t.Errorf("Count(%d) = %s, want %s", n, got, want)
		}
	}
}

func TestBrief(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		0: "0.00 ms", 790 * time.Microsecond: "0.79 ms", 12400 * time.Microsecond: "12.4 ms", 250 * time.Millisecond: "250 ms",
		999*time.Millisecond + 600*time.Microsecond: "1.00 s", 3100 * time.Millisecond: "3.10 s",
	} {
		if got := Brief(d); got != want {
			t.Errorf("Brief(%v) = %s, want %s", d, got, want)
		}
	}
}

func TestRate(t *testing.T) {
	t.Parallel()
	for r, want := range map[float64]string{0: "0", 0.25: "0.25", 12.34: "12.3", 99.96: "100", 1234.4: "1,234"} {
		if got := Rate(r); got != want {
			t.Errorf("Rate(%v) = %s, want %s", r, got, want)
		}
	}
}
