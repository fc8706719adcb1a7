package conntrack

import (
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"
)

// Requests and notifications of ctnetlink (linux/netfilter/nfnetlink_conntrack.h).
const (
	subsystem  = 1 // NFNL_SUBSYS_CTNETLINK
	typeNew    = subsystem << 8
	typeGet    = typeNew | 1
	typeDelete = typeNew | 2
	typeStats  = typeNew | 5
)

// Multicast groups (linux/netfilter/nfnetlink_compat.h).
const (
	groupNew     = 1
	groupDestroy = 3
)

// Attributes of an entry, and of the attributes nested in it.
const (
	attrTupleOrig     = 1
	attrTupleReply    = 2
	attrStatus        = 3
	attrProtoInfo     = 4
	attrTimeout       = 7
	attrCountersOrig  = 9
	attrCountersReply = 10
	attrID            = 12
	attrZone          = 18

	attrTupleIP    = 1
	attrTupleProto = 2
	attrTupleZone  = 3

	attrIPv4Src = 1
	attrIPv4Dst = 2

	attrProtoNum     = 1
	attrProtoSrcPort = 2
	attrProtoDstPort = 3
	attrICMPID       = 4
	attrICMPType     = 5
	attrICMPCode     = 6

	attrInfoTCP  = 1
	attrTCPState = 1

	attrCounterPackets = 1
	attrCounterBytes   = 2
)

const (
	headerLen   = unix.SizeofNlMsghdr
	nfgenmsgLen = 4
	attrLen     = unix.SizeofNlAttr
	attrMask    = ^uint16(unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
)

var errMalformed = errors.New("malformed ctnetlink message")

// header is a netlink message header without its length.
type header struct {
	kind, flags uint16
	seq         uint32
}

// cutMessage splits the first netlink message off b.
func cutMessage(b []byte) (h header, payload, rest []byte, ok bool) {
	if len(b) < headerLen {
		return header{}, nil, nil, false
	}
	size := binary.NativeEndian.Uint32(b)
	if size < headerLen || uint64(size) > uint64(len(b)) {
		return header{}, nil, nil, false
	}
	h = header{
		kind:  binary.NativeEndian.Uint16(b[4:]),
		flags: binary.NativeEndian.Uint16(b[6:]),
		seq:   binary.NativeEndian.Uint32(b[8:]),
	}
	return h, b[headerLen:size], b[min(align(int(size)), len(b)):], true
}

// cutAttr splits the first attribute off b; its type comes without flag bits.
func cutAttr(b []byte) (kind uint16, value, rest []byte, ok bool) {
	if len(b) < attrLen {
		return 0, nil, nil, false
	}
	size := int(binary.NativeEndian.Uint16(b))
	if size < attrLen || size > len(b) {
		return 0, nil, nil, false
	}
	kind = binary.NativeEndian.Uint16(b[2:]) & attrMask
	return kind, b[attrLen:size], b[min(align(size), len(b)):], true
}

// align rounds up to the four bytes at which messages and attributes begin.
func align(n int) int { return (n + 3) &^ 3 }
