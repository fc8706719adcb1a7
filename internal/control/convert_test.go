package control

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/nat"
)

// TestEnumsAreComplete: every value of the proto enums has exactly one domain
// value.
func TestEnumsAreComplete(t *testing.T) {
	t.Parallel()
	whole(t, "BindingState", bindingStates, pb.BindingState_name)
	whole(t, "EventKind", eventKinds, pb.EventKind_name)
	whole(t, "Direction", directions, pb.Direction_name)
	whole(t, "Reason", reasons, pb.Reason_name)
	whole(t, "RemovalMode", removalModes, pb.RemovalMode_name)
	whole(t, "Proof", proofs, pb.Proof_name)
	whole(t, "PoolOrigin", poolOrigins, pb.PoolOrigin_name)
	whole(t, "PoolChange", poolChanges, pb.PoolChange_name)
	whole(t, "SubscriberState", subscriberStates, pb.SubscriberState_name)
	whole(t, "TopBy", topMeasures, pb.TopBy_name)
	whole(t, "MappingKind", mappingKinds, pb.MappingKind_name)
}

func whole[D comparable, P ~int32](t *testing.T, name string, m map[D]P, names map[int32]string) {
	t.Helper()
	seen := map[int32]bool{0: true}
	for _, p := range m {
		if seen[int32(p)] && p != 0 {
			t.Errorf("%s: two domain values for %d", name, p)
		}
		seen[int32(p)] = true
	}
	for n := range names {
		if !seen[n] {
			t.Errorf("%s: nothing converts to %s", name, names[n])
		}
	}
}

