package nftnat

import (
	"slices"
	"strings"

	"github.com/google/nftables/expr"
	"github.com/sessiond/sessiond/internal/conntrack"
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
	setFull              = "full"        // see bound.go
	setFullMapped        = "full_mapped" // see bound.go
	setUngated           = "ungated"     // see ungated.go
	setUnused            = "unused"      // see unused.go

	chainForward     = "forward"
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
	chainToMachine   = "to_machine"
	chainUngated     = "ungated"
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

// ruleset is the whole table except the elements of gate and block.
type ruleset struct {
	table    string
	sets     []set
	policies []policy
	chains   []chain
	rules    []rule
}

func newRuleset(o Options) *ruleset {
	policies := newPolicies(o.Timeouts)
	return &ruleset{
		table:    o.Table,
		sets:     newSets(o),
		policies: policies,
		chains:   newChains(),
		rules:    slices.Concat(forwardRules(o), ungatedRules(o), natRules(o.InsideInterfaces), outsideRules(o), timeoutRules(policies)),
	}
}

// The guard comes after source NAT, at nft's priority srcnat, chose an address.
const prioritySrcnat, priorityGuard = 100, 110

func newChains() []chain {
	return []chain{
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
		{name: chainGuard, kind: "filter", hook: unix.NF_INET_POST_ROUTING, priority: priorityGuard},
	}
}

// forwardRules let nothing pass without an open gate (I3). A gate leads both ways: from an
// inside interface out, and back to an inside interface. A packet of an established flow costs
// four look-ups. An open gate returns and does not accept: a packet from inside to inside has
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
// A draining subscriber keeps the flows that conntrack has confirmed. The state of a flow
// would not do: one that was never answered, such as one-way UDP, stays new.
func forwardRules(o Options) []rule {
	inside := o.InsideInterfaces
	rules := slices.Concat(
		onInside(chainForward, loadInputName, inside, goTo(chainFromInside)),
		[]rule{{chainForward, "inside source, not from an inside interface",
			then(in(loadSource, setInsidePrefixes), countedDrop()...)}},
		onInside(chainForward, loadOutputName, inside, goTo(chainToInside)),
		[]rule{
			{chainForward, "towards an interface that is not inside",
				then(in(loadTarget, setInsidePrefixes), countedDrop()...)},
			{chainForward, "outside source, not translated here",
				then(in(loadSource, setOutsidePrefixes), countedDrop()...)},

			{chainFromInside, "", []expr.Any{jump(chainUpstream)}},
			{chainFromInside, "", then(in(loadOutputName, setOutsideInterfaces), leave())},
		},
		onInside(chainFromInside, loadOutputName, inside, goTo(chainDownstream)),
		[]rule{
			{chainFromInside, "towards an interface that is neither inside nor outside", countedDrop()},

			{chainUpstream, "cannot share an address by ports",
				then(notIn(loadProtocol, setProtocols), countedDrop()...)},
			{chainUpstream, "", verdictOf(loadSource, mapGate)},
			{chainUpstream, "no open gate", countedDrop()},

			{chainToInside, "", then(isReply(), goTo(chainDownstream))},
			{chainToInside, "", then(statusHas(conntrack.StatusDestinationTranslated), goTo(chainDownstream))},
			{chainToInside, "neither a reply nor through a mapping", countedDrop()},

			{chainDownstream, "", verdictOf(loadTarget, mapGate)},
			{chainDownstream, "no open gate", countedDrop()},

			{chainDraining, "", then(statusHas(conntrack.StatusConfirmed), leave())},
			{chainDraining, "", then(toMachine(), goTo(chainUngated))},
			{chainDraining, "new session while draining", countedDrop()},
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
		{chainFromOutside, "towards an interface that is neither inside nor outside", countedDrop()},
	}...)
}

// onInside returns the rules of a chain for packets with an inside interface on one side: one
// for all interfaces that are named in full, and one for each beginning of a name.
func onInside(chain string, load expr.Any, inside []string, do expr.Any) []rule {
	rules := []rule{{chain, "", then(in(load, setInsideInterfaces), do)}}
	for _, name := range inside {
		if begin, ok := strings.CutSuffix(name, anySuffix); ok {
			rules = append(rules, rule{chain, "", then(nameBegins(load, begin), do)})
		}
	}
	return rules
}

// natRules choose the outside address of new flows; a chain of type nat sees no others. An
// inside packet is recognised by its source, or by its interface when its prefix was retired:
// the chain of the forward hook has dropped packets that have one without the other, and the
// machine's own have no interface. The guard sees every packet: a flow that conntrack knew
// before its gate opened is never translated, and must not leave (DEL-05).
//
// The flows of subscribers to the machine itself take room in the conntrack table too. The
// chain of the input hook bounds them, and those of hosts outside, which must not have a
// subscriber's source address. The chain sees only the first packet of a flow, before
// conntrack confirms the flow.
//
// There is a rule for each protocol because nft, reading back its own listing, takes ports in
// a map only after a match of a protocol.
func natRules(inside []string) []rule {
	toOutside := in(loadOutputName, setOutsideInterfaces)
	fromInside := in(loadSource, setInsidePrefixes)
	rules := slices.Concat([]rule{
		{chainInput, "inside source, from outside",
			then(slices.Concat(in(loadInputName, setOutsideInterfaces), fromInside), countedDrop()...)},
		{chainInput, "too many sessions", then(in(loadSource, setFull), countedDrop()...)},
	}, onInside(chainInput, loadInputName, inside, goTo(chainToMachine)), []rule{
		{chainSrcnat, "too many sessions", then(in(loadSource, setFull), countedDrop()...)},
		{chainSrcnat, "too many sessions through mappings",
			then(slices.Concat(in(loadTarget, setFullMapped), statusHas(conntrack.StatusDestinationTranslated)), countedDrop()...)},
		{chainSrcnat, "", then(in(loadTarget, setInsidePrefixes), jump(chainTimeouts))},
		{chainSrcnat, "", then(slices.Concat(toOutside, fromInside), goTo(chainTranslate))},
	})
	for _, r := range onInside(chainSrcnat, loadInputName, inside, goTo(chainTranslate)) {
		rules = append(rules, rule{r.chain, "", slices.Concat(toOutside, r.exprs)})
	}
	return append(rules, []rule{
		{chainTranslate, "", []expr.Any{jump(chainTimeouts)}},
		{chainTranslate, "", then(protocolIs(unix.IPPROTO_TCP), translateBy(mapBlock)...)},
		{chainTranslate, "", then(protocolIs(unix.IPPROTO_UDP), translateBy(mapBlock)...)},
		{chainTranslate, "", then(protocolIs(unix.IPPROTO_ICMP), translateBy(mapBlock)...)},
		{chainTranslate, "no port block", countedDrop()},

		{chainGuard, "untranslated", then(slices.Concat(toOutside, fromInside), countedDrop()...)},
	}...)
}

// timeoutRules give a new flow the policy of its protocol. That works only
// before conntrack confirms the flow, which is after source NAT.
func timeoutRules(policies []policy) []rule {
	var rules []rule
	for _, p := range policies {
		rules = append(rules, rule{chainTimeouts, "", then(protocolIs(p.protocol), assign(p.name))})
	}
	return rules
}

func then(match []expr.Any, do ...expr.Any) []expr.Any { return append(match, do...) }
