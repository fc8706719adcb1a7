package config

import (
	"math"
	"time"
)

// longestTimeout fits the kernel's 32 bit count of jiffies at its highest tick rate: the
// kernel cuts a longer one to 32 bits.
const longestTimeout = math.MaxInt32 / 1000 * time.Second

// The minima of RFC 5382 REQ-5 and RFC 4787 REQ-5.
const leastEstablished, leastUDP = 7440 * time.Second, 120 * time.Second

// maxPortTimeouts bounds the elements that a group's ports make in the kernel.
const maxPortTimeouts = 64

// idleTimeouts reads those keys that are there.
func (v value) idleTimeouts(to *IdleTimeouts) {
	timer := func(to *time.Duration, least time.Duration, rfc string) func(value) {
		return func(v value) {
			if v.duration(to, time.Second) && v.maximum(*to, longestTimeout) {
				v.minimum(*to, least, rfc)
			}
		}
	}
	v.mapping(fields{
		"tcp_established":   timer(&to.TCPEstablished, leastEstablished, "RFC 5382 REQ-5"),
		"tcp_transitory":    timer(&to.TCPTransitory, 240*time.Second, "RFC 5382 REQ-5"),
		"tcp_partial_open":  timer(&to.TCPPartialOpen, 240*time.Second, "RFC 7857 section 2.1"),
		"tcp_partial_close": timer(&to.TCPPartialClose, 240*time.Second, "RFC 7857 section 2.1"),
		"udp":               timer(&to.UDP, leastUDP, "RFC 4787 REQ-5"),
		"icmp":              timer(&to.ICMP, 60*time.Second, "RFC 5508 REQ-2"),
	})
}

// portTimeouts reads a list of timeouts by destination port.
func (v value) portTimeouts() []PortTimeout {
	if v.empty() {
		return nil
	}
	var list []PortTimeout
	type target struct {
		protocol string
		port     uint16
	}
	seen := map[target]bool{}
	for _, e := range v.sequence() {
		var p PortTimeout
		timeout := e
		keys := e.mapping(fields{
			"protocol": func(v value) { v.oneOf(&p.Protocol, "tcp", "udp") },
			"port":     func(v value) { v.port(&p.Port) },
			"timeout": func(v value) {
				timeout = v
				if v.duration(&p.Timeout, time.Second) {
					v.maximum(p.Timeout, longestTimeout)
				}
			},
		})
		e.require(keys, "protocol", "port", "timeout")
		to := target{p.Protocol, p.Port}
		if p.Port != 0 && seen[to] {
			e.errorf("%s port %d is there twice; keep one", p.Protocol, p.Port)
		}
		seen[to] = true
		if p.Timeout != 0 {
			timeout.checkPort(p)
		}
		list = append(list, p)
	}
	if len(list) > maxPortTimeouts {
		v.errorf("%d ports are more than %d; write fewer", len(list), maxPortTimeouts)
	}
	return list
}

// checkPort warns of a timeout below the minima. UDP may have shorter ones at well-known ports.
func (v value) checkPort(p PortTimeout) {
	switch {
	case p.Protocol == "tcp":
		v.minimum(p.Timeout, leastEstablished, "RFC 5382 REQ-5")
	case p.Port >= lowestPort:
		v.minimum(p.Timeout, leastUDP, "RFC 4787 REQ-5")
	}
}

func (v value) port(to *uint16) {
	var n int
	switch ok := v.integer(&n); {
	case !ok:
	case n < 1 || n > math.MaxUint16:
		v.errorf("%d is not a port; write one from 1 to 65535", n)
	default:
		*to = uint16(n)
	}
}

// checkICMP warns of a group whose idle timeout of ICMP is not its own: the kernel has one for
// all, which is the longest.
func (l *loader) checkICMP() {
	longest := time.Duration(0)
	of := func(g Group) time.Duration {
		if g.IdleTimeouts.ICMP != 0 {
			return g.IdleTimeouts.ICMP
		}
		return l.config.Settings.ICMP
	}
	for _, g := range l.config.Groups {
		longest = max(longest, of(g))
	}
	for i, g := range l.config.Groups {
		if g.IdleTimeouts.ICMP != 0 && g.IdleTimeouts.ICMP < longest {
			l.groupValues[i].child("idle_timeouts.icmp").warnf("the kernel has one idle timeout of ICMP for all groups: %v, the longest, is in force here too", longest)
		}
	}
}
