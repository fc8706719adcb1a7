package nftnat

import (
	"encoding/binary"
	"slices"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/sessiond/sessiond/internal/conntrack"
	"github.com/sessiond/sessiond/internal/nat"
	"golang.org/x/sys/unix"
)

// Names in the table. Operators read them, and elements of the gate lead to
// chainDraining.
const (
	mapGate              = "gate"
	mapBlock             = "block"
	setInsidePrefixes    = "inside_prefixes"
	setOutsidePrefixes   = "outside_prefixes"
	setInsideInterfaces  = "inside_interfaces"
	setOutsideInterfaces = "outside_interfaces"
	setProtocols         = "protocols"
	setFull              = "full"        // see bounds.go
	setFullMapped        = "full_mapped" // see bounds.go
	setUngated           = "ungated"     // see ungatedRules
	setUnused            = "unused"      // see unusedMark
	setObsoleteICMP      = "obsolete_icmp"

	mapGroupTimeouts = "group_timeouts" // see timeoutTable
	mapPortTimeouts  = "port_timeouts"  // see timeoutTable

	chainForward     = "forward"
	chainLeaving     = "leaving" // see leavingRules
	chainOutput      = "output"
	chainFromInside  = "from_inside"
	chainUpstream    = "upstream"
	chainToInside    = "to_inside"
	chainDownstream  = "downstream"
	chainDraining    = "draining"
	chainFromOutside = "from_outside"
	chainInput       = "input"
	chainSrcnat      = "srcnat"
	chainTimeouts    = "timeouts"
	chainTranslate   = "translate"
	chainGuard       = "guard"
	chainUnmapped    = "unmapped"

	chainNoNAT        = "no_nat"
	chainUntranslated = "untranslated"
	chainToMachine    = "to_machine"
	chainUngated      = "ungated"
)

// A chain of the table. Only base chains have a hook.
type chain struct {
	name     string
	kind     string // "filter" or "nat"; "" for a chain without a hook
	hook     uint32 // NF_INET_*
	priority int32
}

// A rule of the table. The rules of one chain are in the order of the list.
type rule struct {
	chain   string
	comment string
	exprs   []expr.Any
}

// ruleset is the whole table except the elements of gate, block and the static maps.
type ruleset struct {
	table    string
	sets     []set
	fast     *flowtable // nil for none
	counters []counter
	policies []policy
	chains   []chain
	rules    []rule
}

func newRuleset(o Options) *ruleset {
	t := newTimeoutTable(o)
	return &ruleset{
		table:    o.Table,
		sets:     append(newSets(o), t.sets...),
		fast:     newFlowtable(o),
		counters: newCounters(nil),
		policies: t.policies,
		chains:   slices.Concat(newChains(o), t.chains, limitChains(&o), mappingChains(o), staticChains(&o), askChains(&o), fastChains(o)),
		rules:    slices.Concat(establishedRules(o), forwardRules(o), leavingRules(o), ungatedRules(o), natRules(o), outsideRules(o), unmappedRules(o.InsideInterfaces), t.rules, limitRules(&o), staticRules(&o), mappingRules(o), askRules(&o), fastRules(o)),
	}
}

// The guard comes after source NAT, at nft's priority srcnat, chose an address; the chain of
// packets without a mapping after destination NAT, at dstnat, which would have chosen one.
const priorityDstnat, prioritySrcnat, priorityGuard, priorityUnmapped = -100, 100, 110, -90

func newChains(o Options) []chain {
	chains := []chain{
		{name: chainForward, kind: "filter", hook: unix.NF_INET_FORWARD},
		{name: chainFromInside},
		{name: chainUpstream},
		{name: chainToInside},
		{name: chainDownstream},
		{name: chainDraining},
		{name: chainFromOutside},
		{name: chainInput, kind: "nat", hook: unix.NF_INET_LOCAL_IN, priority: prioritySrcnat},
		{name: chainToMachine},
		{name: chainUngated},
		{name: chainSrcnat, kind: "nat", hook: unix.NF_INET_POST_ROUTING, priority: prioritySrcnat},
		{name: chainTimeouts},
		{name: chainTranslate},
		{name: chainUnmapped, kind: "nat", hook: unix.NF_INET_PRE_ROUTING, priority: priorityUnmapped},
	}
	if len(o.NoNAT) > 0 {
		chains = append(chains, chain{name: chainNoNAT}, chain{name: chainUntranslated})
	} else {
		chains = append(chains, chain{name: chainLeaving}, chain{name: chainOutput, kind: "filter", hook: unix.NF_INET_LOCAL_OUT})
	}
	if len(o.NoNAT) > 0 || o.Mappings.on() {
		chains = append(chains, chain{name: chainGuard, kind: "filter", hook: unix.NF_INET_POST_ROUTING, priority: priorityGuard})
	}
	return chains
}

