package nftnat

import (
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/addrrange"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/nftnat/wire"
)

// The limits of subscribers. They are looked at in a chain of type nat at the prerouting hook,
// which sees the first packet of a flow only: packets of established flows pay nothing. The
// hook is one of those where the kernel can reject a packet with an ICMP error.

// Names in the table of a NAT with limits.
const (
	chainFirstPackets = "first_packets"
	chainLimits       = "limits"
	chainOnline       = "online"
	chainUnreachable  = "unreachable"

	setNewSessions = "new_sessions"
	setNear        = "limit_near"
	setMappedPorts = "limit_mapped_ports"

	// The names of a limit's set and chain begin so.
	limitPrefix, refusedPrefix = "limit_", "refused_"
)

// kernelLimits name each limit in the table.
var kernelLimits = [nat.LimitCount]string{
	nat.LimitSessions: "sessions", nat.LimitNewSessions: "rate", nat.LimitTCPPorts: "tcp_ports", nat.LimitUDPPorts: "udp_ports",
}

func setAtLimit(l nat.Limit) string  { return limitPrefix + kernelLimits[l] }
func setRefused(l nat.Limit) string  { return refusedPrefix + kernelLimits[l] }
func chainRefuse(l nat.Limit) string { return "refuse_" + kernelLimits[l] }

// priorityLimits is before that of destination NAT, nft's dstnat: what is refused gets none.
const priorityLimits = -110

// Limits of the ICMP errors about refused flows (RFC 6888 REQ-11B, RFC 1812 section 4.3.2.8), a
// second and at once.
const (
	unreachableOfOne, unreachableOfOneBurst = 1, 3
	unreachableOfAll, unreachableOfAllBurst = 100, 100
)

// newSessionsKept is the time for which a subscriber's rate is known after its last new flow: a
// bucket that is not used is full again sooner. refusedKept is that for which a refusal is known,
// several times as long as a caller of Refusals waits.
const (
	newSessionsKept = 5 * time.Second
	refusedKept     = 10 * time.Second
)

// newSessionsMost is the number of subscribers whose rates are counted at a time, some 100 MB,
// and refusedMost of those whose refusals are. Those beyond have no rate, and get no ICMP errors.
const newSessionsMost, refusedMost = 1 << 20, 1 << 16

// mappedMost is the number of ports that are kept open at limits of ports, of all subscribers: 25
// MB. A subscriber beyond it opens no new sessions at all at its limit of ports.
const mappedMost = 1 << 18

// RateBurst is the number of new flows at once within a rate: a 64th part, so that a flood goes
// past the rate by less than 2 % of the first second, but no less than 16 unless the rate is.
func RateBurst(perSecond int) int { return max(perSecond/64, min(perSecond, 16)) }

// paceLeast is the smallest limit of sessions near which they are paced: below it, the flows of
// one web page are a large part of the limit.
const paceLeast = 256

// paceOf is the rate at which new flows are let in near a limit of sessions, in the last quarter:
// half of the limit in a second. The index counts a few milliseconds late, so that a flood at
// any speed goes past the limit by some thousandths only.
func paceOf(sessions int) expr.Any { return above(uint64(sessions/2), uint64(max(8, sessions/100))) }

// limited reports whether a configuration has limits.
func limited(o *Options) bool { return nat.AnyLimits(o.Limits) }

// paced are the subscribers near their limits of sessions that are paced.
func paced(o *Options, near []netip.Addr) []member {
	var members []member
	for _, inside := range near {
		if l := nat.LimitsAt(o.Limits, inside); l.Sessions >= paceLeast {
			data, err := expr.Marshal(unix.NFPROTO_IPV4, paceOf(l.Sessions))
			if err == nil { // it never fails
				members = append(members, member{key: inside.AsSlice(), state: data})
			}
		}
	}
	return members
}

// The table.

// limitSets are the sets in which the kernel counts.
func limitSets(o *Options) []set {
	if !limited(o) {
		return nil
	}
	counting := func(name string, kept time.Duration, most uint32) set {
		s := addressSet(name, nil)
		s.flags, s.timeout, s.size = unix.NFT_SET_EVAL|unix.NFT_SET_TIMEOUT, kept, most
		return s
	}
	sets := []set{counting(setNewSessions, newSessionsKept, newSessionsMost)}
	for l := range nat.LimitCount {
		sets = append(sets, counting(setRefused(l), refusedKept, refusedMost))
	}
	return sets
}

