package nftnat

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/sessiond/sessiond/internal/addrrange"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/nftnat/wire"
	"golang.org/x/sys/unix"
)

// Hairpinning: subscribers reach each other by their outside endpoints (RFC 4787 REQ-9, RFC 5382
// REQ-8). The receiver sees the sender's outside endpoint.
//
// Where filtering is address-and-port-dependent, it holds for neighbours as for hosts outside: a
// mapped endpoint is reached by the outside endpoints to which it has sent. A first packet to
// such an endpoint is translated both ways, makes or refreshes the mapping of its sender, and is
// dropped behind that, unless the receiver's endpoint was refused at the sender's before. Its
// flow is not confirmed then. Refused pairs are remembered for as long as the mapping of an idle
// sender lasts; pairs with a flow need no memory, since conntrack lets answers in.

// Names in the table of Mappings with such filtering. Packets make the elements of the first two.
const (
	setSent         = "sent"          // pairs of outside endpoints: the first has sent to the second, and was refused
	setSenders      = "senders"       // inside addresses of the first of each pair
	setMappedInside = "mapped_inside" // Mappings.Inside
)

// sentMost bounds the refused pairs of all subscribers. Reap reads them by a dump where one was
// its subscriber's: 16,000 take some 30 ms. One subscriber makes sentBurst at once, and sentRate
// more a second, so that it has some 300 of UDP at a time.
const (
	sentMost  = 1 << 14
	sentRate  = 1
	sentBurst = 32
)

// filters reports whether a prefix has address-and-port-dependent filtering.
func (m Mappings) filters() bool {
	return len(addrrange.Of(m.EndpointIndependent).Without(addrrange.Of(m.Open))) > 0
}

func (p learnedProtocol) hairpin() string { return "hairpin_" + p.name }

// hairpinSets are none where everybody reaches all mapped endpoints.
func hairpinSets(m Mappings, pair shape) []set {
	if !m.filters() {
		return nil
	}
	senders := shape{
		flags:   unix.NFT_SET_EVAL | unix.NFT_SET_TIMEOUT,
		keyType: nftables.TypeIPAddr.GetNFTMagic(), keyLen: addressLen,
	}
	return []set{
		{name: setSent, shape: pair.sized(sentMost), userdata: byteOrders(orderNone)},
		{name: setSenders, shape: senders.sized(sentMost), userdata: byteOrders(orderBig)},
		prefixSet(setMappedInside, m.Inside),
	}
}

// hairpinRules translate the source of flows from a subscriber to the outside address of one.
func hairpinRules(o Options) []rule {
	if !o.Mappings.on() {
		return nil
	}
	return []rule{hairpinTo(setMapped)}
}

// hairpinTo translates the source of flows from a subscriber to outside addresses in a set.
func hairpinTo(addresses string) rule {
	return rule{chainSrcnat, "", slices.Concat(
		[]expr.Any{conntrackField{key: unix.NFT_CT_DST_IP, direction: original, register: unix.NFT_REG_1}, isIn(addresses)},
		in(loadSource, setInsidePrefixes), []expr.Any{goTo(chainTranslate)})}
}

// reachedByNeighbours lets first packets of subscribers with mappings come to the filter of an
// endpoint that is mapped.
func (p learnedProtocol) reachedByNeighbours(m Mappings) []rule {
	if !m.filters() {
		return nil
	}
	return []rule{{chainDstnat, "", slices.Concat(
		in(loadSource, setMappedInside), in(loadTarget, setMapped), protocolIs(p.number),
		loadTargetPort(), []expr.Any{isIn(setTaken)},
		loadTargetPort(), translateTo(mapEIF, expr.NATTypeDestNAT))}}
}

// throughRules are for packets of flows through mappings, whose destination was translated: the
// subscriber answers, or the flow is a neighbour's.
func (p learnedProtocol) throughRules(m Mappings) []rule {
	rules := []rule{{p.through(), "", p.then(isReply(), goTo(p.answer()))}}
	if m.filters() {
		rules = append(rules, rule{p.through(), "", p.then(slices.Concat(
			isNewFlow(), pairIn(setPairs, answererInside, answererOutside),
			[]expr.Any{conntrackField{key: unix.NFT_CT_DST_IP, direction: original, register: unix.NFT_REG_1}, isNotIn(setOpen)},
		), jump(p.hairpin()))})
	}
	return append(rules,
		rule{p.through(), "", p.then(senderInside.in(setFresh), leave())},
		rule{p.through(), "", []expr.Any{goTo(p.own())}},
	)
}