// forwardRules let nothing pass without an open gate (I3). A gate leads both ways: from an
// inside interface out, and back to an inside interface. Nearly all packets of established flows
// are met by establishedRules, before these. An open gate returns and does not accept: a packet from inside to inside has
// two gates to pass.
//
// A packet from elsewhere that belongs to no flow of a subscriber, nor to a mapping, is
// dropped here, before conntrack confirms it: confirmed, it would hold the tuple of a
// subscriber's flow, which would then go untranslated. A packet that has an outside address as
// its source already is dropped too, since subscribers' packets get theirs only behind these
// rules: sent from each port of a block, such packets would leave the subscriber no port
// towards that host. Other packets that have nothing to do with subscribers pass, for the
// operator's own firewall, unless they would open a network that is neither inside nor outside
// to hosts outside. No subscriber's packet reaches those rules.
//
// A flow that a conntrack helper expected is dropped both ways: the helper has translated it
// already, to a port of no block (nf_nat_exp_find_port, nf_nat_follow_master), which may be
// another subscriber's (I1). sessiond assigns no helper, but a rule of others may.
//
// A draining subscriber keeps the flows that conntrack has confirmed. The state of a flow
// would not do: one that was never answered, such as one-way UDP, stays new.
func forwardRules(o Options) []rule {
	inside := o.InsideInterfaces
	outwards := goTo(chainLeaving)
	if len(o.NoNAT) > 0 {
		outwards = leave() // the guard looks at what leaves
	}
	rules := slices.Concat(
		onInside(chainForward, loadInputName, inside, goTo(chainFromInside)),
		[]rule{{chainForward, "inside source, not from an inside interface",
			then(in(loadSource, setInsidePrefixes), countedDrop(nat.DropInsideSource, nat.DropIn)...)}},
		onInside(chainForward, loadOutputName, inside, goTo(chainToInside)),
		[]rule{
			{chainForward, "towards an interface that is not inside",
				then(in(loadTarget, setInsidePrefixes), countedDrop(nat.DropMisrouted, nat.DropIn)...)},
			{chainForward, "outside source, not translated here",
				then(in(loadSource, setOutsidePrefixes), countedDrop(nat.DropOutsideSource, nat.DropIn)...)},

			{chainFromInside, "", []expr.Any{jump(chainUpstream)}},
			{chainFromInside, "", then(in(loadOutputName, setOutsideInterfaces), outwards)},
		},
		onInside(chainFromInside, loadOutputName, inside, goTo(chainDownstream)),
		[]rule{
			{chainFromInside, "towards an interface that is neither inside nor outside", countedDrop(nat.DropInterface, nat.DropOut)},

			{chainUpstream, "cannot share an address by ports",
				then(notIn(loadProtocol, setProtocols), countedDrop(nat.DropProtocol, nat.DropOut)...)},
			{chainUpstream, "obsolete ICMP", then(isObsoleteICMP(), countedDrop(nat.DropObsoleteICMP, nat.DropOut)...)},
			{chainUpstream, "expected by a helper of others",
				then(statusHas(conntrack.StatusExpected), countedDrop(nat.DropExpected, nat.DropOut)...)},
			{chainUpstream, "", verdictOf(loadSource, mapGate)},
			{chainUpstream, "no open gate", countedDrop(nat.DropNoGate, nat.DropOut)},

			{chainToInside, "", then(isReply(), goTo(chainDownstream))},
			{chainToInside, "expected by a helper of others",
				then(statusHas(conntrack.StatusExpected), countedDrop(nat.DropExpected, nat.DropIn)...)},
			{chainToInside, "outside source, not translated here",
				then(in(loadSource, setOutsidePrefixes), countedDrop(nat.DropOutsideSource, nat.DropIn)...)},
			{chainToInside, "", then(statusHas(conntrack.StatusDestinationTranslated), goTo(chainDownstream))},
			{chainToInside, "neither a reply nor through a mapping", countedDrop(nat.DropFiltered, nat.DropIn)},

			{chainDownstream, "obsolete ICMP", then(isObsoleteICMP(), countedDrop(nat.DropObsoleteICMP, nat.DropIn)...)},
			{chainDownstream, "", verdictOf(loadTarget, mapGate)},
			{chainDownstream, "no open gate", countedDrop(nat.DropNoGate, nat.DropIn)},

			{chainDraining, "", then(statusHas(conntrack.StatusConfirmed), leave())},
		},
		beforeRouting(&o),
		[]rule{
			{chainDraining, "", then(toMachine(), goTo(chainUngated))},
			{chainDraining, "new session while draining",
				then(in(loadTarget, setInsidePrefixes), countedDrop(nat.DropDraining, nat.DropIn)...)},
			{chainDraining, "new session while draining", countedDrop(nat.DropDraining, nat.DropOut)},
		},
	)
	if o.OutsideToOthers {
		return rules
	}
	return append(rules, []rule{
		{chainForward, "", then(in(loadInputName, setOutsideInterfaces), goTo(chainFromOutside))},

		{chainFromOutside, "", then(in(loadOutputName, setOutsideInterfaces), leave())},
		{chainFromOutside, "", then(isReply(), leave())},
		{chainFromOutside, "", then(statusHas(conntrack.StatusDestinationTranslated), leave())},
		{chainFromOutside, "towards an interface that is neither inside nor outside", countedDrop(nat.DropInterface, nat.DropIn)},
	}...)
}

