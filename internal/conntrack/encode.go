package conntrack

import (
	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/nlmsg"
)

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
