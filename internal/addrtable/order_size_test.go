package addrtable

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/sessiond/sessiond/internal/addrrange"
)

// TestOrderShrinks: buckets that became small are joined, so that an order that was large is none
// for ever.
func TestOrderShrinks(t *testing.T) {
	const n = 20_000
	name := func(i uint32) string { return fmt.Sprint("u", i*7919%n) }
	names := map[string]string{}
	x := NewOrder(func(a netip.Addr) string { return names[a.String()] })
	for i := range uint32(n) {
		a := addrrange.Address(i)
		names[a.String()] = name(i)
		x.Add(name(i), a)
	}
	full := len(x.buckets)
	for i := range uint32(n) {
		if i%50 != 0 {
			x.Remove(name(i), addrrange.Address(i))
		}
	}
	if left := len(x.buckets); full < n/bucketSize || left > 20 || x.Len() != n/50 {
		t.Errorf("%d addresses in %d buckets, of %d", x.Len(), left, full)
	}
}
