package nat

// A Drop is a reason for which packets do not pass, with the direction of the packets.
type Drop struct {
	Reason    DropReason
	Direction DropDirection
}

// DropCount counts the packets that did not pass for one reason in one direction.
type DropCount struct {
	Drop
	Packets uint64
	Bytes   uint64 // of IPv4 packets; 0 where the kernel counts packets alone, see Drop.CountsBytes
}

// DropReason is the reason of a Drop, as a word for labels.
type DropReason string

// The reasons.
const (
	DropNoGate        DropReason = "no_gate"
	DropDraining      DropReason = "draining"
	DropOverLimit     DropReason = "over_limit"
	DropNoBlock       DropReason = "no_block"
	DropBlockFull     DropReason = "block_full"
	DropConntrackFull DropReason = "conntrack_full"
	DropPortTaken     DropReason = "port_taken"
	DropProtocol      DropReason = "other_protocol"
	DropObsoleteICMP  DropReason = "obsolete_icmp"
	DropInterface     DropReason = "other_interface"
	DropMisrouted     DropReason = "misrouted"
	DropFiltered      DropReason = "filtered"
	DropNoMapping     DropReason = "no_mapping"
	DropExpected      DropReason = "expected"
	DropInsideSource  DropReason = "inside_source"
	DropOutsideSource DropReason = "outside_source"
	DropUntranslated  DropReason = "untranslated"
	DropAddressRate   DropReason = "offline_address_rate"
	DropOfflineRate   DropReason = "offline_rate"
	DropOutsideRate   DropReason = "outside_rate"
	DropPCPSource     DropReason = "pcp_source"
	DropPCPRate       DropReason = "pcp_rate"
	DropBarrier       DropReason = "barrier"
)

// DropDirection is the direction of the packets of a Drop, as a word for labels.
type DropDirection string

// The directions.
const (
	DropOut   DropDirection = "out"   // from a subscriber
	DropIn    DropDirection = "in"    // to a subscriber, or from elsewhere
	DropLocal DropDirection = "local" // to the machine itself
	DropAny   DropDirection = "any"   // the kernel counts all directions together
)

// dropMeanings are all drops, in the order of lists, with their explanation for operators.
var dropMeanings = []struct {
	Drop
	meaning string
}{
	{Drop{DropNoGate, DropOut}, "from an inside address without a subscriber online"},
	{Drop{DropNoGate, DropIn}, "to an inside address without a subscriber online"},
	{Drop{DropDraining, DropOut}, "new session of a subscriber that may only end its sessions"},
	{Drop{DropDraining, DropIn}, "new session to a subscriber that may only end its sessions"},
	{Drop{DropOverLimit, DropOut}, "new session of a subscriber at nat.max_sessions_per_subscriber, or at a limit of its group"},
	{Drop{DropOverLimit, DropIn}, "new session, through a mapping, to a subscriber with nat.max_sessions_per_subscriber of them"},
	{Drop{DropOverLimit, DropLocal}, "the same, to the machine itself"},
	{Drop{DropNoBlock, DropOut}, "new session of a subscriber without a port block"},
	{Drop{DropBlockFull, DropOut}, "conntrack refused a new session: no free port was found in the block (insert_failed, of the whole namespace)"},
	{Drop{DropConntrackFull, DropAny}, "conntrack refused a new session: its table is full (nf_conntrack_max, of the whole namespace)"},
	{Drop{DropPortTaken, DropOut}, "new session at the port of another inside endpoint's mapping (groups[].port_overloading: false)"},
	{Drop{DropProtocol, DropOut}, "a protocol other than TCP, UDP and ICMP cannot share an address by ports"},
	{Drop{DropObsoleteICMP, DropOut}, "an ICMP message of a subscriber that RFC 5508 REQ-11 lets no NAT pass, such as source quench"},
	{Drop{DropObsoleteICMP, DropIn}, "an ICMP message to a subscriber that RFC 5508 REQ-11 lets no NAT pass, such as source quench"},
	{Drop{DropInterface, DropOut}, "from a subscriber, towards an interface that is neither inside nor outside"},
	{Drop{DropInterface, DropIn}, "new session from outside, towards an interface that is neither inside nor outside (nat.outside_to_others)"},
	{Drop{DropMisrouted, DropIn}, "to an inside address, but routed to an interface that is not inside"},
	{Drop{DropFiltered, DropIn}, "to an inside address, neither a reply nor through a mapping that lets the sender in"},
	{Drop{DropNoMapping, DropIn}, "to a pool address and port that belongs to no session"},
	{Drop{DropNoMapping, DropOut}, "from a subscriber, to a pool address and port that belongs to no session"},
	{Drop{DropExpected, DropIn}, "session that a conntrack helper of others (ALG) expected: its port is of no block; remove the helper"},
	{Drop{DropExpected, DropOut}, "the same, begun by the subscriber"},
	{Drop{DropInsideSource, DropIn}, "with an inside source, but not from an inside interface"},
	{Drop{DropInsideSource, DropLocal}, "with an inside source, from outside, to the machine itself"},
	{Drop{DropOutsideSource, DropIn}, "with a pool address as its source, and not translated here"},
	{Drop{DropUntranslated, DropOut}, "of a session that began before it could be translated"},
	{Drop{DropAddressRate, DropLocal}, "new session to the machine itself, beyond the rate of one offline address (nat.max_ungated_sessions_per_second)"},
	{Drop{DropOfflineRate, DropLocal}, "new session to the machine itself, beyond the rate of all offline addresses (nat.max_ungated_sessions_per_second)"},
	{Drop{DropOutsideRate, DropLocal}, "new session to the machine itself, beyond the rate of outside hosts (nat.max_ungated_sessions_per_second)"},
	{Drop{DropPCPSource, DropLocal}, "request of PCP from outside, or from an address without a subscriber online that is no third party (groups[].pcp)"},
	{Drop{DropPCPRate, DropLocal}, "request of PCP beyond 50 a second of one address, or 50,000 of all"},
	{Drop{DropBarrier, DropOut}, "from an inside address, while the nftables table was away"},
}

// Drops lists all drops, in the order of lists.
func Drops() []Drop {
	list := make([]Drop, len(dropMeanings))
	for i, d := range dropMeanings {
		list[i] = d.Drop
	}
	return list
}

// Meaning explains the drop to an operator, in a line; "" for one that is not listed.
func (d Drop) Meaning() string {
	for _, known := range dropMeanings {
		if known.Drop == d {
			return known.meaning
		}
	}
	return ""
}

// CountsBytes reports whether the kernel counts the bytes of these packets, too.
func (d Drop) CountsBytes() bool {
	switch d.Reason {
	case DropBlockFull, DropConntrackFull, DropBarrier:
		return false
	}
	return true
}
