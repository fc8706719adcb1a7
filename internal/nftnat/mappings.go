package nftnat

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/sessiond/sessiond/internal/addrrange"
	"github.com/sessiond/sessiond/internal/conntrack"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/nftnat/wire"
	"github.com/sessiond/sessiond/internal/nlmsg"
	"golang.org/x/sys/unix"
)

// Names in the table of Options.Mappings. Packets make the elements of learnedSets.
const (
	mapBIB    = "bib"    // inside endpoint to outside endpoint: the port of its next flow
	mapEIF    = "eif"    // outside endpoint to inside endpoint: whom anybody reaches there
	setPairs  = "pairs"  // both endpoints of each mapping
	setTaken  = "taken"  // the outside endpoints of mappings
	setFresh  = "fresh"  // inside endpoints whose mapping was refreshed a moment ago
	setMapped = "mapped" // outside prefixes whose flows are learned
	setOpen   = "open"   // those of them with endpoint-independent filtering
	setStrict = "strict" // those of them without port overloading

	chainDstnat = "dstnat"
	chainLearn  = "learn"
)

// learnedSets are the sets and maps whose elements packets make.
var learnedSets = [...]string{mapEIF, mapBIB, setPairs, setTaken, setFresh}

// MappingElements is the number of elements of one mapping, refreshed a moment ago.
const MappingElements = len(learnedSets)

// Mappings name the outside prefixes whose flows of TCP and UDP are mapped independently of
// their remote endpoints (RFC 4787 REQ-1, RFC 5382 REQ-1) by learned maps. Where no prefix is
// named, conntrack alone chooses ports, and the table has no rule for learned mappings.
type Mappings struct {
	EndpointIndependent []netip.Prefix // a mapped inside endpoint keeps its outside port
	Open                []netip.Prefix // of those, the prefixes with endpoint-independent filtering (RFC 4787 REQ-8): full cone
	Strict              []netip.Prefix // of those, the prefixes without port overloading (RFC 4787 REQ-3)
	Most                int            // mappings at a time; required with EndpointIndependent

	// Inside has the subscribers whose outside addresses are in EndpointIndependent. Where
	// filtering is not endpoint-independent, they alone reach others by outside endpoints.
	Inside []netip.Prefix

	Pinned bool // inside ports can be pinned to a block, see SetPins: they may have several blocks, or a nearly full one
}

func (m Mappings) on() bool { return len(m.EndpointIndependent) > 0 }

// Check returns an error that names an invalid field.
func (m Mappings) Check() error {
	for _, p := range slices.Concat(m.EndpointIndependent, m.Open, m.Strict, m.Inside) {
		if !p.IsValid() || !p.Addr().Is4() {
			return fmt.Errorf("nftnat: prefix %v of Mappings is not IPv4", p)
		}
	}
	for _, p := range slices.Concat(m.Open, m.Strict) {
		if !slices.Contains(m.EndpointIndependent, p) {
			return fmt.Errorf("nftnat: Open or Strict of Mappings has %v, which is not in EndpointIndependent", p)
		}
	}
	if m.on() && m.Most < 1 {
		return fmt.Errorf("nftnat: Mappings.Most is %d", m.Most)
	}
	return nil
}

// withActual returns the mappings with those that a table has for other prefixes than the
// configured ones.
func (m Mappings) withActual(actual *actualRuleset, inside, outside addrrange.Set) Mappings {
	if m.Most == 0 {
		return m
	}
	for _, kept := range []struct {
		set        string
		list       *[]netip.Prefix
		configured addrrange.Set
	}{
		{setMapped, &m.EndpointIndependent, outside}, {setOpen, &m.Open, outside}, {setStrict, &m.Strict, outside},
		{setMappedInside, &m.Inside, inside},
	} {
		list := slices.Clone(*kept.list)
		for _, r := range addrrange.Of(prefixesOf(actual.sets[kept.set].members)).Without(kept.configured) {
			list = r.AppendPrefixes(list)
		}
		*kept.list = list
	}
	if _, pinned := actual.sets[mapPinned]; pinned {
		m.Pinned = true
	}
	return m
}

// Sets.

