package nat

import (
	"fmt"
	"net/netip"
	"time"
)

// Timeouts are the idle timeouts of conntrack entries, in whole seconds.
type Timeouts struct {
	TCPEstablished  time.Duration // RFC 5382 REQ-5: at least 2 h 4 min
	TCPTransitory   time.Duration // RFC 5382 REQ-5: at least 4 min
	TCPPartialOpen  time.Duration // until a connection is established (RFC 7857 section 2.1); 0: TCPTransitory
	TCPPartialClose time.Duration // after a FIN or RST (RFC 7857 sections 2.1 and 2.2); 0: TCPTransitory
	UDP             time.Duration // RFC 4787 REQ-5: at least 2 min
	ICMP            time.Duration // RFC 5508 REQ-2: at least 60 s
}

// namedTimeout is one of Timeouts, with the name of its field.
type namedTimeout struct {
	name     string
	value    time.Duration
	optional bool // zero means another of them
}

func (t Timeouts) named() []namedTimeout {
	return []namedTimeout{
		{"TCPEstablished", t.TCPEstablished, false}, {"TCPTransitory", t.TCPTransitory, false},
		{"TCPPartialOpen", t.TCPPartialOpen, true}, {"TCPPartialClose", t.TCPPartialClose, true},
		{"UDP", t.UDP, false}, {"ICMP", t.ICMP, false},
	}
}

// Check returns an error that names a timeout that is not in whole seconds, or less than one.
func (t Timeouts) Check() error {
	for _, f := range t.named() {
		if f.optional && f.value == 0 {
			continue
		}
		if err := checkTimeout(f.name, f.value); err != nil {
			return err
		}
	}
	return nil
}

func checkTimeout(name string, d time.Duration) error {
	if d < time.Second || d%time.Second != 0 {
		return fmt.Errorf("nat: Timeouts.%s is %v, want whole seconds, at least one", name, d)
	}
	return nil
}

// PartialOpen returns the idle timeout of TCP connections that are not established yet.
func (t Timeouts) PartialOpen() time.Duration { return orElse(t.TCPPartialOpen, t.TCPTransitory) }

// PartialClose returns the idle timeout of TCP connections after a FIN or RST.
func (t Timeouts) PartialClose() time.Duration { return orElse(t.TCPPartialClose, t.TCPTransitory) }

func orElse(d, other time.Duration) time.Duration {
	if d == 0 {
		return other
	}
	return d
}

// ToPort returns the timeouts of flows to a destination port with a timeout of its own. It is
// the one of established TCP connections, and the upper bound while they open and close.
func (t Timeouts) ToPort(p PortTimeout) Timeouts {
	if p.Protocol == protocolUDP {
		t.UDP = p.Timeout
		return t
	}
	t.TCPPartialOpen, t.TCPPartialClose = min(t.PartialOpen(), p.Timeout), min(t.PartialClose(), p.Timeout)
	t.TCPEstablished, t.TCPTransitory = p.Timeout, min(t.TCPTransitory, p.Timeout)
	return t
}

// PortTimeout is the idle timeout of flows to one destination port.
type PortTimeout struct {
	Protocol uint8 // IANA number: 6 TCP, 17 UDP
	Port     uint16
	Timeout  time.Duration // whole seconds
}

// IANA's numbers of the protocols that have ports.
const protocolTCP, protocolUDP = 6, 17

// GroupTimeouts are the idle timeouts of the subscribers in some inside prefixes.
type GroupTimeouts struct {
	Inside []netip.Prefix
	Own    Timeouts      // a zero timeout is as elsewhere
	Ports  []PortTimeout // each destination port once
}

// Plain reports whether nothing differs from the timeouts elsewhere.
func (g GroupTimeouts) Plain() bool { return g.Own == Timeouts{} && len(g.Ports) == 0 }

// Over returns the timeouts of the group, given those elsewhere. The group's TCPTransitory
// also stands in the place of a TCPPartialOpen and TCPPartialClose elsewhere.
func (g GroupTimeouts) Over(elsewhere Timeouts) Timeouts {
	if g.Own.TCPTransitory != 0 {
		elsewhere.TCPPartialOpen, elsewhere.TCPPartialClose = 0, 0
	}
	return Timeouts{
		TCPEstablished:  orElse(g.Own.TCPEstablished, elsewhere.TCPEstablished),
		TCPTransitory:   orElse(g.Own.TCPTransitory, elsewhere.TCPTransitory),
		TCPPartialOpen:  orElse(g.Own.TCPPartialOpen, elsewhere.TCPPartialOpen),
		TCPPartialClose: orElse(g.Own.TCPPartialClose, elsewhere.TCPPartialClose),
		UDP:             orElse(g.Own.UDP, elsewhere.UDP),
		ICMP:            orElse(g.Own.ICMP, elsewhere.ICMP),
	}
}

// CheckGroups returns an error if a timeout is not in whole seconds, a port is there twice or
// has no TCP or UDP, or an inside prefix overlaps another.
func CheckGroups(groups []GroupTimeouts) error {
	var all []netip.Prefix
	for _, g := range groups {
		for _, p := range g.Inside {
			for _, other := range all {
				if p.Overlaps(other) {
					return fmt.Errorf("nat: timeouts of %v overlap those of %v", p, other)
				}
			}
			all = append(all, p)
		}
		if err := g.check(); err != nil {
			return err
		}
	}
	return nil
}

func (g GroupTimeouts) check() error {
	for _, f := range g.Own.named() {
		if f.value == 0 {
			continue
		}
		if err := checkTimeout(f.name, f.value); err != nil {
			return err
		}
	}
	type target struct {
		protocol uint8
		port     uint16
	}
	seen := make(map[target]bool)
	for _, p := range g.Ports {
		to := target{p.Protocol, p.Port}
		switch {
		case p.Protocol != protocolTCP && p.Protocol != protocolUDP:
			return fmt.Errorf("nat: protocol %d has no timeouts by port", p.Protocol)
		case seen[to]:
			return fmt.Errorf("nat: port %d of protocol %d has two timeouts", p.Port, p.Protocol)
		}
		seen[to] = true
		if err := checkTimeout("Ports", p.Timeout); err != nil {
			return err
		}
	}
	return nil
}

// TimeoutsOf returns the timeouts of a flow that a subscriber begins to a destination port, by
// its group, or elsewhere's.
func TimeoutsOf(elsewhere Timeouts, groups []GroupTimeouts, inside netip.Addr, protocol uint8, port uint16) Timeouts {
	for _, g := range groups {
		for _, prefix := range g.Inside {
			if !prefix.Contains(inside) {
				continue
			}
			t := g.Over(elsewhere)
			for _, p := range g.Ports {
				if p.Protocol == protocol && p.Port == port {
					return t.ToPort(p)
				}
			}
			return t
		}
	}
	return elsewhere
}