// fullSets are the sets of the subscribers at a bound or limit.
func fullSets(o *Options) []set {
	sets := []set{addressSet(setFull, o.full.began), addressSet(setFullMapped, o.full.reached)}
	if !limited(o) {
		return sets
	}
	near := addressSet(setNear, nil)
	near.flags, near.members = unix.NFT_SET_EVAL, paced(o, o.full.near)
	mapped := set{
		name: setMappedPorts,
		shape: shape{
			keyType: nftables.TypeIPAddr.GetNFTMagic()<<(2*nftables.SetConcatTypeBits) |
				nftables.TypeInetProto.GetNFTMagic()<<nftables.SetConcatTypeBits | nftables.TypeInetService.GetNFTMagic(),
			keyLen: mappedPortLen,
		},
		userdata: byteOrders(orderNone), members: portMembers(o.full.mapped),
	}
	sets = append(sets, near, mapped)
	for l := range nat.LimitCount {
		if l != nat.LimitNewSessions {
			sets = append(sets, addressSet(setAtLimit(l), o.full.limited[l]))
		}
	}
	return sets
}

// addressSet is a set of addresses.
func addressSet(name string, list []netip.Addr) set {
	return set{
		name:     name,
		shape:    shape{keyType: nftables.TypeIPAddr.GetNFTMagic(), keyLen: addressLen},
		userdata: byteOrders(orderBig), members: addressMembers(list),
	}
}

// countedByPackets reports whether packets make a set's elements, which are therefore not
// compared with wanted ones.
func (s shape) countedByPackets() bool { return s.flags&unix.NFT_SET_TIMEOUT != 0 }

// ownLimitSet reports whether a set belongs to limits: without them it is deleted.
func ownLimitSet(name string) bool {
	if name == setNear || name == setMappedPorts || name == setNewSessions {
		return true
	}
	for l := range nat.LimitCount {
		if name == setAtLimit(l) || name == setRefused(l) {
			return true
		}
	}
	return false
}

// flushRates forgets the rates that the kernel has counted: an element keeps the limit under
// which it was made, and the rules are about to have others.
func (r *ruleset) flushRates(s *actualRuleset, b *wire.Batch) {
	if _, ok := s.sets[setNewSessions]; ok {
		r.flushSet(setNewSessions, b)
	}
}

func limitChains(o *Options) []chain {
	if !limited(o) {
		return nil
	}
	chains := []chain{
		{name: chainFirstPackets, kind: "nat", hook: unix.NF_INET_PRE_ROUTING, priority: priorityLimits},
		{name: chainLimits},
		{name: chainOnline},
		{name: chainUnreachable},
	}
	for l := range nat.LimitCount {
		chains = append(chains, chain{name: chainRefuse(l)})
	}
	return chains
}