const (
	endpointLen = addressLen + 4  // an address and a port
	mappedLen   = 4 + endpointLen // a protocol, and an endpoint
)

// mappingSets are none without Mappings. The eif map bounds all: the others have more room, so
// that none of them is full before it.
func mappingSets(m Mappings) []set {
	if !m.on() {
		return nil
	}
	most := uint32(m.Most)
	room := most + most/8 + 1024
	key := shape{
		flags:   unix.NFT_SET_EVAL | unix.NFT_SET_TIMEOUT,
		keyType: concatenated(nftables.TypeInetProto, nftables.TypeIPAddr, nftables.TypeInetService), keyLen: mappedLen,
	}
	pair := key
	pair.keyType, pair.keyLen = key.keyType<<(2*nftables.SetConcatTypeBits)|concatenated(nftables.TypeIPAddr, nftables.TypeInetService), mappedLen+endpointLen
	to := key
	to.flags |= unix.NFT_SET_MAP
	to.dataType, to.dataLen = concatenated(nftables.TypeIPAddr, nftables.TypeInetService), endpointLen
	return append([]set{
		{name: mapEIF, shape: to.sized(most), userdata: byteOrders(orderNone, orderNone)},
		{name: mapBIB, shape: to.sized(room), userdata: byteOrders(orderNone, orderNone)},
		{name: setPairs, shape: pair.sized(room), userdata: byteOrders(orderNone)},
		{name: setTaken, shape: key.sized(room), userdata: byteOrders(orderNone)},
		{name: setFresh, shape: key.sized(room), userdata: byteOrders(orderNone)},
		prefixSet(setMapped, m.EndpointIndependent),
		prefixSet(setOpen, m.Open),
		prefixSet(setStrict, m.Strict),
	}, hairpinSets(m, pair)...)
}

func (s shape) sized(size uint32) shape {
	s.size = size
	return s
}

func prefixSet(name string, prefixes []netip.Prefix) set {
	return set{
		name:     name,
		shape:    shape{flags: unix.NFT_SET_INTERVAL, keyType: nftables.TypeIPAddr.GetNFTMagic(), keyLen: addressLen},
		userdata: byteOrders(orderBig), members: elementsOf(addrrange.Of(prefixes)),
	}
}

// ownMappingSet reports whether a set belongs to learned mappings, or to pins.
func ownMappingSet(name string) bool {
	return slices.Contains(learnedSets[:], name) || slices.Contains([]string{setMapped, setOpen, setStrict, mapPinned, mapNarrowed, setSent, setSenders, setMappedInside}, name)
}

// flushRestored deletes all elements that packets made, and pins, of a table that nft has loaded from a file: some
// may be of subscribers that have gone since it was saved. nft loses the marks of rules.
func (r *ruleset) flushRestored(s *actualRuleset, b *wire.Batch) {
	if !slices.ContainsFunc(s.rules, func(x actualRule) bool { return x.mark == mark{} }) {
		return
	}
	for _, name := range slices.Concat(learnedSets[:], pinMaps[:], []string{setSent, setSenders}) {
		if _, there := s.sets[name]; there {
			r.flushSet(name, b)
		}
	}
}

// Rules.

// freshMost is the longest time for which a mapping, once refreshed, is not refreshed again. A
// mapping lasts as much longer than its timeout.
const freshMost = 15 * time.Second

// learnedProtocol has the words for one protocol in the rules of mappings. nft wants rules for
// each: it takes the ports of a conntrack entry only after a match of a protocol.
type learnedProtocol struct {
	name    string
	number  uint8
	timeout time.Duration // of a mapping, from its last outbound packet on
}

// learnedProtocols are the protocols with mappings. A mapping of TCP lasts as long as a
// transitory connection: one that lasted as long as an established one may would keep the port
// of each closed connection for two hours. An idle connection lives on by its conntrack entry.
// Where groups have timeouts of their own, all mappings last as the longest of them say.
func learnedProtocols(o Options) []learnedProtocol {
	tcp, udp := o.Timeouts.TCPTransitory, o.Timeouts.UDP
	for _, g := range o.GroupTimeouts {
		own := g.Over(o.Timeouts)
		tcp, udp = max(tcp, own.TCPTransitory), max(udp, own.UDP)
	}
	return []learnedProtocol{{"tcp", unix.IPPROTO_TCP, tcp}, {"udp", unix.IPPROTO_UDP, udp}}
}

