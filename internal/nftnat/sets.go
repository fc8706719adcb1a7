package nftnat

import (
	"encoding/binary"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/sessiond/sessiond/internal/addrrange"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/nftnat/wire"
	"github.com/sessiond/sessiond/internal/nlmsg"
	"golang.org/x/sys/unix"
)

// Lengths of keys and values in bytes. Each part of a concatenation takes whole
// 32-bit words.
const (
	addressLen   = 4
	interfaceLen = unix.IFNAMSIZ
	protocolLen  = 1
	portLen      = 2
	icmpTypeLen  = 1
	blockLen     = 2 * (addressLen + 4) // address . port, last address . last port
)

// Byte orders in the user-data of sets, nft's enum byteorder.
const orderNone, orderHost, orderBig = 0, 1, 2

// verdictType is NFT_DATA_VERDICT: the type of a map's values.
const verdictType = 0xffffff00

// shape is the part of a set that cannot be changed without deleting it.
type shape struct {
	flags    uint32
	keyType  uint32 // nft's number of the type, for printing
	keyLen   uint32
	dataType uint32
	dataLen  uint32
	fields   string // lengths in bytes of the parts of a concatenation with ranges
	size     uint32 // largest number of elements; 0 for no limit
}

// A set or map of the table. The members of gate, block and the static maps are not listed, nor
// those that packets make.
type set struct {
	name string
	shape
	userdata []byte        // tells nft how to print
	timeout  time.Duration // of elements that the packets make; 0 for none
	members  []member
}

type member struct {
	key   []byte
	end   bool   // the key is the first one after an interval
	last  []byte // of a concatenation with ranges: the last key
	to    string // of a verdict map: the chain that it goes to
	state []byte // an expression that the kernel evaluates at a look-up of the key; nil for none
}

func newSets(o Options) []set {
	return slices.Concat([]set{
		{name: mapGate, shape: gateShape, userdata: byteOrders(orderBig, orderNone)},
		{name: mapBlock, shape: blockShape, userdata: intervalData(byteOrders(orderBig, orderNone))},
		{
			name:     setInsidePrefixes,
			shape:    shape{flags: unix.NFT_SET_INTERVAL, keyType: nftables.TypeIPAddr.GetNFTMagic(), keyLen: addressLen},
			userdata: byteOrders(orderBig), members: elementsOf(addrrange.Of(o.InsidePrefixes)),
		},
		{
			name:     setOutsidePrefixes,
			shape:    shape{flags: unix.NFT_SET_INTERVAL, keyType: nftables.TypeIPAddr.GetNFTMagic(), keyLen: addressLen},
			userdata: byteOrders(orderBig), members: elementsOf(addrrange.Of(o.OutsidePrefixes)),
		},
		interfaceSet(setInsideInterfaces, o.InsideInterfaces),
		interfaceSet(setOutsideInterfaces, o.OutsideInterfaces),
		{
			name:     setProtocols,
			shape:    shape{keyType: nftables.TypeInetProto.GetNFTMagic(), keyLen: protocolLen},
			userdata: byteOrders(orderBig), members: protocolMembers(),
		},
		ungatedSet,
		closingSetOf(&o),
		{
			name:     setObsoleteICMP,
			shape:    shape{keyType: nftables.TypeICMPType.GetNFTMagic(), keyLen: icmpTypeLen},
			userdata: byteOrders(orderBig), members: obsoleteICMP(),
		},
	}, fullSets(&o), limitSets(&o), mappingSets(o.Mappings), staticSets(&o), askSets(&o), pinSets(o.Mappings))
}

var gateShape = shape{
	flags:   unix.NFT_SET_MAP,
	keyType: nftables.TypeIPAddr.GetNFTMagic(), keyLen: addressLen,
	dataType: verdictType,
}

var blockShape = shape{
	flags:   unix.NFT_SET_MAP,
	keyType: nftables.TypeIPAddr.GetNFTMagic(), keyLen: addressLen,
	dataType: nftables.TypeIPAddr.GetNFTMagic()<<nftables.SetConcatTypeBits | nftables.TypeInetService.GetNFTMagic(),
	dataLen:  blockLen,
}

