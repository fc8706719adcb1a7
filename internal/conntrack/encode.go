package conntrack

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// request is one datagram of ctnetlink requests under construction.
type request struct{ b []byte }

// begin starts a message and returns where it starts, for end.
func (r *request) begin(kind, flags uint16, seq uint32) int {
	at := len(r.b)
	r.b = binary.NativeEndian.AppendUint32(r.b, 0)
	r.b = binary.NativeEndian.AppendUint16(r.b, kind)
	r.b = binary.NativeEndian.AppendUint16(r.b, flags|unix.NLM_F_REQUEST)
	r.b = binary.NativeEndian.AppendUint32(r.b, seq)
	r.b = append(r.b, 0, 0, 0, 0)                            // port: the kernel knows
	r.b = append(r.b, unix.AF_INET, unix.NFNETLINK_V0, 0, 0) // struct nfgenmsg
	return at
}

func (r *request) end(at int) {
	binary.NativeEndian.PutUint32(r.b[at:], uint32(len(r.b)-at))
}

// nest starts an attribute that holds others and returns where, for unnest.
func (r *request) nest(kind uint16) int {
	at := len(r.b)
	r.b = binary.NativeEndian.AppendUint16(r.b, 0)
	r.b = binary.NativeEndian.AppendUint16(r.b, kind|unix.NLA_F_NESTED)
	return at
}

func (r *request) unnest(at int) {
	binary.NativeEndian.PutUint16(r.b[at:], uint16(len(r.b)-at))
}

func (r *request) attr(kind uint16, size int) {
	r.b = binary.NativeEndian.AppendUint16(r.b, uint16(attrLen+size))
	r.b = binary.NativeEndian.AppendUint16(r.b, kind)
}

func (r *request) uint8(kind uint16, v uint8) {
	r.attr(kind, 1)
	r.b = append(r.b, v, 0, 0, 0)
}

func (r *request) uint16(kind, v uint16) {
	r.attr(kind, 2)
	r.b = append(binary.BigEndian.AppendUint16(r.b, v), 0, 0)
}

func (r *request) uint32(kind uint16, v uint32) {
	r.attr(kind, 4)
	r.b = binary.BigEndian.AppendUint32(r.b, v)
}

// tuple appends k without its zone, which has an attribute of its own.
func (r *request) tuple(kind uint16, k key) {
	at := r.nest(kind)
	ip := r.nest(attrTupleIP)
	r.uint32(attrIPv4Src, k.src)
	r.uint32(attrIPv4Dst, k.dst)
	r.unnest(ip)
	r.protocol(k)
	r.unnest(at)
}

func (r *request) protocol(k key) {
	at := r.nest(attrTupleProto)
	r.uint8(attrProtoNum, uint8(k.proto))
	if k.proto == unix.IPPROTO_ICMP {
		r.uint8(attrICMPType, uint8(k.dport>>8))
		r.uint8(attrICMPCode, uint8(k.dport))
		r.uint16(attrICMPID, k.sport)
	} else {
		r.uint16(attrProtoSrcPort, k.sport)
		r.uint16(attrProtoDstPort, k.dport)
	}
	r.unnest(at)
}

// byTuple appends a request about the entry of k. The zone of the original
// direction finds it whether the entry has a zone in one direction or in both.
// With the identifier a delete never hits a successor on the same tuple.
func (r *request) byTuple(kind, flags uint16, seq uint32, k key, id uint32) {
	at := r.begin(kind, flags, seq)
	r.tuple(attrTupleOrig, k)
	r.uint32(attrID, id)
	if k.zone != 0 {
		r.uint16(attrZone, k.zone)
	}
	r.end(at)
}

// dump appends a request for every IPv4 entry.
func (r *request) dump(seq uint32) {
	r.end(r.begin(typeGet, unix.NLM_F_DUMP, seq))
}
