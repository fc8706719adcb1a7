package codec

import (
	"net/netip"
	"time"

	"github.com/sessiond/sessiond/internal/nat"
)

// Terms are the settings of a group that the kernel has. Prefixes of subscribers are not among
// them.
type Terms struct {
	Limits   nat.Limits
	Learned  nat.Learned
	Timeouts nat.GroupTimeouts
	NoNAT    []nat.NoNAT
}

// termsValue is their form in the value of the key.
type termsValue struct {
	Limits   limitsValue        `json:"limits,omitzero"`
	Learned  learnedValue       `json:"learned,omitzero"`
	Timeouts timeoutsValue      `json:"idle_timeouts,omitzero"`
	Ports    []portTimeoutValue `json:"port_timeouts,omitempty"`
	NoNAT    []noNATValue       `json:"no_nat,omitempty"`
}

type limitsValue struct {
	Sessions             int `json:"sessions,omitzero"`
	NewSessionsPerSecond int `json:"new_sessions_per_second,omitzero"`
	TCPPorts             int `json:"tcp_ports,omitzero"`
	UDPPorts             int `json:"udp_ports,omitzero"`
	Reserve              int `json:"reserve,omitzero"`
}

type learnedValue struct {
	EndpointIndependent bool `json:"endpoint_independent,omitzero"`
	Open                bool `json:"open,omitzero"`
	Strict              bool `json:"strict,omitzero"`
}

type timeoutsValue struct {
	TCPEstablished  timeSpan `json:"tcp_established,omitzero"`
	TCPTransitory   timeSpan `json:"tcp_transitory,omitzero"`
	TCPPartialOpen  timeSpan `json:"tcp_partial_open,omitzero"`
	TCPPartialClose timeSpan `json:"tcp_partial_close,omitzero"`
	UDP             timeSpan `json:"udp,omitzero"`
	ICMP            timeSpan `json:"icmp,omitzero"`
}

type portTimeoutValue struct {
	Protocol uint8    `json:"protocol"`
	Port     uint16   `json:"port"`
	Timeout  timeSpan `json:"timeout"`
}

type noNATValue struct {
	Remote   netip.Prefix `json:"prefix"`
	Protocol uint8        `json:"protocol,omitzero"`
	First    uint16       `json:"first_port"`
	Last     uint16       `json:"last_port"`
}

func formatTerms(t *Terms) termsValue {
	own := &t.Timeouts.Own
	v := termsValue{
		Limits: limitsValue(t.Limits), Learned: learnedValue(t.Learned),
		Timeouts: timeoutsValue{
			timeSpan(own.TCPEstablished), timeSpan(own.TCPTransitory), timeSpan(own.TCPPartialOpen), timeSpan(own.TCPPartialClose),
			timeSpan(own.UDP), timeSpan(own.ICMP),
		},
	}
	for _, p := range t.Timeouts.Ports {
		v.Ports = append(v.Ports, portTimeoutValue{p.Protocol, p.Port, timeSpan(p.Timeout)})
	}
	for _, n := range t.NoNAT {
		v.NoNAT = append(v.NoNAT, noNATValue{n.Remote, n.Protocol, n.First, n.Last})
	}
	return v
}

func (v *termsValue) terms() Terms {
	own := &v.Timeouts
	t := Terms{
		Limits: nat.Limits(v.Limits), Learned: nat.Learned(v.Learned),
		Timeouts: nat.GroupTimeouts{Own: nat.Timeouts{
			TCPEstablished: time.Duration(own.TCPEstablished), TCPTransitory: time.Duration(own.TCPTransitory),
			TCPPartialOpen: time.Duration(own.TCPPartialOpen), TCPPartialClose: time.Duration(own.TCPPartialClose),
			UDP: time.Duration(own.UDP), ICMP: time.Duration(own.ICMP),
		}},
	}
	for _, p := range v.Ports {
		t.Timeouts.Ports = append(t.Timeouts.Ports, nat.PortTimeout{Protocol: p.Protocol, Port: p.Port, Timeout: time.Duration(p.Timeout)})
	}
	for _, n := range v.NoNAT {
		t.NoNAT = append(t.NoNAT, nat.NoNAT{Remote: n.Remote, Protocol: n.Protocol, First: n.First, Last: n.Last})
	}
	return t
}
