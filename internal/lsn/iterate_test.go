package lsn

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/nat"
)

// TestBindingsFrom: in pieces of any size every binding comes once, and
// addresses come in order, however far they are apart.
func TestBindingsFrom(t *testing.T) {
	e, err := New([]GroupConfig{{
		Name: "default", Inside: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")},
		Outside:   []netip.Prefix{netip.MustParsePrefix("198.51.100.0/28")},
		FirstPort: 1024, LastPort: 65535, BlockSize: 512, Hold: time.Minute,
	}})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1000, 0)
	for _, a := range []string{"0.0.0.1", "10.0.0.0", "10.0.0.255", "10.0.1.0", "10.255.255.255", "100.64.0.1", "255.255.255.255"} {
		h := nat.Holder{Inside: netip.MustParseAddr(a)}
		for range 3 { // three holds, and then a live one
			if _, err := e.Allocate("default", h, now); err != nil {
				t.Fatal(err)
			}
			_, _ = e.Cut("default", h.Inside, now)
			_, _ = e.Hold("default", h.Inside, now)
		}
		if _, err := e.Allocate("default", h, now); err != nil {
			t.Fatal(err)
		}
	}
	var want []nat.Block
	e.Bindings("default", func(b nat.Binding) bool { want = append(want, b.Block); return true })
	if held := e.Held("default"); len(want) != 7*4 || held != 7*3 {
		t.Fatalf("%d bindings, %d held", len(want), held)
	}
	for _, n := range []int{1, 2, 100, 255, 256, 257, 100_000} {
		var got []nat.Block
		var last netip.Addr
		next := netip.Addr{}
		for more := true; more; more = next.IsValid() {
			next = e.BindingsFrom("default", next, n, func(b nat.Binding) {
				if b.Inside.Less(last) {
					t.Errorf("%v after %v", b.Inside, last)
				}
				last = b.Inside
				got = append(got, b.Block)
			})
		}
		for _, b := range want {
			if !slices.Contains(got, b) {
				t.Errorf("in pieces of %d: %v is missing", n, b)
			}
		}
		if len(got) != len(want) {
			t.Errorf("in pieces of %d: %d bindings, want %d", n, len(got), len(want))
		}
	}
}
