package nftnat

import (
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Limits of one inside address without an open gate, for new flows to the machine itself: the
// ungatedShare-th part of the rate of all such addresses together, and as many at once as in
// ungatedBurst seconds. So a flood from one address is dropped before it takes the share of
// others.
const (
	ungatedShare = 50
	ungatedBurst = 10
)

// ungatedKept is the time for which an address is counted after its last new flow, and
// ungatedMost the number of addresses counted at a time: 10 MB. Beyond it, addresses share the
// rate of all.
const (
	ungatedKept = 10 * time.Second
	ungatedMost = 1 << 16
)

// ungatedRules bound the flows a second that inside addresses without an open gate begin to
// the machine itself: these pass no gate, and a sender with made-up sources would fill the
// conntrack table, and with its events the buffer of the index that proves removals. Online
// subscribers are not counted. A draining one is, since its gate lets in nothing new.
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

// ungatedSet is the set in which the kernel counts addresses. The kernel makes its elements.
var ungatedSet = set{
	name: setUngated,
	shape: shape{
		flags:   unix.NFT_SET_EVAL | unix.NFT_SET_TIMEOUT,
		keyType: nftables.TypeIPAddr.GetNFTMagic(), keyLen: addressLen,
	},
	timeout: ungatedKept, size: ungatedMost,
	userdata: byteOrders(orderBig),
}