func interfaceSet(name string, interfaces []string) set {
	s := set{
		name:     name,
		shape:    shape{keyType: nftables.TypeIFName.GetNFTMagic(), keyLen: interfaceLen},
		userdata: byteOrders(orderHost),
	}
	for _, i := range interfaces {
		if strings.HasSuffix(i, anySuffix) {
			continue // nft cannot print a set that holds such a name; it has a rule of its own
		}
		s.members = append(s.members, member{key: interfaceKey(i)})
	}
	return s
}

// interfaceKey returns the name as the kernel compares it.
func interfaceKey(name string) []byte {
	key := make([]byte, interfaceLen)
	copy(key, name)
	return key
}

// protocolMembers are the protocols that can share an address by ports, or by
// query identifiers.
func protocolMembers() []member {
	var members []member
	for _, p := range []byte{unix.IPPROTO_ICMP, unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		members = append(members, member{key: []byte{p}})
	}
	return members
}

// obsoleteICMP are the types that pass neither way (RFC 5508 leaves them to the NAT): source
// quench (RFC 6633), redirect, which is for hosts of one link (RFC 792), and information request
// and reply (RFC 6918).
func obsoleteICMP() []member {
	const quench, redirect, informationRequest, informationReply = 4, 5, 15, 16
	return []member{{key: []byte{quench}}, {key: []byte{redirect}}, {key: []byte{informationRequest}}, {key: []byte{informationReply}}}
}

func addressMembers(list []netip.Addr) []member {
	members := make([]member, len(list))
	for i, a := range list {
		members[i].key = a.AsSlice()
	}
	return members
}

// byteOrders is the user-data with the byte orders of keys and, of a map, values.
func byteOrders(orders ...uint32) []byte {
	var b []byte
	for i, o := range orders {
		b = userdata.AppendUint32(b, userdata.NFTNL_UDATA_SET_KEYBYTEORDER+userdata.Type(i), o)
	}
	return b
}

// intervalData adds that the values are ranges; without it nft cannot print them.
func intervalData(b []byte) []byte {
	return userdata.AppendUint32(b, userdata.NFTNL_UDATA_SET_DATA_INTERVAL, 1)
}

// appendSet appends the attributes of NFT_MSG_NEWSET. The kernel wants an identifier, though
// nothing refers to it.
func (s set) appendSet(dst []byte, table string) []byte {
	dst = appendSetName(dst, table, s.name)
	dst = nlmsg.AppendUint32(dst, unix.NFTA_SET_FLAGS, s.flags)
	dst = nlmsg.AppendUint32(dst, unix.NFTA_SET_KEY_TYPE, s.keyType)
	dst = nlmsg.AppendUint32(dst, unix.NFTA_SET_KEY_LEN, s.keyLen)
	if s.flags&unix.NFT_SET_MAP != 0 {
		dst = nlmsg.AppendUint32(dst, unix.NFTA_SET_DATA_TYPE, s.dataType)
		dst = nlmsg.AppendUint32(dst, unix.NFTA_SET_DATA_LEN, s.dataLen)
	}
	if s.timeout != 0 {
		dst = nlmsg.AppendAttr(dst, unix.NFTA_SET_TIMEOUT, binary.BigEndian.AppendUint64(nil, uint64(s.timeout.Milliseconds())))
	}
	if s.size != 0 || s.fields != "" {
		start := len(dst)
		dst = nlmsg.BeginNested(dst, unix.NFTA_SET_DESC)
		if s.size != 0 {
			dst = nlmsg.AppendUint32(dst, unix.NFTA_SET_DESC_SIZE, s.size)
		}
		dst = appendFields(dst, s.fields)
		dst = nlmsg.EndNested(dst, start)
	}
	dst = nlmsg.AppendUint32(dst, unix.NFTA_SET_ID, 1)
	return nlmsg.AppendAttr(dst, unix.NFTA_SET_USERDATA, withComment(slices.Clip(s.userdata), userdata.NFTNL_UDATA_SET_COMMENT, setComments[s.name]))
}

