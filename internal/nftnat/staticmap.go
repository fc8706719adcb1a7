package nftnat

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/sessiond/sessiond/internal/addrrange"
	"github.com/sessiond/sessiond/internal/nat"
	"golang.org/x/sys/unix"
)

// Names in the table of Options.Static. Apply makes the elements of the two maps.
const (
	mapStaticIn      = "static_in"      // outside endpoint to inside endpoint: whom anybody reaches there
	mapStaticOut     = "static_out"     // inside endpoint to outside endpoint: the port of its next flow
	setStaticOutside = "static_outside" // outside prefixes with static mappings
	setStaticPorts   = "static_ports"   // their ports, which no learned mapping is made of
)

// StaticPorts are ports of outside addresses that no block has, for the mappings of entries
// (nat.Forwards). Where none are named, the table has no rule for such mappings, and no flow
// pays for them.
type StaticPorts struct {
	Outside     []netip.Prefix
	First, Last nat.Port // inclusive
}

// CheckStatic returns an error that names an invalid range or prefix.
func CheckStatic(list []StaticPorts) error {
	for _, s := range list {
		if s.First == 0 || s.Last < s.First {
			return fmt.Errorf("nftnat: static ports %d-%d are empty", s.First, s.Last)
		}
		for _, p := range s.Outside {
			if !p.IsValid() || !p.Addr().Is4() {
				return fmt.Errorf("nftnat: prefix %v of static ports is not IPv4", p)
			}
		}
	}
	return nil
}

// staticOutside returns the prefixes with static ports, kept ones too.
func staticOutside(o *Options) []netip.Prefix {
	list := slices.Clone(o.keptStatic)
	for _, s := range o.Static {
		list = append(list, s.Outside...)
	}
	return list
}

// hasStatic reports whether the table has the maps of static mappings.
func hasStatic(o *Options) bool { return len(staticOutside(o)) > 0 }

// staticKeeper sets the ports of static mappings, and takes their elements over.
type staticKeeper struct{ kernel *Kernel }

// SetStatic changes the ports of static mappings, in one transaction. Elements of mappings stay
// while there are any ports; set the entries with mappings that are to go first.
func (x *staticKeeper) SetStatic(ctx context.Context, list []StaticPorts) error {
	k := x.kernel
	if err := CheckStatic(list); err != nil {
		return err
	}
	if err := k.lock(ctx); err != nil {
		return err
	}
	defer k.unlock()
	o := k.options
	o.Static, o.keptStatic = slices.Clone(list), nil
	return k.configure(ctx, o)
}

// Sets.

func staticSets(o *Options) []set {
	if !hasStatic(o) {
		return nil
	}
	endpoints := shape{
		flags:   unix.NFT_SET_MAP,
		keyType: concatenated(nftables.TypeInetProto, nftables.TypeIPAddr, nftables.TypeInetService), keyLen: mappedLen,
		dataType: concatenated(nftables.TypeIPAddr, nftables.TypeInetService), dataLen: endpointLen,
	}
	sets := []set{
		{name: mapStaticIn, shape: endpoints, userdata: byteOrders(orderNone, orderNone)},
		{name: mapStaticOut, shape: endpoints, userdata: byteOrders(orderNone, orderNone)},
		prefixSet(setStaticOutside, staticOutside(o)),
	}
	if !o.Mappings.on() {
		return sets
	}
	return append(sets, set{
		name: setStaticPorts,
		shape: shape{
			flags:   unix.NFT_SET_INTERVAL | nftables.NFT_SET_CONCAT,
			keyType: concatenated(nftables.TypeIPAddr, nftables.TypeInetService), keyLen: 2 * partLen,
			fields: string([]byte{addressLen, portLen}),
		},
		userdata: byteOrders(orderNone), members: staticPortMembers(o),
	})
}

func staticPortMembers(o *Options) (members []member) {
	key := func(address uint32, port nat.Port) []byte {
		return append(binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint32(nil, address), uint16(port)), 0, 0)
	}
	for _, s := range o.Static {
		for _, r := range addrrange.Of(s.Outside) {
			members = append(members, member{key: key(r.First, s.First), last: key(r.Last, s.Last)})
		}
	}
	return members
}

// isStaticMap reports whether Apply makes the elements of a map, which are therefore not
// compared with wanted ones when the table is.
func isStaticMap(name string) bool { return name == mapStaticIn || name == mapStaticOut }

// ownStaticSet reports whether a set belongs to static mappings.
func ownStaticSet(name string) bool {
	return isStaticMap(name) || name == setStaticOutside || name == setStaticPorts
}

// Rules.

// staticProtocols are the protocols of static mappings. nft wants rules for each: it takes
// ports only after a match of a protocol.
var staticProtocols = [...]uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP}

// staticChains are the chains that static mappings add: learned ones have the same.
func staticChains(o *Options) []chain {
	if !hasStatic(o) || o.Mappings.on() {
		return nil
	}
	return []chain{{name: chainDstnat, kind: "nat", hook: unix.NF_INET_PRE_ROUTING, priority: priorityDstnat}}
}

// staticRules let others in by static mappings, before learned ones, and translate the source
// of flows from a subscriber to the mapping of one (RFC 4787 REQ-9).
func staticRules(o *Options) (rules []rule) {
	if !hasStatic(o) {
		return nil
	}
	for _, protocol := range staticProtocols {
		rules = append(rules, reachedBy(setStaticOutside, protocol, mapStaticIn))
	}
	return append(rules, hairpinTo(setStaticOutside))
}

// natByStatic are the rules, in the chain that translates, that give a new flow of a mapped
// inside port its outside port.
func natByStatic(o *Options, protocol uint8) []rule {
	if !hasStatic(o) {
		return nil
	}
	return []rule{translateSource(protocol, translateTo(mapStaticOut, expr.NATTypeSourceNAT))}
}

// notLearned is the rule by which the flows of static mappings make no learned ones: these
// would outlive the static mapping, and be of no block, by which Reap finds them.
func (p learnedProtocol) notLearned(o *Options, chain string, outside endpoint) []rule {
	if !hasStatic(o) {
		return nil
	}
	return []rule{{chain, "", p.then(slices.Concat(outside.load(unix.NFT_REG32_00), []expr.Any{isIn(setStaticPorts)}), leave())}}
}
