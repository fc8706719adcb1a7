package nftnat

import (
	"slices"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Names in the table. Operators read them, and elements of the gate lead to
// chainDraining.
const (
	mapGate              = "gate"
	mapBlock             = "block"
	setInsidePrefixes    = "inside_prefixes"
	setInsideInterfaces  = "inside_interfaces"
	setOutsideInterfaces = "outside_interfaces"
	setProtocols         = "protocols"
	setUnused            = "unused" // see unused.go

	chainForward    = "forward"
	chainFromInside = "from_inside"
	chainUpstream   = "upstream"
	chainToInside   = "to_inside"
	chainDraining   = "draining"
	chainSrcnat     = "srcnat"
	chainTimeouts   = "timeouts"
	chainTranslate  = "translate"
	chainGuard      = "guard"
)

// A chain of the table. Only base chains have a hook.
type chain struct {
	name     string
	kind     string // "filter" or "nat"; "" for a chain without a hook
	hook     uint32 // NF_INET_*
	priority int32
}

// A rule of the table. Rules of one chain stand in the order of the list.
type rule struct {
	chain   string
	comment string
	exprs   []expr.Any
}

// ruleset is everything in the table but the elements of gate and block.
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
		rules:    slices.Concat(forwardRules(), natRules(), timeoutRules(policies)),
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
		{name: chainDraining},
		{name: chainSrcnat, kind: "nat", hook: unix.NF_INET_POST_ROUTING, priority: prioritySrcnat},
		{name: chainTimeouts},
		{name: chainTranslate},
		{name: chainGuard, kind: "filter", hook: unix.NF_INET_POST_ROUTING, priority: priorityGuard},
	}
}

// forwardRules let nothing pass without an open gate (I3). A packet of an
// established flow costs four look-ups. An open gate returns and does not
// accept: what goes from inside to inside has two gates to pass.
//
// A draining subscriber keeps what conntrack has confirmed. Its state would not
// do: a flow that was never answered, such as one-way UDP, stays new.
func forwardRules() []rule {
	return []rule{
		{chainForward, "", then(in(loadInputName, setInsideInterfaces), goTo(chainFromInside))},
		{chainForward, "", then(in(loadSource, setInsidePrefixes), goTo(chainFromInside))},
		{chainForward, "", then(in(loadOutputName, setInsideInterfaces), goTo(chainToInside))},
		{chainForward, "", then(in(loadTarget, setInsidePrefixes), goTo(chainToInside))},

		{chainFromInside, "", []expr.Any{jump(chainUpstream)}},
		{chainFromInside, "", then(in(loadOutputName, setOutsideInterfaces), leave())},
		{chainFromInside, "", then(in(loadOutputName, setInsideInterfaces), goTo(chainToInside))},
		{chainFromInside, "", then(in(loadTarget, setInsidePrefixes), goTo(chainToInside))},
		{chainFromInside, "towards an interface that is neither inside nor outside", countedDrop()},

		{chainUpstream, "cannot share an address by ports",
			then(notIn(loadProtocol, setProtocols), countedDrop()...)},
		{chainUpstream, "", verdictOf(loadSource, mapGate)},
		{chainUpstream, "no open gate", countedDrop()},

		{chainToInside, "", verdictOf(loadTarget, mapGate)},
		{chainToInside, "no open gate", countedDrop()},

		{chainDraining, "", then(statusHas(statusConfirmed), leave())},
		{chainDraining, "new session while draining", countedDrop()},
	}
}

// natRules choose the outside address of new flows; a chain of type nat sees
// no others. An inside packet is known by its source, or by its interface when
// its prefix was retired. The guard sees every packet: a flow that conntrack
// knew before its gate opened is never translated, and must not leave (DEL-05).
//
// There is a rule for each protocol because nft, reading back what it listed,
// takes ports in a map only after a match of one.
func natRules() []rule {
	toOutside := in(loadOutputName, setOutsideInterfaces)
	fromInside := in(loadSource, setInsidePrefixes)
	return []rule{
		{chainSrcnat, "", then(in(loadTarget, setInsidePrefixes), jump(chainTimeouts))},
		{chainSrcnat, "", then(slices.Concat(toOutside, fromInside), goTo(chainTranslate))},
		{chainSrcnat, "", then(slices.Concat(toOutside, in(loadInputName, setInsideInterfaces)), goTo(chainTranslate))},

		{chainTranslate, "", []expr.Any{jump(chainTimeouts)}},
		{chainTranslate, "", then(protocolIs(unix.IPPROTO_TCP), translateBy(mapBlock)...)},
		{chainTranslate, "", then(protocolIs(unix.IPPROTO_UDP), translateBy(mapBlock)...)},
		{chainTranslate, "", then(protocolIs(unix.IPPROTO_ICMP), translateBy(mapBlock)...)},
		{chainTranslate, "no port block", countedDrop()},

		{chainGuard, "untranslated", then(slices.Concat(toOutside, fromInside), countedDrop()...)},
	}
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