// appendFields appends the lengths of the parts of a concatenation, which the kernel needs for
// ranges in it.
func appendFields(dst []byte, lengths string) []byte {
	if lengths == "" {
		return dst
	}
	const fieldLen = 1 // NFTA_SET_FIELD_LEN
	all := len(dst)
	dst = nlmsg.BeginNested(dst, nftables.NFTA_SET_DESC_CONCAT)
	for i := range len(lengths) {
		one := len(dst)
		dst = nlmsg.BeginNested(dst, unix.NFTA_LIST_ELEM)
		dst = nlmsg.AppendUint32(dst, fieldLen, uint32(lengths[i]))
		dst = nlmsg.EndNested(dst, one)
	}
	return nlmsg.EndNested(dst, all)
}

// parseFields is the reverse of appendFields.
func parseFields(desc []byte) (lengths string) {
	for _, f := range nlmsg.Attrs(nlmsg.Attr(desc, nftables.NFTA_SET_DESC_CONCAT)) {
		const fieldLen = 1
		lengths += string([]byte{byte(nlmsg.Uint32(nlmsg.Attr(f, fieldLen)))})
	}
	return lengths
}

func appendSetName(dst []byte, table, name string) []byte {
	dst = nlmsg.AppendString(dst, unix.NFTA_SET_TABLE, table)
	return nlmsg.AppendString(dst, unix.NFTA_SET_NAME, name)
}

// parseShape reads the attributes of a set from the kernel. It ignores the length that the
// kernel gives a verdict.
func parseShape(attrs []byte) shape {
	s := shape{
		flags:    nlmsg.Uint32(nlmsg.Attr(attrs, unix.NFTA_SET_FLAGS)),
		keyType:  nlmsg.Uint32(nlmsg.Attr(attrs, unix.NFTA_SET_KEY_TYPE)),
		keyLen:   nlmsg.Uint32(nlmsg.Attr(attrs, unix.NFTA_SET_KEY_LEN)),
		dataType: nlmsg.Uint32(nlmsg.Attr(attrs, unix.NFTA_SET_DATA_TYPE)),
		dataLen:  nlmsg.Uint32(nlmsg.Attr(attrs, unix.NFTA_SET_DATA_LEN)),
		fields:   parseFields(nlmsg.Attr(attrs, unix.NFTA_SET_DESC)),
		size:     nlmsg.Uint32(nlmsg.Attr(nlmsg.Attr(attrs, unix.NFTA_SET_DESC), unix.NFTA_SET_DESC_SIZE)),
	}
	if s.dataType == verdictType {
		s.dataLen = 0
	}
	return s
}

func appendMember(dst []byte, m member) []byte {
	dst = appendKey(dst, m.key)
	if m.last != nil {
		dst = appendKeyAs(dst, nftables.NFTA_SET_ELEM_KEY_END, m.last)
	}
	if m.to != "" {
		dst = appendGoto(dst, m.to)
	}
	if m.end {
		dst = nlmsg.AppendUint32(dst, unix.NFTA_SET_ELEM_FLAGS, unix.NFT_SET_ELEM_INTERVAL_END)
	}
	if m.state != nil {
		dst = nlmsg.AppendAttr(dst, unix.NLA_F_NESTED|unix.NFTA_SET_ELEM_EXPR, m.state)
	}
	return dst
}

func parseMember(attrs []byte) member {
	flags := nlmsg.Uint32(nlmsg.Attr(attrs, unix.NFTA_SET_ELEM_FLAGS))
	return member{
		key:  slices.Clone(parseKey(attrs)),
		end:  flags&unix.NFT_SET_ELEM_INTERVAL_END != 0,
		last: slices.Clone(nlmsg.Attr(nlmsg.Attr(attrs, nftables.NFTA_SET_ELEM_KEY_END), unix.NFTA_DATA_VALUE)),
		to:   parseGoto(attrs),
	}
}

func appendKey(dst, key []byte) []byte { return appendKeyAs(dst, unix.NFTA_SET_ELEM_KEY, key) }