// longestMapping is the time for which a mapping lasts at most without a packet.
func longestMapping(o Options) (longest time.Duration) {
	for _, p := range learnedProtocols(o) {
		longest = max(longest, p.timeout+p.fresh()+time.Second)
	}
	return longest
}

// fresh is the time for which a mapping of this protocol is not refreshed again.
func (p learnedProtocol) fresh() time.Duration { return min(freshMost, p.timeout/8) }

func (p learnedProtocol) learn() string    { return chainLearn + "_" + p.name }
func (p learnedProtocol) own() string      { return chainLearn + "_" + p.name + "_own" }
func (p learnedProtocol) through() string  { return "through_" + p.name }
func (p learnedProtocol) answer() string   { return chainLearn + "_" + p.name + "_answer" }
func (p learnedProtocol) remember() string { return "remember_" + p.name }
func (p learnedProtocol) rememberAnswer() string {
	return "remember_" + p.name + "_answer"
}

// mappingChains are the chains that mappings add.
func mappingChains(o Options) []chain {
	if !o.Mappings.on() {
		return nil
	}
	chains := []chain{{name: chainDstnat, kind: "nat", hook: unix.NF_INET_PRE_ROUTING, priority: priorityDstnat}, {name: chainLearn}}
	for _, p := range learnedProtocols(o) {
		names := []string{p.learn(), p.own(), p.through(), p.answer(), p.remember(), p.rememberAnswer()}
		if o.Mappings.filters() {
			names = append(names, p.hairpin())
		}
		for _, name := range names {
			chains = append(chains, chain{name: name})
		}
	}
	return chains
}

// mappingRules learn mappings from the packets that leave with an outside address as their
// source, behind source NAT, and let others in by them. Only packets of subscribers refresh a
// mapping (RFC 4787 REQ-6), those of flows that others began too; ICMP errors and resets do
// not (RFC 7857 section 7). Within the time of p.fresh that costs a packet one look-up.
//
// conntrack may choose a port for a new flow that another inside endpoint is mapped to already,
// with the likelihood of the block's fill. The flow goes on without a mapping, as without
// Mappings. Where they are strict it is dropped before conntrack confirms it: its sender tries
// again, and gets another port.
//
// The eif element is made first, and lasts longest: each element of the other sets has its eif
// element, by which Reap finds it. That of pairs outlasts that of taken: who came to an endpoint
// by its mapping meets the pair behind source NAT.
func mappingRules(o Options) []rule {
	if !o.Mappings.on() {
		return nil
	}
	var rules []rule
	for _, p := range learnedProtocols(o) { // most packets, but none to a neighbour
		rules = append(rules, rule{chainGuard, "", p.then(slices.Concat(
			isOriginal(), statusLacks(conntrack.StatusDestinationTranslated), senderInside.in(setFresh)), leave())})
	}
	rules = append(rules, rule{chainGuard, "", then(in(loadSource, setMapped), goTo(chainLearn))})
	for _, p := range learnedProtocols(o) {
		rules = append(rules,
			reachedBy(setOpen, p.number, mapEIF),
			rule{chainLearn, "", then(protocolIs(p.number), goTo(p.learn()))},
		)
		rules = append(rules, p.reachedByNeighbours(o.Mappings)...)
	}
	for _, p := range learnedProtocols(o) {
		rules = append(rules,
			rule{p.learn(), "", p.then(statusHas(conntrack.StatusDestinationTranslated), goTo(p.through()))},
			rule{p.learn(), "", p.then(senderInside.in(setFresh), leave())},
			rule{p.learn(), "", []expr.Any{goTo(p.own())}},
			rule{p.answer(), "", p.then(answererInside.in(setFresh), leave())},
		)
		rules = append(rules, p.throughRules(o.Mappings)...)
		rules = append(rules, p.hairpinFilter(o)...)
		rules = append(rules, p.learnRules(&o, p.own(), p.remember(), senderInside, senderOutside)...)
		rules = append(rules, p.learnRules(&o, p.answer(), p.rememberAnswer(), answererInside, answererOutside)...)
	}
	return rules
}

