package nftnat

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/sessiond/sessiond/internal/addrrange"
	"github.com/sessiond/sessiond/internal/nat"
	"golang.org/x/sys/unix"
)

// A timeoutTable is the part of the table that gives new flows their policies. That works only
// before conntrack confirms a flow, which is after source NAT; packets of established flows do
// not come here.
//
// Without a group that has timeouts of its own, there are only the two rules of the general
// ones. Otherwise two maps lead to the chain of a policy: one from the subscriber's address and
// the protocol, one from these and the destination port. Rules are as many as there are
// different policies, however many groups and subscribers there are. All groups are in the
// maps then, so that the group of the subscriber that began a flow decides, also where the
// other side is a subscriber too.
type timeoutTable struct {
	sets     []set
	policies []policy
	chains   []chain
	rules    []rule
}

func newTimeoutTable(o Options) timeoutTable {
	var t timeoutTable
	if slices.ContainsFunc(o.GroupTimeouts, func(g nat.GroupTimeouts) bool { return !g.Plain() }) {
		t.addGroups(o)
	}
	for _, p := range []policy{tcpPolicy(o.Timeouts), udpPolicy(o.Timeouts)} {
		t.addPolicy(p)
		t.rules = append(t.rules, rule{chainTimeouts, "", then(protocolIs(p.protocol), assign(p.name))})
	}
	return t
}

func (t *timeoutTable) addGroups(o Options) {
	groups, ports := groupTimeoutsMap, portTimeoutsMap
	for _, g := range o.GroupTimeouts {
		own := g.Over(o.Timeouts)
		for _, p := range []policy{tcpPolicy(own), udpPolicy(own)} {
			t.addPolicy(p)
			groups.members = append(groups.members, timeoutMembers(g.Inside, p)...)
		}
		for _, port := range g.Ports {
			p := policyTo(own, port)
			t.addPolicy(p)
			ports.members = append(ports.members, timeoutMembers(g.Inside, p, uint8(port.Port>>8), uint8(port.Port))...)
		}
	}
	for _, p := range t.policies {
		t.chains = append(t.chains, chain{name: p.name})
		t.rules = append(t.rules, rule{p.name, "", []expr.Any{assign(p.name)}})
	}
	t.sets = append(t.sets, groups)
	if len(ports.members) > 0 {
		t.sets = append(t.sets, ports)
	}
	for _, side := range []struct {
		address expr.Any
		who     string
	}{{loadSource, "group of the subscriber that begins"}, {loadTarget, "group of the subscriber reached through a mapping"}} {
		if len(ports.members) > 0 {
			t.rules = append(t.rules, rule{chainTimeouts, side.who, timeoutBy(mapPortTimeouts, side.address, loadProtocolSecond, loadTargetPortThird)})
		}
		t.rules = append(t.rules, rule{chainTimeouts, side.who, timeoutBy(mapGroupTimeouts, side.address, loadProtocolSecond)})
	}
}

// addPolicy adds a policy unless it is there.
func (t *timeoutTable) addPolicy(p policy) {
	if !slices.ContainsFunc(t.policies, func(q policy) bool { return q.name == p.name }) {
		t.policies = append(t.policies, p)
	}
}

// policyTo is the policy of flows to a port with a timeout of its own.
func policyTo(own nat.Timeouts, port nat.PortTimeout) policy {
	if port.Protocol == unix.IPPROTO_UDP {
		return udpPolicy(own.ToPort(port))
	}
	return tcpPolicy(own.ToPort(port))
}

// The maps of timeouts are concatenations with ranges: nft prints the prefixes as such, and
// loads its own listing.
var (
	groupTimeoutsMap = set{
		name: mapGroupTimeouts,
		shape: shape{
			flags:   unix.NFT_SET_MAP | unix.NFT_SET_INTERVAL | nftables.NFT_SET_CONCAT,
			keyType: concatenated(nftables.TypeIPAddr, nftables.TypeInetProto), keyLen: 2 * partLen,
			dataType: verdictType, fields: string([]byte{addressLen, protocolLen}),
		},
		userdata: byteOrders(orderNone, orderNone),
	}
	portTimeoutsMap = set{
		name: mapPortTimeouts,
		shape: shape{
			flags:   unix.NFT_SET_MAP | unix.NFT_SET_INTERVAL | nftables.NFT_SET_CONCAT,
			keyType: concatenated(nftables.TypeIPAddr, nftables.TypeInetProto, nftables.TypeInetService), keyLen: 3 * partLen,
			dataType: verdictType, fields: string([]byte{addressLen, protocolLen, portLen}),
		},
		userdata: byteOrders(orderNone, orderNone),
	}
)

// partLen is the room of each part of a concatenated key of these maps, in bytes.
const partLen = 4

// concatenated returns nft's number of a concatenation of types.
func concatenated(types ...nftables.SetDatatype) (number uint32) {
	for _, t := range types {
		number = number<<nftables.SetConcatTypeBits | t.GetNFTMagic()
	}
	return number
}

// timeoutMembers lead from inside prefixes, the policy's protocol, and a port if there is one,
// to the chain of the policy.
func timeoutMembers(inside []netip.Prefix, p policy, port ...byte) []member {
	rest := []byte{p.protocol, 0, 0, 0}
	if len(port) > 0 {
		rest = append(append(rest, port...), 0, 0)
	}
	var members []member
	for _, r := range addrrange.Of(inside) {
		members = append(members, member{
			key:  append(binary.BigEndian.AppendUint32(nil, r.First), rest...),
			last: append(binary.BigEndian.AppendUint32(nil, r.Last), rest...),
			to:   p.name,
		})
	}
	return members
}

// Loads of the further parts of a concatenated key. The first is in register 1, which begins
// with the 32 bits of NFT_REG32_00.
var (
	loadProtocolSecond  = &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: unix.NFT_REG32_01}
	loadTargetPortThird = &expr.Payload{
		DestRegister: unix.NFT_REG32_02, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: portLen,
	}
)

// timeoutBy goes to the chain of the policy that a map has for a concatenated key, and on with
// the next rule where it has none.
func timeoutBy(policies string, key ...expr.Any) []expr.Any {
	return append(key, &expr.Lookup{
		SourceRegister: unix.NFT_REG_1, SetName: policies, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true,
	})
}

// longest is the longest of one idle timeout over all groups, for one that they share (see
// defaultTimeouts): none of them gets a shorter one than it has.
func (o Options) longest(of func(nat.Timeouts) time.Duration) time.Duration {
	if len(o.GroupTimeouts) == 0 {
		return of(o.Timeouts)
	}
	var longest time.Duration
	for _, g := range o.GroupTimeouts {
		longest = max(longest, of(g.Over(o.Timeouts)))
	}
	return longest
}

func icmpOf(t nat.Timeouts) time.Duration { return t.ICMP }