// onInside returns the rules of a chain for packets with an inside interface on one side: one
// for all interfaces that are named in full, and one for each beginning of a name.
func onInside(chain string, load expr.Any, inside []string, do expr.Any) []rule {
	rules := []rule{{chain, "", then(in(load, setInsideInterfaces), do)}}
	for _, begins := range beginnings(load, inside) {
		rules = append(rules, rule{chain, "", then(begins, do)})
	}
	return rules
}

// beginnings returns a match for each interface that is listed by the beginning of its name.
func beginnings(load expr.Any, names []string) (matches [][]expr.Any) {
	for _, name := range names {
		if begin, ok := strings.CutSuffix(name, anySuffix); ok {
			matches = append(matches, nameBegins(load, begin))
		}
	}
	return matches
}

// natRules choose the outside address of new flows; a chain of type nat sees no others. An
// inside packet is recognised by its source, or by its interface when its prefix was retired:
// the chain of the forward hook has dropped packets that have one without the other, and the
// machine's own have no interface.
//
// The flows of subscribers to the machine itself take room in the conntrack table too. The
// chain of the input hook bounds them, and those of hosts outside, which must not have a
// subscriber's source address. The chain sees only the first packet of a flow, before
// conntrack confirms the flow.
//
// There is a rule for each protocol because nft, reading back its own listing, takes ports in
// a map only after a match of a protocol.
func natRules(o Options) []rule {
	inside := o.InsideInterfaces
	toOutside := in(loadOutputName, setOutsideInterfaces)
	fromInside := in(loadSource, setInsidePrefixes)
	rules := slices.Concat([]rule{
		{chainInput, "inside source, from outside",
			then(slices.Concat(in(loadInputName, setOutsideInterfaces), fromInside), countedDrop(nat.DropInsideSource, nat.DropLocal)...)},
		{chainInput, "too many sessions", then(in(loadSource, setFull), countedDrop(nat.DropOverLimit, nat.DropLocal)...)},
	}, onInside(chainInput, loadInputName, inside, goTo(chainToMachine)), []rule{
		{chainSrcnat, "too many sessions", then(in(loadSource, setFull), countedDrop(nat.DropOverLimit, nat.DropOut)...)},
		{chainSrcnat, "too many sessions through mappings",
			then(slices.Concat(in(loadTarget, setFullMapped), statusHas(conntrack.StatusDestinationTranslated)), countedDrop(nat.DropOverLimit, nat.DropIn)...)},
		{chainSrcnat, "", then(in(loadTarget, setInsidePrefixes), jump(chainTimeouts))},
		{chainSrcnat, "", then(slices.Concat(toOutside, fromInside), goTo(chainTranslate))},
	})
	for _, r := range onInside(chainSrcnat, loadInputName, inside, goTo(chainTranslate)) {
		rules = append(rules, rule{r.chain, "", slices.Concat(toOutside, r.exprs)})
	}
	rules = append(rules, hairpinRules(o)...)
	rules = append(rules, rule{chainTranslate, "", []expr.Any{jump(chainTimeouts)}})
	if len(o.NoNAT) > 0 {
		rules = append(rules, rule{chainTranslate, "", []expr.Any{jump(chainNoNAT)}})
		rules = append(rules, noNATRules(o.NoNAT)...)
	}
	rules = append(rules, labelRules(o)...)
	rules = slices.Concat(rules,
		natByStatic(&o, unix.IPPROTO_TCP),
		natByMapping(o, unix.IPPROTO_TCP),
		natByPin(o, unix.IPPROTO_TCP),
		[]rule{{chainTranslate, "", then(protocolIs(unix.IPPROTO_TCP), translateBy(mapBlock)...)}},
		natByStatic(&o, unix.IPPROTO_UDP),
		natByMapping(o, unix.IPPROTO_UDP),
		natByPin(o, unix.IPPROTO_UDP),
		[]rule{
			{chainTranslate, "", then(protocolIs(unix.IPPROTO_UDP), translateBy(mapBlock)...)},
			{chainTranslate, "", then(protocolIs(unix.IPPROTO_ICMP), translateBy(mapBlock)...)},
			{chainTranslate, "no port block", countedDrop(nat.DropNoBlock, nat.DropOut)},
		})
	return append(rules, guardRules(o.NoNAT, slices.Concat(toOutside, fromInside))...)
}

