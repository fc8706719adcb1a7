package nftnat

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/addrrange"
	"github.com/sessiond/sessiond/internal/nlmsg"
)

// Lengths of keys and values in bytes. Each part of a concatenation takes whole
// 32-bit words.
const (
	addressLen   = 4
	interfaceLen = unix.IFNAMSIZ
	protocolLen  = 1
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
}

// A set or map of the table. The members of gate and block are not listed, and packets make
// those of ungated.
type set struct {
	name string
	shape
	userdata []byte        // tells nft how to print
	timeout  time.Duration // of elements that the packets make; 0 for none
	size     uint32        // largest number of elements; 0 for no limit
	members  []member
}

type member struct {
	key []byte
	end bool // the key is the first one after an interval
}

func newSets(o Options) []set {
	return []set{
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
		{
			name:     setFull,
			shape:    shape{keyType: nftables.TypeIPAddr.GetNFTMagic(), keyLen: addressLen},
			userdata: byteOrders(orderBig), members: addressMembers(o.full.began),
		},
		{
			name:     setFullMapped,
			shape:    shape{keyType: nftables.TypeIPAddr.GetNFTMagic(), keyLen: addressLen},
			userdata: byteOrders(orderBig), members: addressMembers(o.full.reached),
		},
		ungatedSet,
	}
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
		key := make([]byte, interfaceLen)
		copy(key, i)
		s.members = append(s.members, member{key: key})
	}
	return s
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
	if s.size != 0 {
		start := len(dst)
		dst = nlmsg.BeginNested(dst, unix.NFTA_SET_DESC)
		dst = nlmsg.AppendUint32(dst, unix.NFTA_SET_DESC_SIZE, s.size)
		dst = nlmsg.EndNested(dst, start)
	}
	dst = nlmsg.AppendUint32(dst, unix.NFTA_SET_ID, 1)
	return nlmsg.AppendAttr(dst, unix.NFTA_SET_USERDATA, s.userdata)
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
	}
	if s.dataType == verdictType {
		s.dataLen = 0
	}
	return s
}

func appendMember(dst []byte, m member) []byte {
	dst = appendKey(dst, m.key)
	if m.end {
		dst = nlmsg.AppendUint32(dst, unix.NFTA_SET_ELEM_FLAGS, unix.NFT_SET_ELEM_INTERVAL_END)
	}
	return dst
}

func parseMember(attrs []byte) member {
	flags := nlmsg.Uint32(nlmsg.Attr(attrs, unix.NFTA_SET_ELEM_FLAGS))
	return member{
		key: slices.Clone(parseKey(attrs)),
		end: flags&unix.NFT_SET_ELEM_INTERVAL_END != 0,
	}
}

func appendKey(dst, key []byte) []byte {
	start := len(dst)
	dst = nlmsg.BeginNested(dst, unix.NFTA_SET_ELEM_KEY)
	dst = nlmsg.AppendAttr(dst, unix.NFTA_DATA_VALUE, key)
	return nlmsg.EndNested(dst, start)
}

func parseKey(attrs []byte) []byte {
	return nlmsg.Attr(nlmsg.Attr(attrs, unix.NFTA_SET_ELEM_KEY), unix.NFTA_DATA_VALUE)
}
