package nat

import (
	"regexp"
	"testing"
)

// TestDropsAreLabels: each drop is listed once, explained, and made of words that serve as
// labels and in names of counters.
func TestDropsAreLabels(t *testing.T) {
	word := regexp.MustCompile(`^[a-z]+(_[a-z]+)*$`)
	seen := map[Drop]bool{}
	for _, d := range Drops() {
		if seen[d] {
			t.Errorf("%v is listed twice", d)
		}
		seen[d] = true
		if !word.MatchString(string(d.Reason)) || !word.MatchString(string(d.Direction)) {
			t.Errorf("%v is no label", d)
		}
		if m := d.Meaning(); m == "" || len(m) > 120 {
			t.Errorf("%v is explained as %q, of %d octets: nft takes a comment of up to 127", d, m, len(m))
		}
	}
	if m := (Drop{DropNoBlock, DropLocal}).Meaning(); m != "" {
		t.Errorf("a drop that is not listed is explained as %q", m)
	}
}