func TestFromPrefix(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                  "invalid Prefix",
		"100.64.0.1":        "100.64.0.1/32",
		"100.64.3.9/24":     "100.64.3.0/24",
		"::ffff:100.64.0.1": "100.64.0.1/32",
	} {
		if got, err := fromPrefix("f", text); err != nil || got.String() != want {
			t.Errorf("fromPrefix(%q) = %v, %v; want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"x", "2001:db8::1", "2001:db8::/32", "100.64.0.0/33", "100.64.0.1:80"} {
		if _, err := fromPrefix("f", text); err == nil {
			t.Errorf("fromPrefix(%q) was taken", text)
		}
	}
}

func TestFromTimeout(t *testing.T) {
	t.Parallel()
	if got, err := fromTimeout("f", durationpb.New(time.Second)); err != nil || got != time.Second {
		t.Errorf("1s: %v, %v", got, err)
	}
	for name, m := range map[string]*durationpb.Duration{
		"absent":    nil,
		"zero":      durationpb.New(0),
		"negative":  durationpb.New(-time.Second),
		"fraction":  durationpb.New(1500 * time.Millisecond),
		"too large": durationpb.New(3e6 * time.Second),
		"malformed": {Seconds: 1, Nanos: -1},
	} {
		if _, err := fromTimeout("f", m); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

func TestFromSubscriberRefuses(t *testing.T) {
	t.Parallel()
	for name, m := range map[string]*pb.Subscriber{
		"absent":        nil,
		"no address":    {UserName: "a"},
		"IPv6":          {InsideAddress: "2001:db8::1", UserName: "a"},
		"long name":     {InsideAddress: "100.64.0.1", UserName: strings.Repeat("x", 254)},
		"malformed end": {InsideAddress: "100.64.0.1", ExpiresAt: &timestamppb.Timestamp{Nanos: -1}},
	} {
		if _, err := fromSubscriber(m); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	longest := &pb.Subscriber{InsideAddress: "100.64.0.1", UserName: strings.Repeat("%00", 253)}
	if r, err := fromSubscriber(longest); err != nil || len(r.UserName) != 253 {
		t.Errorf("253 escaped octets: %d, %v", len(r.UserName), err)
	}
}

func TestSettingNames(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]int{
		"*": 7, "subscriber_session_removal": 1, "removal_mode": 1, "idle_timeouts": 6, "idle_timeouts.udp": 1,
	} {
		names, err := settingNames(&fieldmaskpb.FieldMask{Paths: []string{path, path}})
		if err != nil || len(names) != want {
			t.Errorf("%s: %v, %v", path, names, err)
		}
	}
	for _, paths := range [][]string{nil, {"idle_timeouts.sctp"}, {"idle"}, {""}} {
		if _, err := settingNames(&fieldmaskpb.FieldMask{Paths: paths}); err == nil {
			t.Errorf("%q was taken", paths)
		}
	}
}

// TestRemovalMode: either form of the toggle is accepted; if both are named
// they must agree.
func TestRemovalMode(t *testing.T) {
	t.Parallel()
	const (
		none    = pb.RemovalMode_REMOVAL_MODE_UNSPECIFIED
		on      = pb.RemovalMode_REMOVAL_MODE_ON
		off     = pb.RemovalMode_REMOVAL_MODE_OFF
		observe = pb.RemovalMode_REMOVAL_MODE_OBSERVE
	)
	for _, tt := range []struct {
		mask   []string
		toggle bool
		mode   pb.RemovalMode
		want   inspect.RemovalMode
		bad    bool
	}{
		{[]string{"subscriber_session_removal"}, true, none, inspect.RemovalOn, false},
		{[]string{"subscriber_session_removal"}, false, none, inspect.RemovalOff, false},
		{[]string{"subscriber_session_removal"}, false, observe, inspect.RemovalOff, false}, // not named
		{[]string{"removal_mode"}, true, observe, inspect.RemovalObserve, false},            // not named
		{[]string{"removal_mode"}, false, on, inspect.RemovalOn, false},
		{[]string{"removal_mode"}, true, none, 0, true},
		{[]string{"removal_mode"}, true, 9, 0, true},
		{[]string{"subscriber_session_removal", "removal_mode"}, false, observe, inspect.RemovalObserve, false},
		{[]string{"subscriber_session_removal", "removal_mode"}, true, on, inspect.RemovalOn, false},
		{[]string{"subscriber_session_removal", "removal_mode"}, false, on, 0, true},
		{[]string{"subscriber_session_removal", "removal_mode"}, true, off, 0, true},
		{[]string{"*"}, true, none, inspect.RemovalOn, false}, // a client without the third value
		{[]string{"*"}, false, none, inspect.RemovalOff, false},
	} {
		m := &pb.Settings{SubscriberSessionRemoval: tt.toggle, RemovalMode: tt.mode}
		got, err := fromSettings(m, []string{inspect.SettingRemoval}, &fieldmaskpb.FieldMask{Paths: tt.mask})
		if (err != nil) != tt.bad || !tt.bad && got.Removal != tt.want {
			t.Errorf("%+v: %v, %v", tt, got.Removal, err)
		}
	}
}

func TestSettingsOutsideTheMaskAreNotRead(t *testing.T) {
	t.Parallel()
	m := &pb.Settings{IdleTimeouts: &pb.IdleTimeouts{Udp: durationpb.New(time.Minute), Icmp: durationpb.New(-1)}}
	got, err := fromSettings(m, []string{inspect.SettingUDP}, nil)
	if err != nil || got.IdleTimeouts != (nat.Timeouts{UDP: time.Minute}) {
		t.Errorf("got %+v, %v", got, err)
	}
}

// TestFromPool_NAT27: a prefix that could mean other addresses than were meant is refused.
func TestFromPool_NAT27(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{"203.0.113.0/28": "203.0.113.0/28", "203.0.113.7": "203.0.113.7/32"} {
		if p, err := fromPool(text); err != nil || p != netip.MustParsePrefix(want) {
			t.Errorf("%q: %v, %v", text, p, err)
		}
	}
	for _, text := range []string{"", "x", "203.0.113.1/28", "2001:db8::/64", "224.0.0.0/28", "127.0.0.0/8", "169.254.0.0/24", "0.0.0.0/0"} {
		if p, err := fromPool(text); err == nil {
			t.Errorf("%q is taken for %v", text, p)
		}
	}
}