// unmappedRules drop new flows to pool addresses to which no session belongs, and no mapping of
// others. The blackhole route would drop them too, without a count by reason. An address of
// the machine itself, and one with another route, are not concerned. A chain of type nat sees
// no packet of an established flow, and none that conntrack calls invalid.
func unmappedRules(inside []string) []rule {
	nowhere := slices.Concat(in(loadTarget, setOutsidePrefixes), isRoutedNowhere())
	drop := countedDrop(nat.DropNoMapping, nat.DropOut)
	var rules []rule
	for _, r := range onInside(chainUnmapped, loadInputName, inside, drop[0]) {
		rules = append(rules, rule{chainUnmapped, "belongs to no session", slices.Concat(nowhere, r.exprs, drop[1:])})
	}
	return append(rules, rule{chainUnmapped, "belongs to no session", then(nowhere, countedDrop(nat.DropNoMapping, nat.DropIn)...)})
}

func then(match []expr.Any, do ...expr.Any) []expr.Any { return append(match, do...) }

// The machine itself.

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
		}}, countedDrop(nat.DropAddressRate, nat.DropLocal)...)},
		{chainUngated, "too many new sessions of addresses without a gate", then([]expr.Any{above(all, all)}, countedDrop(nat.DropOfflineRate, nat.DropLocal)...)},
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
		then(append(in(loadInputName, setOutsideInterfaces), above(all, all)), countedDrop(nat.DropOutsideRate, nat.DropLocal)...)}}
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
		size: ungatedMost,
	},
	timeout:  ungatedKept,
	userdata: byteOrders(orderBig),
}

// Matches and verdicts.

// Loads of one packet property into register 1.
var (
	loadInputName  = &expr.Meta{Key: expr.MetaKeyIIFNAME, Register: unix.NFT_REG_1}
	loadOutputName = &expr.Meta{Key: expr.MetaKeyOIFNAME, Register: unix.NFT_REG_1}
	loadProtocol   = &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: unix.NFT_REG_1}
	loadStatus     = &expr.Ct{Key: expr.CtKeySTATUS, Register: unix.NFT_REG_1}
	loadDirection  = &expr.Ct{Key: expr.CtKeyDIRECTION, Register: unix.NFT_REG_1}
	loadSource     = loadAddress(12)
	loadTarget     = loadAddress(16)
)

// loadAddress loads an address from an offset in the IPv4 header (RFC 791
// section 3.1).
func loadAddress(offset uint32) *expr.Payload {
	return &expr.Payload{
		DestRegister: unix.NFT_REG_1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4,
	}
}

// in matches a packet whose loaded property is in a set.
func in(load expr.Any, set string) []expr.Any {
	return []expr.Any{load, &expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: set}}
}

// notIn matches a packet whose loaded property is not in a set.
func notIn(load expr.Any, set string) []expr.Any {
	return []expr.Any{load, &expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: set, Invert: true}}
}

// anySuffix at the end of an interface's name matches any ending.
const anySuffix = "*"

// nameBegins matches a packet whose loaded interface name begins with begin: a comparison of
// full length would match whole names only.
func nameBegins(load expr.Any, begin string) []expr.Any {
	return []expr.Any{
		load, &expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: []byte(begin)},
	}
}

