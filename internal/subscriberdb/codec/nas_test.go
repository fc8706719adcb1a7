package codec

import (
	"testing"
	"time"
)

func TestNASLine(t *testing.T) {
	whole := NASLine{
		LastHeard: t0, Offset: -8 * time.Hour, Known: true, Unheeded: 80 * 365 * 24 * time.Hour,
		Restarted: t0.Add(time.Nanosecond), SameAs: NASName{"a b", "c/d"},
	}
	const line = "heard=2026-03-01T10:00:00Z offset=-28800 unheeded=2522880000 restarted=2026-03-01T10:00:00.000000001Z same_as=a%20b/c%2Fd"
	if got := whole.Format(); got != line {
		t.Errorf("written %q, want %q", got, line)
	}
	if got := ParseNASLine(line + " later=version"); got != whole {
		t.Errorf("read %+v, want %+v", got, whole)
	}
	for _, bad := range []string{"", "heard", "heard=x offset=1.5 same_as=x restarted=", "offset=99999999999", "unheeded=-99999999999 same_as=%"} {
		if got := ParseNASLine(bad); got != (NASLine{}) {
			t.Errorf("%q: %+v", bad, got)
		}
	}
}

// FuzzParseNAS: a parsed line is written in a form that is parsed to the same data.
func FuzzParseNAS(f *testing.F) {
	f.Add("heard=2026-03-01T10:00:00Z offset=-28800 restarted=2026-03-01T10:00:00.5Z same_as=a%20b/c")
	f.Add("heard=9999-12-31T23:59:59-23:59 unheeded=-1767225600 same_as=/")
	f.Add("heard=0000-01-01T00:00:00+01:00 offset=0 offset=x")
	f.Fuzz(func(t *testing.T, line string) {
		n := ParseNASLine(line)
		if again := ParseNASLine(n.Format()); again != n {
			t.Errorf("%q is read as %+v, then as %+v", line, n, again)
		}
	})
}
