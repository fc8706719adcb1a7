package lifecycle

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// TestSlotIndex compares it with a map.
func TestSlotIndex(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	index, want := newSlotIndex(), map[netip.Addr]*Slot{}
	for range 20_000 {
		inside := netip.AddrFrom4([4]byte{100, 64, byte(random.IntN(3)), byte(random.IntN(8) * 37)})
		if random.IntN(10) == 0 {
			inside = netip.AddrFrom16([16]byte{15: byte(random.IntN(4))})
		}
		switch random.IntN(3) {
		case 0:
			index.remove(inside)
			delete(want, inside)
		case 1:
			s := &Slot{}
			index.put(inside, s)
			want[inside] = s
		}
		if got := index.at(inside); got != want[inside] {
			t.Fatalf("at %v: %v, want %v", inside, got, want[inside])
		}
		if want[inside] != nil && inside.Is4() && index.lookedAt(inside) == nil {
			t.Fatalf("nobody can look at %v", inside)
		}
		if index.len != len(want) {
			t.Fatalf("%d slots, want %d", index.len, len(want))
		}
	}
	if got := maps.Collect(index.All()); !maps.Equal(got, want) {
		t.Errorf("all are %v, want %v", got, want)
	}
	for inside := range want {
		index.remove(inside)
	}
	if index.table.Len()+len(index.other)+index.len != 0 {
		t.Errorf("%d slots are left of none", index.len)
	}
}

// TestOnlineIndexForgets: removed records leave nothing behind, not even names.
func TestOnlineIndexForgets(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	names := map[netip.Addr]string{}
	x := newOnlineIndex(func(a netip.Addr) string { return names[a] })
	var records []subscriber.Packed
	for i := range 1000 {
		r := subscriber.Record{
			Key:       subscriber.Key{Group: fmt.Sprint("g", random.IntN(3)), Inside: nth(i)},
			SessionID: subscriber.SessionID{Client: "bng1", NAS: fmt.Sprint("nas", random.IntN(5))},
			UserName:  fmt.Sprint("u", random.IntN(100)),
		}
		records = append(records, r.Pack())
		names[r.Inside] = r.UserName
		x.add(&records[i])
	}
	if x.users.Len() == 0 || x.names.Len() != len(records) || x.Count("", "") != len(records) || x.Count("g1", "nas2") == 0 || x.Count("g1", "nas2") >= x.Count("g1", "") || x.nases.Len() == 0 || len(x.groups) != 3 || len(x.origins) != 15 || len(x.ByNAS()) != 5 {
		t.Fatalf("%d users, %d NASes, %d groups, %d origins, counts %v", x.users.Len(), x.nases.Len(), len(x.groups), len(x.origins), x.ByNAS())
	}
	for _, i := range random.Perm(len(records)) {
		x.remove(&records[i])
	}
	if n := len(x.groups) + len(x.origins) + x.users.Len() + x.nases.Len() + x.names.Len(); n > 0 {
		t.Errorf("of nobody, %d groups, %d origins, %d names and %d places are left", len(x.groups), len(x.origins), x.users.Len(), x.nases.Len())
	}
}
