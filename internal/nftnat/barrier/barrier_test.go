package barrier

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/net/bpf"

	"github.com/sessiond/sessiond/internal/addrrange"
)

// TestProgramWithDestinations: an address within the ranges is decided on by the instructions
// that follow, wherever its range is in the list.
func TestProgramWithDestinations(t *testing.T) {
	of := func(prefixes ...string) (ranges addrrange.Set) {
		var list []netip.Prefix
		for _, p := range prefixes {
			list = append(list, netip.MustParsePrefix(p))
		}
		return addrrange.Of(list)
	}
	code := append([]bpf.Instruction{bpf.LoadAbsolute{Off: 0, Size: 4}}, within(of("10.0.0.0/8", "100.64.0.0/16", "192.168.0.0/24"), false)...)
	code = append(code, bpf.LoadAbsolute{Off: 4, Size: 4})
	vm, err := bpf.NewVM(append(code, passWithin(of("192.0.2.0/24", "203.0.113.7/32"))...))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		from, to string
		drop     bool
	}{
		{"10.0.0.1", "192.0.2.1", false}, {"10.0.0.1", "192.0.3.0", true}, {"100.64.0.0", "203.0.113.7", false},
		{"192.168.0.255", "203.0.113.7", false}, {"192.168.0.255", "203.0.113.8", true}, {"192.168.0.1", "1.1.1.1", true},
		{"8.8.8.8", "1.1.1.1", false}, {"192.168.1.0", "203.0.113.6", false}, {"100.65.0.0", "1.1.1.1", false},
	} {
		from, to := netip.MustParseAddr(tt.from).As4(), netip.MustParseAddr(tt.to).As4()
		verdict, err := vm.Run(append(from[:], to[:]...))
		if err != nil {
			t.Fatal(err)
		}
		if dropped := uint32(verdict) == actDrop; dropped != tt.drop {
			t.Errorf("from %s to %s is dropped: %t", tt.from, tt.to, dropped)
		}
	}
}

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
		vm, err := bpf.NewVM(append([]bpf.Instruction{bpf.LoadAbsolute{Off: 0, Size: 4}}, within(addrrange.Of(prefixes), true)...))
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
	if _, err := compile(make(addrrange.Set, maxRanges), make(addrrange.Set, 1)); err == nil {
		t.Error("a program with too many destinations was made")
	}
	many := make(addrrange.Set, maxRanges+1)
	if _, err := compile(many[:maxRanges], nil); err != nil {
		t.Errorf("%d ranges: %v", maxRanges, err)
	}
	if _, err := compile(many, nil); err == nil {
		t.Error("a program that the kernel refuses was made")
	}
}
