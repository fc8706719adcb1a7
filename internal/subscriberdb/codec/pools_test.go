package codec

import (
	"net/netip"
	"slices"
	"testing"
	"time"
)

func TestPoolChanges(t *testing.T) {
	changes := []PoolChange{
		{netip.MustParsePrefix("198.51.100.0/28"), PoolAdded, time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)},
		{netip.MustParsePrefix("203.0.113.7/32"), PoolCut, time.Date(2026, 3, 1, 12, 0, 1, 0, time.UTC)},
	}
	text, err := FormatPoolChanges(changes)
	if err != nil {
		t.Fatal(err)
	}
	if want := `[{"prefix":"198.51.100.0/28","change":"added","at":"2026-03-01T12:00:00Z"},{"prefix":"203.0.113.7/32","change":"cut","at":"2026-03-01T12:00:01Z"}]`; string(text) != want {
		t.Errorf("text %s, want %s", text, want)
	}
	if again, err := ParsePoolChanges(text); err != nil || !slices.Equal(again, changes) {
		t.Errorf("parsed %v, %v", again, err)
	}
	for _, text := range []string{
		"", "{}", `[{"prefix":"2001:db8::/32","change":"added"}]`, `[{"prefix":"198.51.100.1/28","change":"added"}]`,
		`[{"change":"added"}]`, `[{"prefix":"198.51.100.0/28","change":"sold"}]`,
	} {
		if changes, err := ParsePoolChanges([]byte(text)); err == nil {
			t.Errorf("%s is taken for %v", text, changes)
		}
	}
}