// learnRules are the rules for the packets of one direction whose mapping is not fresh. inside
// and outside are the subscriber's endpoints.
func (p learnedProtocol) learnRules(o *Options, learn, remember string, inside, outside endpoint) []rule {
	var rules []rule
	if p.number == unix.IPPROTO_TCP {
		rules = append(rules, rule{learn, "", p.then(isReset(), leave())})
	}
	rules = append(rules, rule{learn, "", p.then(pairIn(setPairs, inside, outside), goTo(remember))})
	rules = append(rules, p.notLearned(o, learn, outside)...)
	if inside == senderInside {
		rules = append(rules,
			rule{learn, "port of another mapping", p.then(slices.Concat(outside.in(setTaken), isNewFlow(), in(loadSource, setStrict)), countedDrop(nat.DropPortTaken, nat.DropOut)...)},
			rule{learn, "port of another mapping, shared", p.then(slices.Concat(outside.in(setTaken), isNewFlow()), &expr.Counter{}, leave())},
		)
	}
	return append(rules,
		rule{learn, "", p.then(outside.in(setTaken), leave())},
		rule{learn, "", []expr.Any{goTo(remember)}},

		rule{remember, "", p.then(slices.Concat(
			update(mapEIF, p.timeout+p.fresh()+time.Second, outside, inside),
			update(setTaken, p.timeout+p.fresh(), outside),
			update(mapBIB, p.timeout+p.fresh(), inside, outside),
			update(setPairs, p.timeout+p.fresh()+time.Second/2, inside, outside),
			update(setFresh, p.fresh(), inside),
		), leave())},
		rule{remember, "too many mappings", []expr.Any{&expr.Counter{}}},
	)
}

func (p learnedProtocol) then(match []expr.Any, do ...expr.Any) []expr.Any {
	return slices.Concat(protocolIs(p.number), match, do)
}

// natByMapping are the rules, in the chain that translates, that give a new flow of a mapped
// endpoint its port.
func natByMapping(o Options, protocol uint8) []rule {
	if !o.Mappings.on() {
		return nil
	}
	return []rule{translateSource(protocol, translateTo(mapBIB, expr.NATTypeSourceNAT))}
}

// translateSource is a rule, in the chain that translates, for the flows of one protocol that
// looks their inside endpoint up.
func translateSource(protocol uint8, lookUp []expr.Any) rule {
	return rule{chainTranslate, "", slices.Concat(protocolIs(protocol),
		[]expr.Any{loadProtocol, loadTo(loadSource, unix.NFT_REG32_01), loadPort(0, unix.NFT_REG32_02)}, lookUp)}
}

// reachedBy is a rule for first packets of one protocol to outside addresses in a set: it
// translates their destination by a map of outside endpoints.
func reachedBy(addresses string, protocol uint8, m string) rule {
	return rule{chainDstnat, "", slices.Concat(in(loadTarget, addresses), protocolIs(protocol),
		loadTargetPort(), translateTo(m, expr.NATTypeDestNAT))}
}

// translateTo translates to the endpoint that a map has for the loaded key, and goes on with
// the next rule where it has none.
func translateTo(m string, kind expr.NATType) []expr.Any {
	return []expr.Any{
		&expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: m, DestRegister: unix.NFT_REG_1, IsDestRegSet: true},
		&expr.NAT{Type: kind, Family: unix.NFPROTO_IPV4, RegAddrMin: unix.NFT_REG_1, RegProtoMin: unix.NFT_REG32_01},
	}
}

// isReset matches a TCP segment with the flag RST (RFC 9293 section 3.1).
func isReset() []expr.Any {
	const flags, rst = 13, 0x04
	return []expr.Any{
		&expr.Payload{DestRegister: unix.NFT_REG_1, Base: expr.PayloadBaseTransportHeader, Offset: flags, Len: 1},
		&expr.Bitwise{SourceRegister: unix.NFT_REG_1, DestRegister: unix.NFT_REG_1, Len: 1, Mask: []byte{rst}, Xor: []byte{0}},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: unix.NFT_REG_1, Data: []byte{0}},
	}
}