// isReply matches a packet against the direction in which its conntrack entry began, and the
// ICMP errors about packets of the other direction. A packet without an entry, or an untracked
// one, is none.
func isReply() []expr.Any { return isDirection(reply) }

// isOriginal matches a packet in the direction in which its conntrack entry began.
func isOriginal() []expr.Any { return isDirection(original) }

func isDirection(d byte) []expr.Any {
	return []expr.Any{loadDirection, &expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: []byte{d}}}
}

// toMachine matches a packet that leaves by no interface.
func toMachine() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyOIF, Register: unix.NFT_REG_1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: make([]byte, 4)},
	}
}

// isRoutedNowhere matches a packet whose destination is an address of others than the machine,
// without a way to it: a blackhole is none.
func isRoutedNowhere() []expr.Any {
	const unicast = 1 // RTN_UNICAST
	return []expr.Any{
		&expr.Fib{Register: unix.NFT_REG_1, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: binary.NativeEndian.AppendUint32(nil, unicast)},
		&expr.Fib{Register: unix.NFT_REG_1, FlagDADDR: true, ResultOIF: true, FlagPRESENT: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: make([]byte, 4)},
	}
}

// protocolIs matches one transport protocol.
func protocolIs(number uint8) []expr.Any {
	return []expr.Any{
		loadProtocol, &expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: []byte{number}},
	}
}

// isObsoleteICMP matches ICMP messages of the types in the set.
func isObsoleteICMP() []expr.Any {
	load := &expr.Payload{DestRegister: unix.NFT_REG_1, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: icmpTypeLen}
	return append(protocolIs(unix.IPPROTO_ICMP), in(load, setObsoleteICMP)...)
}

// statusHas matches a packet of a conntrack entry with one of the IPS_* bits.
func statusHas(bits uint32) []expr.Any {
	return []expr.Any{loadStatus, maskOf(bits), &expr.Cmp{Op: expr.CmpOpNeq, Register: unix.NFT_REG_1, Data: make([]byte, 4)}}
}

// statusLacks matches a packet of a conntrack entry with none of the IPS_* bits. It matches no
// packet that conntrack does not track.
func statusLacks(bits uint32) []expr.Any {
	return []expr.Any{loadStatus, maskOf(bits), &expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: make([]byte, 4)}}
}

func maskOf(bits uint32) expr.Any {
	return &expr.Bitwise{
		SourceRegister: unix.NFT_REG_1, DestRegister: unix.NFT_REG_1, Len: 4,
		Mask: binary.NativeEndian.AppendUint32(nil, bits), Xor: make([]byte, 4),
	}
}

// verdictOf applies the verdict that a map has for the loaded property, and goes on with the
// next rule where the map has none.
func verdictOf(load expr.Any, verdicts string) []expr.Any {
	return []expr.Any{load, &expr.Lookup{
		SourceRegister: unix.NFT_REG_1, SetName: verdicts, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true,
	}}
}

// translateBy translates the source into the addresses and ports that a map has for it, and
// goes on with the next rule where the map has none. The value takes four 32-bit registers:
// address, port, last address, last port.
func translateBy(blocks string) []expr.Any {
	return append([]expr.Any{loadSource}, translateInto(blocks)...)
}

// translateInto is translateBy for a key that is loaded already.
func translateInto(ranges string) []expr.Any {
	return []expr.Any{
		&expr.Lookup{
			SourceRegister: unix.NFT_REG_1, SetName: ranges, DestRegister: unix.NFT_REG_1, IsDestRegSet: true,
		},
		&expr.NAT{
			Type: expr.NATTypeSourceNAT, Family: unix.NFPROTO_IPV4,
			RegAddrMin: unix.NFT_REG_1, RegProtoMin: unix.NFT_REG32_01,
			RegAddrMax: unix.NFT_REG32_02, RegProtoMax: unix.NFT_REG32_03,
		},
	}
}

func assign(policy string) expr.Any {
	return &expr.Objref{Type: unix.NFT_OBJECT_CT_TIMEOUT, Name: policy}
}

func goTo(chain string) expr.Any { return &expr.Verdict{Kind: expr.VerdictGoto, Chain: chain} }

func jump(chain string) expr.Any { return &expr.Verdict{Kind: expr.VerdictJump, Chain: chain} }

func leave() expr.Any { return &expr.Verdict{Kind: expr.VerdictReturn} }
