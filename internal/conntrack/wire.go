package conntrack

import (
	"encoding/binary"
	"errors"

	"github.com/sessiond/sessiond/internal/nlmsg"
	"golang.org/x/sys/unix"
)

// Requests and notifications of ctnetlink (linux/netfilter/nfnetlink_conntrack.h).
const (
	subsystem  = 1 // NFNL_SUBSYS_CTNETLINK
	typeNew    = subsystem << 8
	typeGet    = typeNew | 1
	typeDelete = typeNew | 2
	typeStats  = typeNew | 5
	typeCPUs   = typeNew | 4 // statistics by processor
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
	attrLabels        = 22

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

var errMalformed = errors.New("malformed ctnetlink message")

// Requests.

// beginRequest appends the headers of a request, which nlmsg.End completes.
func beginRequest(dst []byte, kind, flags uint16, seq uint32) []byte {
	return nlmsg.AppendFamily(nlmsg.Begin(dst, kind, flags|unix.NLM_F_REQUEST, seq), unix.AF_INET, 0)
}

// appendRequest appends a request that has no attributes.
func appendRequest(dst []byte, kind, flags uint16, seq uint32) []byte {
	return nlmsg.End(beginRequest(dst, kind, flags, seq), len(dst))
}

// appendByTuple appends a request about the entry of k. The zone of the original direction
// finds it whether the entry has a zone in one direction or in both. With the identifier, a
// delete never hits a successor on the same tuple.
func appendByTuple(dst []byte, kind, flags uint16, seq uint32, k key, id uint32) []byte {
	start := len(dst)
	dst = beginRequest(dst, kind, flags, seq)
	dst = appendTuple(dst, attrTupleOrig, k)
	dst = nlmsg.AppendUint32(dst, attrID, id)
	if k.zone != 0 {
		dst = nlmsg.AppendUint16(dst, attrZone, k.zone)
	}
	return nlmsg.End(dst, start)
}

// appendTuple appends k without its zone, which has an attribute of its own.
func appendTuple(dst []byte, typ uint16, k key) []byte {
	start := len(dst)
	dst = nlmsg.BeginNested(dst, typ)
	addresses := len(dst)
	dst = nlmsg.BeginNested(dst, attrTupleIP)
	dst = nlmsg.AppendUint32(dst, attrIPv4Src, k.src)
	dst = nlmsg.AppendUint32(dst, attrIPv4Dst, k.dst)
	dst = nlmsg.EndNested(dst, addresses)
	return nlmsg.EndNested(appendProtocol(dst, k), start)
}

func appendProtocol(dst []byte, k key) []byte {
	start := len(dst)
	dst = nlmsg.BeginNested(dst, attrTupleProto)
	dst = nlmsg.AppendUint8(dst, attrProtoNum, uint8(k.proto))
	if k.proto == unix.IPPROTO_ICMP {
		dst = nlmsg.AppendUint8(dst, attrICMPType, uint8(k.dport>>8))
		dst = nlmsg.AppendUint8(dst, attrICMPCode, uint8(k.dport))
		dst = nlmsg.AppendUint16(dst, attrICMPID, k.sport)
	} else {
		dst = nlmsg.AppendUint16(dst, attrProtoSrcPort, k.sport)
		dst = nlmsg.AppendUint16(dst, attrProtoDstPort, k.dport)
	}
	return nlmsg.EndNested(dst, start)
}

// Answers and events.

const bothTuples = 3

// parse reads the payload of one ctnetlink message. It reports false for an
// entry that is not IPv4, and an error for bytes the kernel would not send.
func (f *flow) parse(payload []byte) (bool, error) {
	if len(payload) < nlmsg.FamilyLen {
		return false, errMalformed
	}
	if payload[0] != unix.AF_INET {
		return false, nil
	}
	*f = flow{}
	rest := payload[nlmsg.FamilyLen:]
	for len(rest) > 0 {
		kind, value, next, ok := nlmsg.NextAttr(rest)
		if !ok || !f.attr(kind, value) {
			return false, errMalformed
		}
		rest = next
	}
	if f.tuples != bothTuples {
		return false, errMalformed
	}
	return true, nil
}

// attr takes one top-level attribute; it skips those that it does not know.
func (f *flow) attr(kind uint16, value []byte) bool {
	switch kind {
	case attrTupleOrig:
		f.tuples |= 1
		return f.orig.tuple(value)
	case attrTupleReply:
		f.tuples |= 2
		return f.reply.tuple(value)
	case attrZone:
		return readUint16(value, &f.orig.zone)
	case attrID:
		return readUint32(value, &f.id)
	case attrStatus:
		return readUint32(value, &f.status)
	case attrLabels:
		copy(f.labels[:], value)
		return true
	case attrTimeout:
		return readUint32(value, &f.timeout)
	case attrProtoInfo:
		return f.protoInfo(value)
	case attrCountersOrig, attrCountersReply:
		return f.counters(value)
	}
	return true
}

// protoInfo takes the TCP state; details of other protocols are not used.
func (f *flow) protoInfo(b []byte) bool {
	tcp, ok := find(b, attrInfoTCP)
	if !ok || tcp == nil {
		return ok
	}
	state, ok := find(tcp, attrTCPState)
	if !ok || state == nil {
		return ok
	}
	return readUint8(state, &f.tcpState)
}

// counters adds one direction's packets and octets.
func (f *flow) counters(b []byte) bool {
	for len(b) > 0 {
		kind, value, rest, ok := nlmsg.NextAttr(b)
		if !ok {
			return false
		}
		switch kind {
		case attrCounterPackets:
			ok = addUint64(value, &f.packets)
		case attrCounterBytes:
			ok = addUint64(value, &f.bytes)
		}
		if !ok {
			return false
		}
		b = rest
	}
	return true
}

// tuple takes the attributes nested in one direction's tuple.
func (k *key) tuple(b []byte) bool {
	for len(b) > 0 {
		kind, value, rest, ok := nlmsg.NextAttr(b)
		if !ok {
			return false
		}
		switch kind {
		case attrTupleIP:
			ok = k.addresses(value)
		case attrTupleProto:
			ok = k.protocol(value)
		case attrTupleZone:
			ok = readUint16(value, &k.zone)
		}
		if !ok {
			return false
		}
		b = rest
	}
	return true
}

func (k *key) addresses(b []byte) bool {
	for len(b) > 0 {
		kind, value, rest, ok := nlmsg.NextAttr(b)
		if !ok {
			return false
		}
		switch kind {
		case attrIPv4Src:
			ok = readUint32(value, &k.src)
		case attrIPv4Dst:
			ok = readUint32(value, &k.dst)
		}
		if !ok {
			return false
		}
		b = rest
	}
	return true
}

func (k *key) protocol(b []byte) bool {
	for len(b) > 0 {
		kind, value, rest, ok := nlmsg.NextAttr(b)
		if !ok || !k.protocolAttr(kind, value) {
			return false
		}
		b = rest
	}
	return true
}

func (k *key) protocolAttr(kind uint16, value []byte) bool {
	var n uint8
	switch kind {
	case attrProtoSrcPort, attrICMPID:
		return readUint16(value, &k.sport)
	case attrProtoDstPort:
		return readUint16(value, &k.dport)
	case attrProtoNum:
		ok := readUint8(value, &n)
		k.proto = uint16(n)
		return ok
	case attrICMPType:
		ok := readUint8(value, &n)
		k.dport = k.dport&0x00ff | uint16(n)<<8
		return ok
	case attrICMPCode:
		ok := readUint8(value, &n)
		k.dport = k.dport&0xff00 | uint16(n)
		return ok
	}
	return true
}

// find returns the first attribute of a kind, nil when there is none, and
// false when b cannot be walked.
func find(b []byte, want uint16) ([]byte, bool) {
	for len(b) > 0 {
		kind, value, rest, ok := nlmsg.NextAttr(b)
		if !ok {
			return nil, false
		}
		if kind == want {
			return value, true
		}
		b = rest
	}
	return nil, true
}

// Numbers of ctnetlink are in network byte order.

func readUint8(b []byte, to *uint8) bool {
	if len(b) < 1 {
		return false
	}
	*to = b[0]
	return true
}

func readUint16(b []byte, to *uint16) bool {
	if len(b) < 2 {
		return false
	}
	*to = binary.BigEndian.Uint16(b)
	return true
}

func readUint32(b []byte, to *uint32) bool {
	if len(b) < 4 {
		return false
	}
	*to = binary.BigEndian.Uint32(b)
	return true
}

func addUint64(b []byte, to *uint64) bool {
	if len(b) < 8 {
		return false
	}
	*to += binary.BigEndian.Uint64(b)
	return true
}