// limitRules refuse new flows of subscribers at a limit: to the internet, to other subscribers
// and to the machine itself. Their number grows with the prefixes that have a rate, and not with
// subscribers. At a limit of ports a flow from a port that has a mapping passes: it takes none
// (RFC 4787 REQ-1).
//
// Only packets of subscribers with a gate are looked at, so that no other address makes an
// element. A flow of a draining subscriber, which the forward hook drops unless it goes to the
// machine itself, returns from the chain of draining ones too. Rates come last: a flow that is
// refused anyway does not count.
func limitRules(o *Options) []rule {
	if !limited(o) {
		return nil
	}
	refuse := func(l nat.Limit) expr.Any { return goTo(chainRefuse(l)) }
	newPort := []expr.Any{
		loadSource,
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: unix.NFT_REG32_01},
		&expr.Payload{DestRegister: unix.NFT_REG32_02, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 2},
		&expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: setMappedPorts, Invert: true},
	}
	atPorts := func(protocol uint8, l nat.Limit) rule {
		return rule{chainLimits, "", then(slices.Concat(protocolIs(protocol), in(loadSource, setAtLimit(l)), newPort), refuse(l))}
	}
	rules := slices.Concat(onInside(chainFirstPackets, loadInputName, o.InsideInterfaces, goTo(chainLimits)), []rule{
		{chainLimits, "", then(notIn(loadProtocol, setProtocols), leave())},
		{chainLimits, "", []expr.Any{jump(chainOnline)}},
	})
	if anyLimit(o, func(l *nat.Limits) int { return l.Sessions + l.Reserve }) {
		rules = append(rules,
			rule{chainLimits, "", then(in(loadSource, setAtLimit(nat.LimitSessions)), refuse(nat.LimitSessions))},
			rule{chainLimits, "new sessions too fast near the limit of sessions", then(in(loadSource, setNear), countedDrop(nat.DropOverLimit, nat.DropOut)...)})
	}
	if anyLimit(o, func(l *nat.Limits) int { return l.TCPPorts }) {
		rules = append(rules, atPorts(unix.IPPROTO_TCP, nat.LimitTCPPorts))
	}
	if anyLimit(o, func(l *nat.Limits) int { return l.UDPPorts }) {
		rules = append(rules, atPorts(unix.IPPROTO_UDP, nat.LimitUDPPorts))
	}
	rules = append(rules, []rule{
		{chainOnline, "", verdictOf(loadSource, mapGate)},
		{chainOnline, "", []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}},

		{chainUnreachable, "", []expr.Any{
			&expr.Limit{Type: expr.LimitTypePkts, Rate: unreachableOfAll, Unit: expr.LimitTimeSecond, Burst: unreachableOfAllBurst},
			countDrop(nat.DropOverLimit, nat.DropOut), &expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: icmpHostUnreachable},
		}},
		{chainUnreachable, "too many ICMP errors", countedDrop(nat.DropOverLimit, nat.DropOut)},
	}...)
	for i := range o.Limits {
		rate := o.Limits[i].NewSessionsPerSecond
		if rate == 0 {
			continue
		}
		for _, r := range addrrange.Of(o.Limits[i].Inside) {
			for _, p := range r.AppendPrefixes(nil) {
				rules = append(rules, rule{chainLimits, "", then(append(sourceIn(p), loadSource, &expr.Dynset{
					SrcRegKey: unix.NFT_REG_1, SetName: setNewSessions, Operation: unix.NFT_DYNSET_OP_UPDATE,
					Exprs: []expr.Any{above(uint64(rate), uint64(RateBurst(rate)))},
				}), refuse(nat.LimitNewSessions))})
			}
		}
	}
	for l := range nat.LimitCount {
		rules = append(rules,
			rule{chainRefuse(l), "", []expr.Any{loadSource, &expr.Dynset{
				SrcRegKey: unix.NFT_REG_1, SetName: setRefused(l), Operation: unix.NFT_DYNSET_OP_UPDATE,
				Exprs: []expr.Any{&expr.Limit{Type: expr.LimitTypePkts, Rate: unreachableOfOne, Unit: expr.LimitTimeSecond, Burst: unreachableOfOneBurst}},
			}, goTo(chainUnreachable)}},
			rule{chainRefuse(l), "at the limit: " + l.String(), countedDrop(nat.DropOverLimit, nat.DropOut)})
	}
	return rules
}

// anyLimit reports whether a group has one of the limits: a first packet pays for those alone.
func anyLimit(o *Options, of func(*nat.Limits) int) bool {
	return slices.ContainsFunc(o.Limits, func(l nat.PrefixLimits) bool { return of(&l.Limits) > 0 })
}

// icmpHostUnreachable is the code that RFC 6888 REQ-11B asks for. RFC 5508 REQ-8 takes code 13 for
// what a policy forbids; this flow may be tried again later.
const icmpHostUnreachable = 1

// beforeRouting lets a draining subscriber's packet return to the chain of the prerouting hook,
// where it is not known yet whether the packet is for the machine itself: destination NAT has
// not been decided then (IPS_DST_NAT_DONE).
func beforeRouting(o *Options) []rule {
	if !limited(o) {
		return nil
	}
	const destinationDone = 1 << 8
	return []rule{{chainDraining, "", then(statusLacks(destinationDone), leave())}}
}

// sourceIn matches packets whose source is in a prefix.
func sourceIn(p netip.Prefix) []expr.Any {
	first := p.Masked().Addr().As4()
	if p.Bits() == 32 {
		return []expr.Any{loadSource, &expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: first[:]}}
	}
	r := addrrange.Of([]netip.Prefix{p})[0]
	mask := addrrange.Address(^(r.Last - r.First)).As4()
	return []expr.Any{
		loadSource,
		&expr.Bitwise{SourceRegister: unix.NFT_REG_1, DestRegister: unix.NFT_REG_1, Len: 4, Mask: mask[:], Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: first[:]},
	}
}

// mappedPort is an inside port with sessions, of a subscriber at a limit of ports.
type mappedPort struct {
	inside   netip.Addr
	protocol uint8
	port     uint16
}

// mappedPortLen is the length of a key: an address, a protocol and a port, each in a word.
const mappedPortLen = 3 * 4

func portMembers(list []mappedPort) []member {
	members := make([]member, len(list))
	for i, p := range list {
		key := append(p.inside.AsSlice(), p.protocol, 0, 0, 0, byte(p.port>>8), byte(p.port), 0, 0)
		members[i].key = key
	}
	return members
}
