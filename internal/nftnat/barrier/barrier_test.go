package barrier

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/net/bpf"

	"github.com/sessiond/sessiond/internal/addrrange"
)

// TestProgram runs the decision on addresses at the edges of ranges.
func TestProgram(t *testing.T) {
	for _, tc := range []struct{ prefixes []string }{
		{nil},
		{[]string{"100.64.0.0/10"}},
		{[]string{"10.0.0.0/8", "100.64.0.0/16", "100.66.0.0/16", "192.168.1.7/32"}},
		{[]string{"0.0.0.0/1", "255.255.255.255/32"}},
		{[]string{"0.0.0.0/0"}},
	} {
		var prefixes []netip.Prefix
		for _, p := range tc.prefixes {
			prefixes = append(prefixes, netip.MustParsePrefix(p))
		}
		vm, err := bpf.NewVM(append([]bpf.Instruction{bpf.LoadAbsolute{Off: 0, Size: 4}}, dropWithin(addrrange.Of(prefixes))...))
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range append(addrrange.Of(prefixes), addrrange.Range{Last: 1<<32 - 1}, addrrange.Range{First: 0x08080808, Last: 0x08080808}) {
			for _, at := range []uint32{s.First - 1, s.First, s.First + 1, s.Last - 1, s.Last, s.Last + 1} {
				verdict, err := vm.Run(binary.BigEndian.AppendUint32(nil, at))
				if err != nil {
					t.Fatal(err)
				}
				address := netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, at)))
				inside := slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(address) })
				if dropped := uint32(verdict) == actDrop; dropped != inside {
					t.Errorf("%v: %v is dropped: %t", tc.prefixes, address, dropped)
				}
			}
		}
	}
	many := make(addrrange.Set, maxRanges+1)
	if _, err := compile(many[:maxRanges]); err != nil {
		t.Errorf("%d ranges: %v", maxRanges, err)
	}
	if _, err := compile(many); err == nil {
		t.Error("a program that the kernel refuses was made")
	}
}
