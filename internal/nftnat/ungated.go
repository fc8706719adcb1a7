package nftnat

import (
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// What one inside address without an open gate may begin to the machine itself is the
// ungatedShare-th part of what all of them may, and as much at once as in ungatedBurst
// seconds. So one that floods is met before it takes what others need.
const (
	ungatedShare = 50
	ungatedBurst = 10
)

// ungatedKept is how long an address is counted after its last new flow, and ungatedMost of
// how many addresses at a time: 10 MB. More of them share what is left.
const (
	ungatedKept = 10 * time.Second
	ungatedMost = 1 << 16
)

// ungatedRules bound the flows a second that inside addresses without an open gate begin to
// the machine itself: they pass no gate, and whoever can make up sources would fill the
// conntrack table, and its events the buffer of whoever proves removals. Who is online is not
// counted. A draining subscriber is, since its gate lets in nothing new.
func ungatedRules(o Options) []rule {
	if o.MaxUngated == 0 {
		return nil
	}
	all := uint64(o.MaxUngated)
	one := max(1, all/ungatedShare)
	return []rule{
		{chainToMachine, "", then(notIn(loadSource, setInsidePrefixes), leave())},
		{chainToMachine, "", verdictOf(loadSource, mapGate)},
		{chainToMachine, "", []expr.Any{goTo(chainUngated)}},

		{chainUngated, "too many new sessions of one address without a gate", then([]expr.Any{loadSource, &expr.Dynset{
			SrcRegKey: unix.NFT_REG_1, SetName: setUngated, Operation: unix.NFT_DYNSET_OP_UPDATE,
			Exprs: []expr.Any{above(one, one*ungatedBurst)},
		}}, countedDrop()...)},
		{chainUngated, "too many new sessions of addresses without a gate", then([]expr.Any{above(all, all)}, countedDrop()...)},
	}
}

// outsideRules bound the flows a second that hosts outside begin to the machine itself, all of
// them together: their sources can be made up, too. They stand behind the rules that drop
// those anyway.
func outsideRules(o Options) []rule {
	if o.MaxUngated == 0 {
		return nil
	}
	all := uint64(o.MaxUngated)
	return []rule{{chainInput, "too many new sessions from outside",
		then(append(in(loadInputName, setOutsideInterfaces), above(all, all)), countedDrop()...)}}
}

// above matches packets beyond a rate a second.
func above(rate, burst uint64) expr.Any {
	return &expr.Limit{Type: expr.LimitTypePkts, Rate: rate, Unit: expr.LimitTimeSecond, Burst: uint32(burst), Over: true}
}

// ungatedSet is what the kernel counts addresses in. Its elements are the kernel's own.
var ungatedSet = set{
	name: setUngated,
	shape: shape{
		flags:   unix.NFT_SET_EVAL | unix.NFT_SET_TIMEOUT,
		keyType: nftables.TypeIPAddr.GetNFTMagic(), keyLen: addressLen,
	},
	timeout: ungatedKept, size: ungatedMost,
	userdata: byteOrders(orderBig),
}
