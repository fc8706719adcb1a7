package conntrack

import (
	"encoding/binary"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/nlmsg"
)

// key identifies an IPv4 entry in the kernel: the tuple and the zone of its original
// direction. Sixteen bytes without padding.
type key struct {
	src, dst     uint32
	sport, dport uint16 // ICMP: identifier; type and code
	zone         uint16
	proto        uint16
}

// flow is one parsed entry. Parsing into it allocates nothing.
type flow struct {
	orig, reply    key
	id             uint32
	status         uint32
	timeout        uint32 // seconds
	packets, bytes uint64
	tcpState       uint8
	tuples         uint8 // bits of the tuples parsed, see bothTuples
}

const bothTuples = 3

// plain reports whether neither address is translated.
func (f *flow) plain() bool { return f.reply.src == f.orig.dst && f.reply.dst == f.orig.src }

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

// entry converts the flow to the exported type.
func (f *flow) entry() Entry {
	return Entry{
		Orig: f.orig.tupleValue(), Reply: f.reply.tupleValue(),
		Zone: f.orig.zone, ID: f.id, Status: f.status, TCPState: f.tcpState,
		Timeout: time.Duration(f.timeout) * time.Second,
		Packets: f.packets, Bytes: f.bytes,
	}
}

func (k *key) tupleValue() Tuple {
	return Tuple{
		Src: toAddr(k.src), Dst: toAddr(k.dst),
		SrcPort: k.sport, DstPort: k.dport, Protocol: uint8(k.proto),
	}
}

func toAddr(a uint32) netip.Addr {
	return netip.AddrFrom4([4]byte{byte(a >> 24), byte(a >> 16), byte(a >> 8), byte(a)})
}

// fromAddr returns false for an address that is not IPv4.
func fromAddr(a netip.Addr) (uint32, bool) {
	a = a.Unmap()
	if !a.Is4() {
		return 0, false
	}
	b := a.As4()
	return binary.BigEndian.Uint32(b[:]), true
}

// fromEntry returns false when e is not IPv4. It takes only the original tuple.
func (f *flow) fromEntry(e Entry) bool {
	*f = flow{id: e.ID}
	f.orig = key{sport: e.Orig.SrcPort, dport: e.Orig.DstPort, zone: e.Zone, proto: uint16(e.Orig.Protocol)}
	var ok1, ok2 bool
	f.orig.src, ok1 = fromAddr(e.Orig.Src)
	f.orig.dst, ok2 = fromAddr(e.Orig.Dst)
	return ok1 && ok2
}