func loadTo(p *expr.Payload, register uint32) expr.Any {
	to := *p
	to.DestRegister = register
	return &to
}

// loadPort loads a port from an offset in the header of TCP or UDP.
func loadPort(offset, register uint32) expr.Any {
	return &expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: 2}
}

func isIn(set string) expr.Any { return &expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: set} }

// Endpoints of conntrack entries.

// Directions of a conntrack entry, IP_CT_DIR_*.
const original, reply = 0, 1

// endpoint is an address and port of a packet's conntrack entry: the source or the destination
// of one direction.
type endpoint struct {
	address, port uint32 // NFT_CT_*
	direction     uint8
}

// The subscriber's endpoints in an entry: where it began the flow, and where it answers. The
// outside one is the destination of the opposite direction.
var (
	senderInside    = endpoint{unix.NFT_CT_SRC_IP, unix.NFT_CT_PROTO_SRC, original}
	senderOutside   = endpoint{unix.NFT_CT_DST_IP, unix.NFT_CT_PROTO_DST, reply}
	answererInside  = endpoint{unix.NFT_CT_SRC_IP, unix.NFT_CT_PROTO_SRC, reply}
	answererOutside = endpoint{unix.NFT_CT_DST_IP, unix.NFT_CT_PROTO_DST, original}
)

// load loads the endpoint into two 32-bit registers.
func (e endpoint) load(register uint32) []expr.Any {
	return []expr.Any{
		conntrackField{key: e.address, direction: e.direction, register: register},
		conntrackField{key: e.port, direction: e.direction, register: register + 1},
	}
}

// in matches if the packet's protocol and the endpoint are in a set.
func (e endpoint) in(set string) []expr.Any {
	return slices.Concat([]expr.Any{loadProtocol}, e.load(unix.NFT_REG32_01), []expr.Any{isIn(set)})
}

// pairIn matches if the protocol and two endpoints are in a set.
func pairIn(set string, a, b endpoint) []expr.Any {
	return slices.Concat([]expr.Any{loadProtocol}, a.load(unix.NFT_REG32_01), b.load(unix.NFT_REG32_03), []expr.Any{isIn(set)})
}

// update makes or refreshes an element: of key in a set; of two keys together in a set of
// pairs; of a value by key in a map. It ends the rule where the set is full.
func update(set string, timeout time.Duration, key endpoint, more ...endpoint) []expr.Any {
	d := &expr.Dynset{SrcRegKey: unix.NFT_REG_1, SetName: set, Operation: unix.NFT_DYNSET_OP_UPDATE, Timeout: timeout}
	exprs := append([]expr.Any{loadProtocol}, key.load(unix.NFT_REG32_01)...)
	for _, second := range more {
		first := uint32(unix.NFT_REG32_03) // behind the key
		if set == mapEIF || set == mapBIB {
			first, d.SrcRegData = unix.NFT_REG32_04, unix.NFT_REG_2
		}
		exprs = append(exprs, second.load(first)...)
	}
	return append(exprs, d)
}

// conntrackField loads a field of the packet's conntrack entry, of one direction. The
// expression of google/nftables v0.3.0 has no direction for addresses, and writes that of
// ports in four octets, of which the kernel reads the first.
type conntrackField struct {
	expr.Any
	key       uint32
	direction uint8
	register  uint32
}

func (f conntrackField) marshal() []byte {
	dst := nlmsg.AppendString(nil, unix.NFTA_EXPR_NAME, "ct")
	start := len(dst)
	dst = nlmsg.BeginNested(dst, unix.NFTA_EXPR_DATA)
	dst = nlmsg.AppendUint32(dst, unix.NFTA_CT_KEY, f.key)
	dst = nlmsg.AppendUint32(dst, unix.NFTA_CT_DREG, f.register)
	dst = nlmsg.AppendAttr(dst, unix.NFTA_CT_DIRECTION, []byte{f.direction})
	return nlmsg.EndNested(dst, start)
}

// marshal returns the attributes of an expression.
func marshal(e expr.Any) ([]byte, error) {
	if f, ok := e.(conntrackField); ok {
		return f.marshal(), nil
	}
	return expr.Marshal(unix.NFPROTO_IPV4, e)
}
