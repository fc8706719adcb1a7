package nftnat

import "github.com/google/nftables/userdata"

// Comments of chains and sets, for an operator who lists the table. They are no part of what a
// start compares: a table keeps those with which it was made.

var chainComments = map[string]string{
	chainForward:      "forwarded packets: of a subscriber, to a subscriber, or of others",
	chainFromInside:   "from an inside interface: the sender's gate, then the way out or to another subscriber",
	chainUpstream:     "the gate of the sender",
	chainToInside:     "to an inside interface, from elsewhere: replies, and what a mapping let in",
	chainDownstream:   "the gate of the receiver",
	chainDraining:     "gate of a subscriber that keeps its sessions and begins none",
	chainFromOutside:  "from outside to a network that is neither inside nor outside: replies only",
	chainInput:        "first packets of flows to the machine itself",
	chainToMachine:    "of those, the ones from inside: who has no gate is bounded",
	chainUngated:      "the rates of addresses without an open gate",
	chainSrcnat:       "first packets of flows that leave: the bound of sessions, then the translation",
	chainTimeouts:     "the idle timeouts of a new flow",
	chainTranslate:    "the outside address and a port of the subscriber's block",
	chainGuard:        "no packet with an inside source leaves untranslated",
	chainNoNAT:        "sessions that keep their inside address (groups[].no_nat); marked for the barrier",
	chainUntranslated: "of packets with an inside source, only those pass",
	chainUnmapped:     "first packets to a pool address to which no session belongs; counted, then as the blackhole route",
}

var setComments = map[string]string{
	mapGate:              "who is online: return (open), or goto draining",
	mapBlock:             "outside address and ports of new flows, by inside address",
	setInsidePrefixes:    "addresses of subscribers",
	setOutsidePrefixes:   "pools of outside addresses",
	setInsideInterfaces:  "towards subscribers; patterns have rules of their own",
	setOutsideInterfaces: "towards the internet",
	setProtocols:         "protocols that share an address by ports or identifiers",
	setFull:              "subscribers that have too many sessions to begin one",
	setFullMapped:        "subscribers to whom others have begun too many sessions",
	setUngated:           "new flows to the machine itself, by offline address",
	setUnused:            "the table was never programmed; goes with the first element",
}

// withComment adds a comment to user-data, if there is one.
func withComment(udata []byte, kind userdata.Type, comment string) []byte {
	if comment == "" {
		return udata
	}
	return userdata.AppendString(udata, kind, comment)
}