// hairpinFilter refuses first packets from an outside endpoint to which the receiver's has not
// sent. A sender without a mapping is reached by nobody, so that its pairs are not remembered.
// The element of senders is made first, and lasts longest: by it Reap finds the pairs.
func (p learnedProtocol) hairpinFilter(o Options) []rule {
	if !o.Mappings.filters() {
		return nil
	}
	return []rule{
		{p.hairpin(), "", p.then(pairIn(setSent, answererOutside, senderOutside), leave())},
		{p.hairpin(), "", p.then(senderInside.notIn(setFresh), jump(p.own()))},
		{p.hairpin(), "", p.then(slices.Concat(
			pairIn(setPairs, senderInside, senderOutside),
			[]expr.Any{
				conntrackField{key: unix.NFT_CT_SRC_IP, direction: original, register: unix.NFT_REG_1},
				&expr.Dynset{
					SrcRegKey: unix.NFT_REG_1, SetName: setSenders, Operation: unix.NFT_DYNSET_OP_UPDATE, Timeout: longestPair(o) + time.Second,
					Exprs: []expr.Any{&expr.Limit{Type: expr.LimitTypePkts, Rate: sentRate, Unit: expr.LimitTimeSecond, Burst: sentBurst}},
				},
			},
			update(setSent, p.timeout, senderOutside, answererOutside),
		), &expr.Counter{})},
		{p.hairpin(), "the receiver has not sent there", countedDrop(nat.DropFiltered, nat.DropIn)},
	}
}

// longestPair is the time for which a refused pair is remembered at most.
func longestPair(o Options) (longest time.Duration) {
	for _, p := range learnedProtocols(o) {
		longest = max(longest, p.timeout)
	}
	return longest
}

// loadTargetPort loads the protocol and the destination of a packet of TCP or UDP.
func loadTargetPort() []expr.Any {
	return []expr.Any{loadProtocol, loadTo(loadTarget, unix.NFT_REG32_01), loadPort(2, unix.NFT_REG32_02)}
}

func isNotIn(set string) expr.Any {
	return &expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: set, Invert: true}
}

// notIn matches if the packet's protocol and the endpoint are not in a set.
func (e endpoint) notIn(set string) []expr.Any {
	return slices.Concat([]expr.Any{loadProtocol}, e.load(unix.NFT_REG32_01), []expr.Any{isNotIn(set)})
}

// deleteSent deletes the refused pairs whose first endpoint is one of some mappings, and then their
// senders, by which another call finds those that are left.
func (m *MappingTable) deleteSent(ctx context.Context, found []mapping, reaped []nat.Reaped, of map[address]*nat.Reaped) error {
	if !m.known.used.hasFilter() {
		return nil
	}
	senders := map[address]bool{}
	err := m.known.conn.Lookup(ctx, m.known.table, setSenders, len(reaped),
		func(dst []byte, i int) []byte { a := reaped[i].Inside.As4(); return appendKey(dst, a[:]) },
		func(i int, _ []byte) { senders[reaped[i].Inside.As4()] = true })
	if err != nil || len(senders) == 0 {
		return err
	}
	sent, owners, err := m.sentOf(ctx, found, senders)
	if err != nil {
		return err
	}
	count := func(i int) { of[owners[i]].Elements++ }
	if err := deletePresent(ctx, m.known.conn, m.known.table, setSent, sent, m.commit, count); err != nil {
		return fmt.Errorf("refused pairs: %w", err)
	}
	owners = slices.Collect(maps.Keys(senders))
	if err := deletePresent(ctx, m.known.conn, m.known.table, setSenders, keysOf(owners), m.commit, count); err != nil {
		return fmt.Errorf("senders of refused pairs: %w", err)
	}
	return nil
}

// sentOf lists the refused pairs whose first endpoint is a mapping of one of the senders, and the
// sender of each.
func (m *MappingTable) sentOf(ctx context.Context, found []mapping, senders map[address]bool) (sent [][]byte, owners []address, err error) {
	owner := make(map[string]address, len(found))
	for _, x := range found {
		if senders[x.inside] {
			owner[string(x.key(setTaken))] = x.inside
		}
	}
	conn, err := wire.Dial(m.known.ns.FD()) // requests on one connection take turns
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	err = expiringElements(ctx, conn, m.known.table, setSent, func(attrs []byte) (wanted bool) {
		key := parseKey(attrs)
		if len(key) < mappedLen {
			return false
		}
		inside, wanted := owner[string(key[:mappedLen])]
		if wanted {
			sent, owners = append(sent, slices.Clone(key)), append(owners, inside)
		}
		return wanted
	})
	return sent, owners, err
}

// tellSent logs once that the refused pairs are near their bound, and once when they are well
// again.
func (w *mappingWatch) tellSent(n int) {
	switch near, well := w.sent.turns(n, sentMost); {
	case near:
		w.log.Warn("the memory of neighbours' refused packets comes to its bound: behind it flows between subscribers do not begin where filtering is address_and_port_dependent",
			"entries", n, "limit", sentMost)
	case well:
		w.log.Info("the memory of neighbours' refused packets has room again", "entries", n, "limit", sentMost)
	}
}
