package nftnat

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/sessiond/sessiond/internal/nat"
	"golang.org/x/sys/unix"
)

// Names in the table of Options.PCP.
const (
	chainRequests       = "pcp"
	chainAskers         = "pcp_askers"
	chainAskersInside   = "pcp_inside"
	chainAskersGate     = "pcp_gate"
	chainAskersRate     = "pcp_rate"
	setAskers           = "pcp_askers"
	setAskersThirdParty = "pcp_third_party"
)

// PCP says whose requests of PCP and NAT-PMP, to UDP port 5351, reach the machine itself. Where
// it is on, these are subscribers with an open gate, from inside, and the addresses of ThirdParty,
// from neither inside, where any subscriber can send from them, nor outside: everybody else has no
// answer to expect, and the server no work with him. The zero PCP has no rule, and no packet pays
// for it.
type PCP struct {
	On         bool
	ThirdParty []netip.Prefix
}

// CheckPCP returns an error that names an invalid prefix.
func CheckPCP(p *PCP) error {
	for _, x := range p.ThirdParty {
		if !x.IsValid() || !x.Addr().Is4() {
			return fmt.Errorf("nftnat: prefix %v of third parties is not IPv4", x)
		}
	}
	return nil
}

// Requests of one address a second, and at once: RFC 6887 section 8.1.1 has a client wait 3 s
// before it repeats one, so this is enough for a router that asks for all hosts behind it. Those of all
// addresses are what the server answers.
const (
	askedRate, askedBurst       = 50, 100
	askedRateAll, askedBurstAll = 50_000, 50_000
)

// askersKept is the time for which an address is counted after its last request, so short that
// nothing is left of a subscriber whose gate is closed, and askersMost the number of addresses
// counted at a time: 10 MB. Beyond it, the rate of all bounds them.
const (
	askersKept = time.Second
	askersMost = 1 << 16
)

// serverPort is that of PCP and NAT-PMP (RFC 6887 section 19.2).
const serverPort = 5351

// SetPCP changes whose requests of PCP reach the machine, in one transaction.
func (x *staticKeeper) SetPCP(ctx context.Context, p PCP) error {
	k := x.kernel
	if err := CheckPCP(&p); err != nil {
		return err
	}
	if err := k.lock(ctx); err != nil {
		return err
	}
	defer k.unlock()
	o := k.options
	o.PCP = PCP{p.On, slices.Clone(p.ThirdParty)}
	return k.configure(ctx, o)
}

func askSets(o *Options) []set {
	if !o.PCP.On {
		return nil
	}
	return []set{
		{
			name: setAskers,
			shape: shape{
				flags:   unix.NFT_SET_EVAL | unix.NFT_SET_TIMEOUT,
				keyType: nftables.TypeIPAddr.GetNFTMagic(), keyLen: addressLen,
				size: askersMost,
			},
			timeout:  askersKept,
			userdata: byteOrders(orderBig),
		},
		prefixSet(setAskersThirdParty, o.PCP.ThirdParty),
	}
}

// ownAskSet reports whether a set belongs to PCP.
func ownAskSet(name string) bool { return name == setAskers || name == setAskersThirdParty }

func askChains(o *Options) []chain {
	if !o.PCP.On {
		return nil
	}
	return []chain{
		{name: chainRequests, kind: "filter", hook: unix.NF_INET_LOCAL_IN},
		{name: chainAskers}, {name: chainAskersInside}, {name: chainAskersGate}, {name: chainAskersRate},
	}
}

// askRules let in requests of PCP. The gate is asked before the rate is counted, so that made-up
// sources fill no set. The machine's own requests pass. A draining subscriber's pass too, for the
// server to refuse.
func askRules(o *Options) []rule {
	if !o.PCP.On {
		return nil
	}
	isServer := append(protocolIs(unix.IPPROTO_UDP), loadPort(2, unix.NFT_REG_1),
		&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: binary.BigEndian.AppendUint16(nil, serverPort)})
	own := []expr.Any{loadInputName, &expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: interfaceKey("lo")}}
	stranger := countedDrop(nat.DropPCPSource, nat.DropLocal)
	const beyond = "too many requests of PCP"
	return slices.Concat([]rule{
		{chainRequests, "", then(isServer, goTo(chainAskers))},

		{chainAskers, "", then(own, leave())},
		{chainAskers, "from outside", then(in(loadInputName, setOutsideInterfaces), stranger...)},
	}, onInside(chainAskers, loadInputName, o.InsideInterfaces, goTo(chainAskersInside)), []rule{
		{chainAskers, "", then(in(loadSource, setAskersThirdParty), goTo(chainAskersRate))},
		{chainAskers, "neither a subscriber nor a third party", stranger},

		{chainAskersInside, "", []expr.Any{jump(chainAskersGate)}},
		{chainAskersInside, "", []expr.Any{goTo(chainAskersRate)}},

		{chainAskersGate, "", verdictOf(loadSource, mapGate)},
		{chainAskersGate, "no open gate", stranger},

		{chainAskersRate, beyond + " of one address", then([]expr.Any{loadSource, &expr.Dynset{
			SrcRegKey: unix.NFT_REG_1, SetName: setAskers, Operation: unix.NFT_DYNSET_OP_UPDATE,
			Exprs: []expr.Any{above(askedRate, askedBurst)},
		}}, countedDrop(nat.DropPCPRate, nat.DropLocal)...)},
		{chainAskersRate, beyond, then([]expr.Any{above(askedRateAll, askedBurstAll)}, countedDrop(nat.DropPCPRate, nat.DropLocal)...)},
	})
}
