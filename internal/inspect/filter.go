package inspect

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// SubscriberFilter selects subscribers; zero fields match all.
type SubscriberFilter struct {
	Group    string
	NAS      string       // raw octets, exact
	UserName string       // raw octets, exact
	Inside   netip.Prefix // a /32 for one address
}

// Match reports whether the record passes the filter.
func (f *SubscriberFilter) Match(r *subscriber.Record) bool {
	return matches(f.Group, r.Group) &&
		matches(f.NAS, r.NAS) &&
		matches(f.UserName, r.UserName) &&
		within(f.Inside, r.Inside)
}

// MatchPacked is Match without unpacking the record.
func (f *SubscriberFilter) MatchPacked(r *subscriber.Packed) bool {
	if f.NAS != "" {
		if _, nas := r.Reporter(); nas != f.NAS {
			return false
		}
	}
	return matches(f.Group, r.Group()) &&
		matches(f.UserName, r.UserName()) &&
		within(f.Inside, r.Inside())
}

// BindingFilter selects bindings; zero fields match all.
type BindingFilter struct {
	Group   string
	Inside  netip.Prefix
	Outside netip.Prefix
	State   nat.State
}

// Match reports whether the binding passes the filter.
func (f *BindingFilter) Match(b *nat.Binding) bool {
	return matches(f.Group, b.Group) &&
		matches(f.State, b.State) &&
		within(f.Inside, b.Inside) &&
		within(f.Outside, b.Outside)
}

// SessionFilter selects sessions; zero fields match all. A port of 0 matches
// every port.
type SessionFilter struct {
	Group       string
	Protocol    uint8 // IANA number
	Inside      netip.Prefix
	Outside     netip.Prefix
	Remote      netip.Prefix
	InsidePort  uint16
	OutsidePort uint16
	RemotePort  uint16
}

// String returns the filter's fields as words, "all" for none.
func (f *SessionFilter) String() string {
	var words []string
	add := func(name string, set bool, value any) {
		if set {
			words = append(words, fmt.Sprintf("%s=%v", name, value))
		}
	}
	add("group", f.Group != "", f.Group)
	add("protocol", f.Protocol != 0, f.Protocol)
	add("inside", f.Inside.IsValid(), f.Inside)
	add("inside_port", f.InsidePort != 0, f.InsidePort)
	add("outside", f.Outside.IsValid(), f.Outside)
	add("outside_port", f.OutsidePort != 0, f.OutsidePort)
	add("remote", f.Remote.IsValid(), f.Remote)
	add("remote_port", f.RemotePort != 0, f.RemotePort)
	return cmp.Or(strings.Join(words, " "), "all")
}

// Match reports whether the session passes the filter.
func (f *SessionFilter) Match(s *Session) bool {
	return matches(f.Group, s.Group) &&
		matches(f.Protocol, s.Protocol) &&
		matches(f.InsidePort, s.Inside.Port()) &&
		matches(f.OutsidePort, s.Outside.Port()) &&
		matches(f.RemotePort, s.Remote.Port()) &&
		within(f.Inside, s.Inside.Addr()) &&
		within(f.Outside, s.Outside.Addr()) &&
		within(f.Remote, s.Remote.Addr())
}

func matches[T comparable](want, got T) bool {
	var all T
	return want == all || want == got
}

func within(p netip.Prefix, a netip.Addr) bool {
	return !p.IsValid() || p.Contains(a)
}
