package nftnat

import (
	"encoding/binary"
	"slices"
	"strings"

	"github.com/google/nftables/expr"
	"github.com/sessiond/sessiond/internal/conntrack"
	"github.com/sessiond/sessiond/internal/nat"
	"golang.org/x/sys/unix"
)

// establishedRules are the short way of packets of translated flows, out and back: one rule, which
// ends in one look-up, the subscriber's gate. All other packets, and those without an open
// gate, go on with the rules behind it, which say why a packet is dropped. ICMP takes the long
// way, since some of its types are dropped.
//
// What the long way checks besides holds for such a flow anyway: its first packet went that way,
// before conntrack confirmed the flow, and source NAT follows only from the inside out.
func establishedRules(o Options) []rule {
	var rules []rule
	established := append(translated(), notICMP()...)
	for _, inside := range named(loadInputName, setInsideInterfaces, o.InsideInterfaces) {
		for _, outside := range named(loadOutputName, setOutsideInterfaces, o.OutsideInterfaces) {
			rules = append(rules, rule{chainForward, "", slices.Concat(inside, outside, established, verdictOf(loadSource, mapGate))})
		}
	}
	for _, inside := range named(loadOutputName, setInsideInterfaces, o.InsideInterfaces) {
		for _, outside := range named(loadInputName, setOutsideInterfaces, o.OutsideInterfaces) {
			rules = append(rules, rule{chainForward, "", slices.Concat(outside, inside, isReply(), established, verdictOf(loadTarget, mapGate))})
		}
	}
	return rules
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

// translated matches packets of flows whose source has been translated, which no helper expected.
func translated() []expr.Any {
	const want = conntrack.StatusConfirmed | conntrack.StatusSourceTranslated
	return []expr.Any{
		loadStatus,
		maskOf(want | conntrack.StatusExpected),
		&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: binary.NativeEndian.AppendUint32(nil, want)},
	}
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