func appendKeyAs(dst []byte, attr uint16, key []byte) []byte {
	start := len(dst)
	dst = nlmsg.BeginNested(dst, attr)
	dst = nlmsg.AppendAttr(dst, unix.NFTA_DATA_VALUE, key)
	return nlmsg.EndNested(dst, start)
}

func parseKey(attrs []byte) []byte {
	return nlmsg.Attr(nlmsg.Attr(attrs, unix.NFTA_SET_ELEM_KEY), unix.NFTA_DATA_VALUE)
}

// Sets of prefixes.

// elementsOf writes ranges as the kernel wants them: the first address of each,
// and the first one after it marked as an end. There is none after the last
// address of all.
func elementsOf(ranges addrrange.Set) []member {
	var members []member
	for _, r := range ranges {
		members = append(members, member{key: binary.BigEndian.AppendUint32(nil, r.First)})
		if r.Last != math.MaxUint32 {
			members = append(members, member{key: binary.BigEndian.AppendUint32(nil, r.Last+1), end: true})
		}
	}
	return members
}

// prefixesOf is the reverse of elementsOf: the members, in order of key, as the
// fewest prefixes.
func prefixesOf(members []member) []netip.Prefix {
	var prefixes []netip.Prefix
	for i, m := range members {
		if m.end || len(m.key) != addressLen {
			continue
		}
		last := uint32(math.MaxUint32)
		if i+1 < len(members) {
			last = binary.BigEndian.Uint32(members[i+1].key) - 1
		}
		prefixes = addrrange.Range{First: binary.BigEndian.Uint32(m.key), Last: last}.AppendPrefixes(prefixes)
	}
	return prefixes
}

// withAll adds to a list those of more that are not in it.
func withAll(list, more []netip.Prefix) []netip.Prefix {
	list = slices.Clone(list)
	for _, p := range more {
		if !slices.Contains(list, p) {
			list = append(list, p)
		}
	}
	return list
}

// The maps gate and block.

// address is an IPv4 address in the kernel's form.
type address [4]byte

func (a address) addr() netip.Addr { return netip.AddrFrom4(a) }

// number returns a number in the order of addresses.
func (a address) number() uint32 { return binary.BigEndian.Uint32(a[:]) }

// block is a value of the block map. The zero block is none.
type block struct {
	outside     address
	first, last uint16
}

// cell is the value of one inside address in both maps.
type cell struct {
	gate nat.Gate
	block
}

// foreign is the gate of an element with a verdict that is not ours. It never counts as open,
// and differs from GateClosed so that it is deleted.
const foreign nat.Gate = 255

// ours returns the cell with a foreign verdict taken for a closed gate.
func (c cell) ours() cell {
	if c.gate == foreign {
		c.gate = nat.GateClosed
	}
	return c
}

func (c cell) entry(inside address) nat.Entry {
	e := nat.Entry{Inside: inside.addr(), Gate: c.ours().gate}
	if c.block != (block{}) {
		e.Block = nat.Block{Outside: c.outside.addr(), First: nat.Port(c.first), Last: nat.Port(c.last)}
	}
	return e
}

// appendGate appends an element of the gate: open is return, draining leads to
// the chain that refuses new sessions.
func appendGate(dst []byte, inside address, g nat.Gate) []byte {
	dst = appendKey(dst, inside[:])
	if g == nat.GateDraining {
		return appendGoto(dst, chainDraining)
	}
	return appendVerdict(dst, expr.VerdictReturn, "")
}

// appendGoto appends the value of an element that leads to a chain.
func appendGoto(dst []byte, chain string) []byte { return appendVerdict(dst, expr.VerdictGoto, chain) }

func appendVerdict(dst []byte, kind expr.VerdictKind, chain string) []byte {
	data := len(dst)
	dst = nlmsg.BeginNested(dst, unix.NFTA_SET_ELEM_DATA)
	verdict := len(dst)
	dst = nlmsg.BeginNested(dst, unix.NFTA_DATA_VERDICT)
	dst = nlmsg.AppendUint32(dst, unix.NFTA_VERDICT_CODE, verdictCode(kind))
	if chain != "" {
		dst = nlmsg.AppendString(dst, unix.NFTA_VERDICT_CHAIN, chain)
	}
	return nlmsg.EndNested(nlmsg.EndNested(dst, verdict), data)
}

