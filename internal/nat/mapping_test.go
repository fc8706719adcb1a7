package nat

import (
	"net/netip"
	"slices"
	"testing"
)

func TestForwards(t *testing.T) {
	ssh := Forward{ProtocolTCP, 22, netip.MustParseAddrPort("198.51.100.1:60022")}
	dns := Forward{ProtocolUDP, 53, netip.MustParseAddrPort("198.51.100.1:60053")}
	other := Forward{ProtocolTCP, 22, netip.MustParseAddrPort("198.51.100.2:60022")}
	both := NewForwards([]Forward{dns, ssh, other})
	if got := slices.Collect(both.All()); !slices.Equal(got, []Forward{ssh, dns}) {
		t.Errorf("the set has %v, want one of each inside port, in order", got)
	}
	if both != NewForwards([]Forward{ssh, dns}) {
		t.Error("the order of the list changes the set")
	}
	if !both.Has(ssh) || both.Has(other) || !both.Reaches(dns.Endpoint()) || both.Reaches(Endpoint{ProtocolTCP, dns.Outside}) {
		t.Error("the set does not have what it was made of, or more")
	}
	if got := both.Less(NewForwards([]Forward{dns})); got != NewForwards([]Forward{ssh}) {
		t.Errorf("without dns it is %v", slices.Collect(got.All()))
	}
	if none := NewForwards(nil); none != (Forwards{}) || none.Len() != 0 || both.Len() != 2 || both.Less(both) != none {
		t.Error("an empty set is not the zero value")
	}
}

func TestEntryWithForwards(t *testing.T) {
	e := Entry{
		Inside: netip.MustParseAddr("100.64.0.1"), Gate: GateOpen,
		Block:    Block{Outside: netip.MustParseAddr("198.51.100.1"), First: 1024, Last: 1535},
		Forwards: NewForwards([]Forward{{ProtocolTCP, 22, netip.MustParseAddrPort("198.51.100.1:60022")}}),
	}
	if err := e.Check(); err != nil || e.Elements() != 4 {
		t.Errorf("Check: %v, %d elements; want none and 4", err, e.Elements())
	}
	for _, gate := range []Gate{GateClosed, GateDraining} {
		if e.Gate = gate; e.Check() == nil {
			t.Errorf("gate %d may have mappings", gate)
		}
	}
}

func TestMappingKinds(t *testing.T) {
	for _, kind := range MappingKinds() {
		if k, ok := ParseMappingKind(kind.String()); !ok || k != kind {
			t.Errorf("%v is parsed as %v, %v", kind, k, ok)
		}
	}
	if _, ok := ParseMappingKind("dynamic"); ok {
		t.Error("an unknown kind is parsed")
	}
}
