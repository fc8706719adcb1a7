package nftnat

import (
	"slices"
	"strings"

	"github.com/google/nftables/expr"
	"github.com/sessiond/sessiond/internal/conntrack"
	"github.com/sessiond/sessiond/internal/nat"
	"golang.org/x/sys/unix"
)

// establishedRules are the short way of packets of translated flows, out and back: one rule,
// which lets labelled flows pass whose subscriber is not being cut off. All other packets go on
// with the rules behind it, which look the gate up, and say why a packet is dropped. ICMP takes
// the long way, since some of its types are dropped.
//
// The checks of the long way hold for a labelled flow anyway: see shortWay. Its first packet
// went that way, and source NAT, which labels, follows only from the inside out.
func establishedRules(o Options) []rule {
	if !o.short.on() {
		return nil
	}
	var rules []rule
	established := append(labelled(o.short.label), notICMP()...)
	for _, inside := range named(loadInputName, setInsideInterfaces, o.InsideInterfaces) {
		for _, outside := range named(loadOutputName, setOutsideInterfaces, o.OutsideInterfaces) {
			rules = append(rules, rule{chainForward, "", slices.Concat(inside, outside, established, notIn(loadSource, setClosing), []expr.Any{leave()})})
		}
	}
	for _, inside := range named(loadOutputName, setInsideInterfaces, o.InsideInterfaces) {
		for _, outside := range named(loadInputName, setOutsideInterfaces, o.OutsideInterfaces) {
			rules = append(rules, rule{chainForward, "", slices.Concat(outside, inside, isReply(), established, notIn(loadTarget, setClosing), []expr.Any{leave()})})
		}
	}
	return rules
}

// labelRules label a flow in the chain that translates, where only first packets come.
func labelRules(o Options) []rule {
	if !o.short.on() {
		return nil
	}
	return []rule{labelRule(o.short.label)}
}

func labelRule(l conntrack.Labels) rule {
	return rule{chainTranslate, "", []expr.Any{
		&expr.Immediate{Register: unix.NFT_REG_1, Data: l[:]},
		&expr.Ct{Key: expr.CtKeyLABELS, Register: unix.NFT_REG_1, SourceRegister: true},
	}}
}

// labelled matches packets of flows that have a label.
func labelled(l conntrack.Labels) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeyLABELS, Register: unix.NFT_REG_1},
		&expr.Bitwise{SourceRegister: unix.NFT_REG_1, DestRegister: unix.NFT_REG_1, Len: uint32(len(l)), Mask: l[:], Xor: make([]byte, len(l))},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: unix.NFT_REG_1, Data: make([]byte, len(l))},
	}
}

// named returns a match for each way in which interfaces are named: one name is compared, several
// are looked up in their set, and each beginning of a name is compared.
func named(load expr.Any, set string, names []string) [][]expr.Any {
	matches := beginnings(load, names)
	whole := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return strings.HasSuffix(name, anySuffix) })
	switch len(whole) {
	case 0:
		return matches
	case 1:
		return append(matches, nameBegins(load, string(interfaceKey(whole[0]))))
	}
	return append(matches, in(load, set))
}

func notICMP() []expr.Any {
	return []expr.Any{loadProtocol, &expr.Cmp{Op: expr.CmpOpNeq, Register: unix.NFT_REG_1, Data: []byte{unix.IPPROTO_ICMP}}}
}

// leavingRules let nothing leave untranslated (I3, DEL-05): conntrack never translates a flow that
// it confirmed before the flow's gate opened, nor a packet that it does not track. The chain of
// source NAT, which comes next, translates or drops the first packet of a flow. So no packet
// needs a look at its source behind it, which was a twentieth of the cost of forwarding. The
// machine's own packets have a chain of their own, which costs forwarded ones nothing.
func leavingRules(o Options) []rule {
	if len(o.NoNAT) > 0 {
		return nil // see guardRules
	}
	return []rule{
		{chainLeaving, "", then(statusHas(conntrack.StatusSourceTranslated), leave())},
		{chainLeaving, "", then(slices.Concat(isReply(), statusHas(conntrack.StatusDestinationTranslated)), leave())},
		{chainLeaving, "", then(isNewFlow(), leave())},
		{chainLeaving, "untranslated", countedDrop(nat.DropUntranslated, nat.DropOut)},

		{chainOutput, "", then(slices.Concat(in(loadOutputName, setOutsideInterfaces), in(loadSource, setInsidePrefixes)), goTo(chainLeaving))},
	}
}

// isNewFlow matches the first packet of a flow: conntrack has not confirmed the flow yet.
func isNewFlow() []expr.Any { return statusLacks(conntrack.StatusConfirmed) }
