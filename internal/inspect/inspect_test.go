package inspect

import (
	"net/netip"
	"os"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
)

func addr(text string) netip.Addr { return netip.MustParseAddr(text) }

func TestOrders(t *testing.T) {
	t.Parallel()
	keys := []subscriber.Key{
		{},
		{Group: "a", Inside: addr("100.64.0.9")},
		{Group: "a", Inside: addr("100.64.0.10")},
		{Group: "b", Inside: addr("100.64.0.1")},
	}
	if !slices.IsSortedFunc(keys, CompareKeys) {
		t.Error("subscriber keys are not ordered by group, then numerically by address")
	}
	bindings := []BindingKey{
		{},
		{Group: "a", Inside: keys[1].Inside, Outside: addr("198.51.100.9"), First: 2048},
		{Group: "a", Inside: keys[1].Inside, Outside: addr("198.51.100.10"), First: 1024},
		{Group: "a", Inside: keys[1].Inside, Outside: addr("198.51.100.10"), First: 10240},
		{Group: "a", Inside: keys[2].Inside, Outside: addr("198.51.100.1"), First: 1024},
	}
	if !slices.IsSortedFunc(bindings, BindingKey.Compare) {
		t.Error("binding keys are not ordered by group, inside, outside, port")
	}
	b := nat.Binding{
		Group: "a", Blocks: nat.Blocks{Block: nat.Block{Outside: bindings[1].Outside, First: 2048}}, Holder: nat.Holder{Inside: keys[1].Inside},
	}
	if KeyOf(&b) != bindings[1] {
		t.Errorf("KeyOf: %v", KeyOf(&b))
	}
}

func TestSubscriberFilter(t *testing.T) {
	t.Parallel()
	r := subscriber.Record{
		Key:       subscriber.Key{Group: "g", Inside: addr("100.64.0.1")},
		SessionID: subscriber.SessionID{NAS: "n"}, UserName: "u",
	}
	for f, want := range map[SubscriberFilter]bool{
		{}:                                    true,
		{Group: "g", NAS: "n", UserName: "u"}: true,
		{Group: "G"}:                          false,
		{NAS: "x"}:                            false,
		{UserName: "x"}:                       false,
		{Inside: netip.MustParsePrefix("100.64.0.0/24")}: true,
		{Inside: netip.MustParsePrefix("100.64.1.0/24")}: false,
	} {
		if got := f.Match(&r); got != want {
			t.Errorf("%+v: %v", f, got)
		}
	}
}

func TestBindingFilter(t *testing.T) {
	t.Parallel()
	b := nat.Binding{
		Group: "g", State: nat.Held,
		Blocks: nat.Blocks{Block: nat.Block{Outside: addr("198.51.100.1")}}, Holder: nat.Holder{Inside: addr("100.64.0.1")},
	}
	for f, want := range map[BindingFilter]bool{
		{}:                            true,
		{Group: "g", State: nat.Held}: true,
		{State: nat.Active}:           false,
		{Group: "x"}:                  false,
		{Inside: netip.MustParsePrefix("100.64.0.1/32")}:    true,
		{Outside: netip.MustParsePrefix("198.51.100.2/32")}: false,
	} {
		if got := f.Match(&b); got != want {
			t.Errorf("%+v: %v", f, got)
		}
	}
}

func TestSessionFilter(t *testing.T) {
	t.Parallel()
	s := Session{Group: "g", Session: nat.Session{
		Protocol: 6,
		Inside:   netip.MustParseAddrPort("100.64.0.1:4000"),
		Outside:  netip.MustParseAddrPort("198.51.100.1:1024"),
		Remote:   netip.MustParseAddrPort("203.0.113.5:443"),
	}}
	for f, want := range map[SessionFilter]bool{
		{}:                        true,
		{Group: "g", Protocol: 6}: true,
		{Group: "x"}:              false,
		{Protocol: 17}:            false,
		{InsidePort: 4000}:        true,
		{InsidePort: 4001}:        false,
		{OutsidePort: 1024}:       true,
		{OutsidePort: 1}:          false,
		{RemotePort: 443}:         true,
		{RemotePort: 80}:          false,
		{Inside: netip.MustParsePrefix("100.64.0.2/32")}:    false,
		{Outside: netip.MustParsePrefix("198.51.100.0/28")}: true,
		{Remote: netip.MustParsePrefix("203.0.113.6/32")}:   false,
	} {
		if got := f.Match(&s); got != want {
			t.Errorf("%+v: %v", f, got)
		}
	}
}

func TestSettingsMerge(t *testing.T) {
	t.Parallel()
	change := Settings{
		Removal:      RemovalObserve,
		IdleTimeouts: nat.Timeouts{TCPEstablished: 1 * time.Second, TCPTransitory: 2 * time.Second, UDP: 3 * time.Second, ICMP: 4 * time.Second, TCPPartialOpen: 5 * time.Second, TCPPartialClose: 6 * time.Second},
	}
	var all Settings
	if err := all.Merge(change, SettingNames()); err != nil || all != change {
		t.Errorf("all: %+v, %v", all, err)
	}
	for _, name := range SettingNames() {
		var one Settings
		if err := one.Merge(change, []string{name}); err != nil || one == (Settings{}) || one == change {
			t.Errorf("%s: %+v, %v", name, one, err)
		}
	}
	if err := all.Merge(change, []string{"idle_timeouts.sctp"}); err == nil {
		t.Error("an unknown setting was taken")
	}
}

// TestDriftKindsAreAll: DriftKinds lists every constant of the type.
func TestDriftKindsAreAll(t *testing.T) {
	source, err := os.ReadFile("status.go")
	if err != nil {
		t.Fatal(err)
	}
	constants := regexp.MustCompile(`DriftKind = "(\w+)"`).FindAllSubmatch(source, -1)
	listed := DriftKinds()
	if len(constants) != len(listed) {
		t.Errorf("%d constants, %d listed", len(constants), len(listed))
	}
	for _, c := range constants {
		if !slices.Contains(listed, DriftKind(c[1])) {
			t.Errorf("%s is not listed", c[1])
		}
	}
}

func TestNASes(t *testing.T) {
	t.Parallel()
	keys := []NASKey{{}, {"a", "z"}, {"a", "z\x00"}, {"b", ""}, {"b", "a"}}
	if !slices.IsSortedFunc(keys, NASKey.Compare) {
		t.Error("NASes are not ordered by client, then name")
	}
	for f, want := range map[NASFilter]bool{
		{}: true, {Client: "a"}: true, {Name: "z"}: true, {Client: "a", Name: "z"}: true, {Client: "b"}: false, {Client: "a", Name: "x"}: false,
	} {
		if got := f.Match(keys[1]); got != want {
			t.Errorf("%+v: %v", f, got)
		}
	}
}