// parseGoto returns the chain that an element leads to, "" for other elements.
func parseGoto(attrs []byte) string {
	verdict := nlmsg.Attr(nlmsg.Attr(attrs, unix.NFTA_SET_ELEM_DATA), unix.NFTA_DATA_VERDICT)
	if nlmsg.Uint32(nlmsg.Attr(verdict, unix.NFTA_VERDICT_CODE)) != verdictCode(expr.VerdictGoto) {
		return ""
	}
	return nlmsg.String(nlmsg.Attr(verdict, unix.NFTA_VERDICT_CHAIN))
}

func verdictCode(k expr.VerdictKind) uint32 { return uint32(int32(k)) }

// parseGate reads an element of the gate map.
func parseGate(attrs []byte) (inside address, g nat.Gate, ok bool) {
	key := parseKey(attrs)
	if len(key) != addressLen {
		return address{}, nat.GateClosed, false
	}
	g = foreign
	verdict := nlmsg.Attr(nlmsg.Attr(attrs, unix.NFTA_SET_ELEM_DATA), unix.NFTA_DATA_VERDICT)
	switch nlmsg.Uint32(nlmsg.Attr(verdict, unix.NFTA_VERDICT_CODE)) {
	case verdictCode(expr.VerdictReturn):
		g = nat.GateOpen
	case verdictCode(expr.VerdictGoto):
		if parseGoto(attrs) == chainDraining {
			g = nat.GateDraining
		}
	}
	return address(key), g, true
}

// appendBlock appends an element of the block map.
func appendBlock(dst []byte, inside address, b block) []byte {
	return appendRange(appendKey(dst, inside[:]), b)
}

func parseBlock(attrs []byte) (inside address, b block, ok bool) {
	key := parseKey(attrs)
	if b, ok = parseRange(attrs); !ok || len(key) != addressLen {
		return address{}, block{}, false
	}
	return address(key), b, true
}

// A table that was made and never programmed carries an empty set, the mark. It tells a later
// start that no port was in use, nor is in quarantine, even if the database has no memory. The
// mark goes with the first elements, and never returns; a table of an earlier version has
// none.

// unusedMark is the mark: a set that no rule refers to.
var unusedMark = set{
	name:     setUnused,
	shape:    shape{keyType: nftables.TypeIPAddr.GetNFTMagic(), keyLen: addressLen},
	userdata: byteOrders(orderBig),
}

// unused reports whether the table carries the mark.
func (s *actualRuleset) unused() bool {
	_, ok := s.sets[setUnused]
	return ok
}

// dropUnused takes the mark away, in the transaction that programs the first elements.
func dropUnused(b *wire.Batch, table string) {
	b.Add(wire.DelSet, wire.Op{Verb: "delete set", Object: setUnused}, func(dst []byte) []byte {
		return appendSetName(dst, table, setUnused)
	})
}

// appendRange appends a range of concatenations as the value of an element, ports padded to 32
// bits.
func appendRange(dst []byte, b block) []byte {
	data := len(dst)
	dst = nlmsg.BeginNested(dst, unix.NFTA_SET_ELEM_DATA)
	var value [blockLen]byte
	copy(value[0:], b.outside[:])
	binary.BigEndian.PutUint16(value[4:], b.first)
	copy(value[8:], b.outside[:])
	binary.BigEndian.PutUint16(value[12:], b.last)
	dst = nlmsg.AppendAttr(dst, unix.NFTA_DATA_VALUE, value[:])
	return nlmsg.EndNested(dst, data)
}

// parseRange is the reverse of appendRange.
func parseRange(attrs []byte) (b block, ok bool) {
	value := nlmsg.Attr(nlmsg.Attr(attrs, unix.NFTA_SET_ELEM_DATA), unix.NFTA_DATA_VALUE)
	if len(value) != blockLen {
		return block{}, false
	}
	return block{
		outside: address(value[:addressLen]),
		first:   binary.BigEndian.Uint16(value[4:]),
		last:    binary.BigEndian.Uint16(value[12:]),
	}, true
}
