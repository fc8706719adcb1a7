package config

import (
	"maps"
	"slices"
	"strings"
)

// algs are the application-level gateways that the kernel has, each with a way to do without.
var algs = map[string]string{
	"ftp":  "passive mode (EPSV), which clients choose by themselves, needs none",
	"sip":  "ICE or STUN (RFC 8445) of the phone, or the provider's session border controller, needs none",
	"pptp": "its data is GRE, which has no ports to share an address by; L2TP or IKE over UDP, and WireGuard, need none",
	"tftp": "TFTP over NAT needs a server inside, or an address of its own; HTTP needs none",
}

// withoutALG reads a list that has to be empty (RFC 6888 REQ-10 and RFC 4787 REQ-10 let it be
// off). The kernel's helpers translate the connections that they expect to ports of their own
// choice (nf_nat_exp_find_port), outside the subscriber's block: they may be another
// subscriber's, and no log would tell whose they are.
func (v value) withoutALG() {
	for _, e := range v.list() {
		s, ok := e.scalar()
		if !ok {
			continue
		}
		instead, known := algs[s]
		if !known {
			e.errorf("%q is no ALG; known here: %s; leave the list empty", s, strings.Join(slices.Sorted(maps.Keys(algs)), ", "))
			continue
		}
		e.errorf("%s cannot be switched on: the kernel's helper opens outside ports beyond the subscriber's block, which may be another subscriber's; leave the list empty: %s", s, instead)
	}
}
