package nftnat

import (
	"github.com/google/nftables/userdata"

	"github.com/sessiond/sessiond/internal/nat"
)

// Comments of chains and sets, for an operator who lists the table. They are no part of what a
// start compares: a table keeps those with which it was made.

var chainComments = map[string]string{
	chainForward:          "forwarded packets: of a subscriber, to a subscriber, or of others",
	chainFromInside:       "from an inside interface: the sender's gate, then the way out or to another subscriber",
	chainUpstream:         "the gate of the sender",
	chainToInside:         "to an inside interface, from elsewhere: replies, and what a mapping let in",
	chainDownstream:       "the gate of the receiver",
	chainDraining:         "gate of a subscriber that keeps its sessions and begins none",
	chainFromOutside:      "from outside to a network that is neither inside nor outside: replies only",
	chainInput:            "first packets of flows to the machine itself",
	chainToMachine:        "of those, the ones from inside: who has no gate is bounded",
	chainUngated:          "the rates of addresses without an open gate",
	chainSrcnat:           "first packets of flows that leave: the bound of sessions, then the translation",
	chainTimeouts:         "the idle timeouts of a new flow",
	chainTranslate:        "the outside address and a port of the subscriber's block",
	chainLeaving:          "packets that leave: translated ones, and first packets, whose translation is next",
	chainOutput:           "the machine's own packets with an inside source",
	chainGuard:            "behind source NAT: packets with an inside source, and those with a mapped outside address",
	chainNoNAT:            "sessions that keep their inside address (groups[].no_nat); marked for the barrier",
	chainUntranslated:     "of packets with an inside source, only those pass",
	chainUnmapped:         "first packets to a pool address to which no session belongs; counted, then as the blackhole route",
	chainDstnat:           "first packets to mapped outside endpoints: to the inside endpoint (full cone, and neighbours)",
	chainLearn:            "packets with a mapped outside address as their source: they make and refresh mappings",
	"learn_tcp":           "of TCP, packets of the subscriber that began the flow",
	"learn_tcp_answer":    "of TCP, packets of the subscriber that answers",
	"remember_tcp":        "make or refresh the mapping of the subscriber that began the flow",
	"remember_tcp_answer": "make or refresh the mapping of the subscriber that answers",
	"learn_tcp_own":       "of TCP, those whose mapping is not fresh",
	"learn_udp_own":       "of UDP, those whose mapping is not fresh",
	"through_tcp":         "of TCP, packets of flows through a mapping: the subscriber answers, or a neighbour began the flow",
	"through_udp":         "of UDP, packets of flows through a mapping: the subscriber answers, or a neighbour began the flow",
	"hairpin_tcp":         "of TCP, a neighbour's first packet: the mapping has to have sent to its outside endpoint",
	"hairpin_udp":         "of UDP, a neighbour's first packet: the mapping has to have sent to its outside endpoint",
	"learn_udp":           "of UDP, packets of the subscriber that began the flow",
	"learn_udp_answer":    "of UDP, packets of the subscriber that answers",
	"remember_udp":        "make or refresh the mapping of the subscriber that began the flow",
	"remember_udp_answer": "make or refresh the mapping of the subscriber that answers",
	chainFirstPackets:     "first packets of flows from inside, before their destination is translated",
	chainLimits:           "the limits of the sender's group (groups[].limits)",
	chainOnline:           "who has no gate passes, without limits",
	chainUnreachable:      "answers a refused packet with ICMP host unreachable, at a bounded rate of all",

	chainRequests:     "packets to the machine itself: requests of PCP and NAT-PMP (groups[].pcp)",
	chainAskers:       "who may ask: subscribers, and third parties that the configuration names",
	chainAskersInside: "of subscribers: their gate, then their rate",
	chainAskersGate:   "drops what has no open gate",
	chainAskersRate:   "requests of one address, and of all, a second",

	chainFast: "packets that all other chains let pass: their flow goes to the flowtable (nat.flowtables: own)",

	chainRefuse(nat.LimitSessions):    "at limits.sessions, or its reserve: ICMP for the first packets, and none for the rest",
	chainRefuse(nat.LimitNewSessions): "beyond limits.new_sessions_per_second: ICMP for the first packets, and none for the rest",
	chainRefuse(nat.LimitTCPPorts):    "at limits.tcp_ports: ICMP for the first packets, and none for the rest",
	chainRefuse(nat.LimitUDPPorts):    "at limits.udp_ports: ICMP for the first packets, and none for the rest",
}

