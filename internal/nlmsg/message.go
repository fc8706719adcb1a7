// Package nlmsg reads and writes netlink messages in place, within a datagram: many in one
// system call, without an allocation for each.
//
// It stands below github.com/mdlayher/netlink v1.11, which opens the sockets: that library
// allocates for each message and attribute, and sends and receives datagrams one by one.
package nlmsg

import (
	"encoding/binary"
	"iter"

	"golang.org/x/sys/unix"
)

const (
	// HeaderLen is the length of a message's header (struct nlmsghdr) in octets.
	HeaderLen = unix.SizeofNlMsghdr
	// FamilyLen is the length of the second header in messages of netfilter (struct nfgenmsg).
	FamilyLen = 4
)

// A Message is one message, without its sender's port.
type Message struct {
	Type, Flags uint16
	Seq         uint32
	Payload     []byte // after the header; part of the datagram that it was read from
}

// Next splits the first message off a datagram. ok is false if there is none, or if its length
// is impossible.
func Next(b []byte) (m Message, rest []byte, ok bool) {
	if len(b) < HeaderLen {
		return Message{}, nil, false
	}
	size := binary.NativeEndian.Uint32(b)
	if size < HeaderLen || uint64(size) > uint64(len(b)) {
		return Message{}, nil, false
	}
	m = Message{
		Type:    binary.NativeEndian.Uint16(b[4:]),
		Flags:   binary.NativeEndian.Uint16(b[6:]),
		Seq:     binary.NativeEndian.Uint32(b[8:]),
		Payload: b[HeaderLen:size],
	}
	return m, b[min(aligned(int(size)), len(b)):], true
}

// Messages yields the messages of a datagram, up to the first one that does not fit.
func Messages(b []byte) iter.Seq[Message] {
	return func(yield func(Message) bool) {
		for {
			m, rest, ok := Next(b)
			if !ok || !yield(m) {
				return
			}
			b = rest
		}
	}
}

// Errno returns the code in a message of type NLMSG_ERROR or NLMSG_DONE; 0 is success. It is
// false if the message has none.
func (m Message) Errno() (unix.Errno, bool) {
	if len(m.Payload) < 4 {
		return 0, false
	}
	return unix.Errno(-int32(binary.NativeEndian.Uint32(m.Payload))), true
}

// Detail returns the text of an extended acknowledgement, "" for none. It expects only the
// header of the failed message before the text: socket option NETLINK_CAP_ACK.
func (m Message) Detail() string {
	const start = 4 + HeaderLen
	if m.Flags&unix.NLM_F_ACK_TLVS == 0 || len(m.Payload) < start {
		return ""
	}
	return String(Attr(m.Payload[start:], unix.NLMSGERR_ATTR_MSG))
}

// Begin appends the header of a message from this process to the kernel. End, given the
// length that dst had before, completes it.
func Begin(dst []byte, typ, flags uint16, seq uint32) []byte {
	dst = binary.NativeEndian.AppendUint32(dst, 0) // length
	dst = binary.NativeEndian.AppendUint16(dst, typ)
	dst = binary.NativeEndian.AppendUint16(dst, flags)
	dst = binary.NativeEndian.AppendUint32(dst, seq)
	return append(dst, 0, 0, 0, 0) // port: the kernel fills it in
}

// End sets the length of the message that begins at start and ends with dst.
func End(dst []byte, start int) []byte {
	binary.NativeEndian.PutUint32(dst[start:], uint32(len(dst)-start))
	return dst
}

// AppendFamily appends the second header of netfilter messages (struct nfgenmsg).
func AppendFamily(dst []byte, family uint8, resource uint16) []byte {
	return binary.BigEndian.AppendUint16(append(dst, family, unix.NFNETLINK_V0), resource)
}

// SetSeq sets the sequence number of the first message in b.
func SetSeq(b []byte, seq uint32) { binary.NativeEndian.PutUint32(b[8:], seq) }

// AddFlags adds flags to those of the first message in b.
func AddFlags(b []byte, flags uint16) {
	binary.NativeEndian.PutUint16(b[6:], binary.NativeEndian.Uint16(b[6:])|flags)
}
