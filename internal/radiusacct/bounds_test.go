package radiusacct

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// TestBounds: an address is within bounds if it is within any of the prefixes, also if
// these overlap or touch.
func TestBounds(t *testing.T) {
	for _, tt := range []struct {
		prefixes       []string
		within, beyond []string
	}{
		{prefixes: []string{}, beyond: []string{"0.0.0.0", "100.64.0.1", "255.255.255.255"}},
		{prefixes: []string{"0.0.0.0/0"}, within: []string{"0.0.0.0", "100.64.0.1", "255.255.255.255"}},
		{prefixes: []string{"100.64.0.9/32"}, within: []string{"100.64.0.9"}, beyond: []string{"100.64.0.8", "100.64.0.10"}},
		{
			prefixes: []string{"100.64.2.0/24", "100.64.0.0/23", "100.64.0.128/25", "100.80.0.0/12"},
			within:   []string{"100.64.0.0", "100.64.1.255", "100.64.2.0", "100.64.2.255", "100.80.0.0", "100.95.255.255"},
			beyond:   []string{"100.63.255.255", "100.64.3.0", "100.79.255.255", "100.96.0.0"},
		},
		{prefixes: []string{"255.255.255.255/32", "255.255.255.254/32"}, within: []string{"255.255.255.255"}, beyond: []string{"255.255.255.253"}},
	} {
		prefixes := []netip.Prefix{}
		for _, p := range tt.prefixes {
			prefixes = append(prefixes, netip.MustParsePrefix(p))
		}
		b := newInsideBounds(prefixes)
		for _, a := range slices.Concat(tt.within, tt.beyond) {
			if got, want := b.allow(netip.MustParseAddr(a)), slices.Contains(tt.within, a); got != want {
				t.Errorf("%v: %v is within: %t, want %t", tt.prefixes, a, got, want)
			}
		}
		if !b.allow(netip.Addr{}) {
			t.Errorf("%v: no address is out of bounds", tt.prefixes)
		}
	}
	if b := newInsideBounds(nil); b != nil {
		t.Errorf("a client without bounds has %v", b)
	}
}

// TestBoundsMarkEachAddress: of a session with several addresses, only those out of bounds
// are marked.
func TestBoundsMarkEachAddress(t *testing.T) {
	inside := func(a string) subscriber.Event { return subscriber.Event{Inside: netip.MustParseAddr(a)} }
	first, more := inside("100.64.0.1"), []subscriber.Event{inside("100.65.0.1"), inside("100.64.0.2")}
	newInsideBounds([]netip.Prefix{netip.MustParsePrefix("100.64.0.0/16")}).mark(&first, more)
	if first.ForeignInside || !more[0].ForeignInside || more[1].ForeignInside {
		t.Errorf("marked: %t, %t, %t", first.ForeignInside, more[0].ForeignInside, more[1].ForeignInside)
	}
}
