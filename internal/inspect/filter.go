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
	Group         string
	NAS           string // raw octets, exact
	UserName      string // raw octets, exact
	UserPrefix    string // raw octets
	Station       Station
	AcctSessionID string       // raw octets, exact
	Inside        netip.Prefix // a /32 for one address

	// What NAT does for the subscriber: MatchView.
	State   SubscriberState
	Outside netip.Prefix // of the binding
	Port    nat.Port     // in a block of the binding

	// A host with which the subscriber has a session: not in MatchView.
	Remote     netip.Prefix
	RemotePort uint16
}

// SubscriberState is what NAT does for a subscriber that is online.
type SubscriberState uint8

// The states of subscribers.
const (
	SubscriberActive      SubscriberState = iota + 1 // has an Active binding
	SubscriberPending                                // waits for a block
	SubscriberEnding                                 // has a binding that is not Active
	SubscriberRemovalHeld                            // a guard suspends its removal
	SubscriberUnconfirmed                            // written back, and not yet confirmed
)

// Match reports whether the record passes the part of the filter that concerns records.
func (f *SubscriberFilter) Match(r *subscriber.Record) bool {
	return matches(f.Group, r.Group) &&
		matches(f.NAS, r.NAS) &&
		matches(f.UserName, r.UserName) &&
		strings.HasPrefix(r.UserName, f.UserPrefix) &&
		matches(f.AcctSessionID, r.AcctSessionID) &&
		f.Station.Matches(r.CallingStationID) &&
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
		(f.UserName == "" && f.UserPrefix == "" || f.matchUser(r.UserName())) &&
		(f.AcctSessionID == "" || f.AcctSessionID == r.AcctSessionID()) &&
		(f.Station == (Station{}) || f.Station.Matches(r.CallingStationID())) &&
		within(f.Inside, r.Inside())
}

func (f *SubscriberFilter) matchUser(name string) bool {
	return matches(f.UserName, name) && strings.HasPrefix(name, f.UserPrefix)
}

// OfRecord reports whether the filter concerns records alone.
func (f *SubscriberFilter) OfRecord() bool { return !f.OfNAT() && !f.OfRemote() }

// OfNAT reports whether the filter concerns what NAT does for the subscriber.
func (f *SubscriberFilter) OfNAT() bool { return f.State != 0 || f.Outside.IsValid() || f.Port != 0 }

// OfRemote reports whether the filter concerns the subscriber's sessions.
func (f *SubscriberFilter) OfRemote() bool { return f.Remote.IsValid() || f.RemotePort != 0 }

// MatchView reports whether the view passes the part of the filter that concerns NAT.
func (f *SubscriberFilter) MatchView(s *Subscriber) bool {
	if !f.OfNAT() {
		return true
	}
	return f.matchState(s) && f.matchOutside(s.Binding)
}

func (f *SubscriberFilter) matchState(s *Subscriber) bool {
	switch f.State {
	case SubscriberActive:
		return s.Binding != nil && s.Binding.State == nat.Active
	case SubscriberPending:
		return s.Pending
	case SubscriberEnding:
		return s.Binding != nil && s.Binding.State != nat.Active
	case SubscriberRemovalHeld:
		return s.RemovalHeld != subscriber.ReasonNone
	case SubscriberUnconfirmed:
		return s.Unconfirmed
	}
	return true
}

func (f *SubscriberFilter) matchOutside(b *Binding) bool {
	if !f.Outside.IsValid() && f.Port == 0 {
		return true
	}
	return b != nil && within(f.Outside, b.Outside) && (f.Port == 0 || b.Contains(b.Outside, f.Port))
}

// BindingFilter selects bindings; zero fields match all.
type BindingFilter struct {
	Group         string
	Inside        netip.Prefix
	Outside       netip.Prefix
	Port          nat.Port // in one of the blocks
	State         nat.State
	UserName      string // raw octets, exact
	UserPrefix    string // raw octets
	AcctSessionID string // raw octets, exact
}

// Match reports whether the binding passes the filter.
func (f *BindingFilter) Match(b *nat.Binding) bool {
	return matches(f.Group, b.Group) &&
		matches(f.State, b.State) &&
		within(f.Inside, b.Inside) &&
		within(f.Outside, b.Outside) &&
		(f.Port == 0 || b.Contains(b.Outside, f.Port)) &&
		matches(f.UserName, b.UserName) &&
		strings.HasPrefix(b.UserName, f.UserPrefix) &&
		matches(f.AcctSessionID, b.AcctSessionID)
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