// policyComment is that of the chain of each policy: their names are made of timeouts.
const policyComment = "gives a new flow the idle timeouts of its name"

func chainComment(name string) string {
	if comment, ok := chainComments[name]; ok {
		return comment
	}
	return policyComment
}

var setComments = map[string]string{
	mapGate:              "who is online, each with return (open) or goto draining",
	mapBlock:             "outside address and ports of new flows, by inside address",
	setInsidePrefixes:    "addresses of subscribers",
	setOutsidePrefixes:   "pools of outside addresses",
	setInsideInterfaces:  "towards subscribers; patterns have rules of their own",
	setOutsideInterfaces: "towards the internet",
	setProtocols:         "protocols that share an address by ports or identifiers",
	setObsoleteICMP:      "ICMP types that pass neither way (RFC 5508 REQ-11)",
	setFull:              "subscribers that have too many sessions to begin one",
	setFullMapped:        "subscribers to whom others have begun too many sessions",
	mapBIB:               "learned: inside endpoint to outside endpoint, for the port of its next flow",
	mapEIF:               "learned: outside endpoint to inside endpoint, whom anybody reaches there",
	mapStaticIn:          "static mappings: outside endpoint to inside endpoint, whom anybody reaches there",
	mapStaticOut:         "static mappings: inside endpoint to outside endpoint, for the port of its new flows",
	setStaticOutside:     "outside addresses with static mappings",
	setStaticPorts:       "ports of static mappings, of which no mapping is learned",
	setPairs:             "learned: both endpoints of each mapping",
	setSent:              "pairs of outside endpoints: the first has sent to the second, a neighbour's, which refused",
	setSenders:           "inside addresses with such pairs, each with the rate of new ones",
	setMappedInside:      "subscribers whose flows are learned",
	setTaken:             "learned: outside endpoints of mappings",
	setFresh:             "learned: inside endpoints whose mapping was refreshed a moment ago",
	mapNarrowed:          "remote endpoints to which most ports of a subscriber lead, and where it has free ones",
	mapPinned:            "inside ports that keep their mapping in another block than that of new flows",
	setMapped:            "outside addresses whose flows are learned",
	setOpen:              "of those, the ones with endpoint-independent filtering",
	setStrict:            "of those, the ones whose endpoints share no port",
	setClosing:           "subscribers that were cut off, until it is proved that they have no flows",
	setUngated:           "new flows to the machine itself, by offline address",
	setUnused:            "the table was never programmed; goes with the first element",
	mapGroupTimeouts:     "idle timeouts of new flows, by inside prefix and protocol (groups[].idle_timeouts)",
	mapPortTimeouts:      "idle timeouts of new flows, by destination port too (groups[].port_timeouts)",
	setNewSessions:       "new flows of each subscriber, for limits.new_sessions_per_second",
	setAskers:            "who asked by PCP within the last second",
	setAskersThirdParty:  "who may ask for subscribers (groups[].pcp.third_party)",
	setNear:              "subscribers near limits.sessions, each with the rate of its new flows",
	setMappedPorts:       "ports with sessions, of subscribers at a limit of ports: these may begin more",

	setAtLimit(nat.LimitSessions): "subscribers at limits.sessions, or at their reserve",
	setAtLimit(nat.LimitTCPPorts): "subscribers at limits.tcp_ports",
	setAtLimit(nat.LimitUDPPorts): "subscribers at limits.udp_ports",

	setRefused(nat.LimitSessions):    "subscribers refused at limits.sessions, of the last seconds",
	setRefused(nat.LimitNewSessions): "subscribers refused at limits.new_sessions_per_second, of the last seconds",
	setRefused(nat.LimitTCPPorts):    "subscribers refused at limits.tcp_ports, of the last seconds",
	setRefused(nat.LimitUDPPorts):    "subscribers refused at limits.udp_ports, of the last seconds",
}

// withComment adds a comment to user-data, if there is one.
func withComment(udata []byte, kind userdata.Type, comment string) []byte {
	if comment == "" {
		return udata
	}
	return userdata.AppendString(udata, kind, comment)
}
