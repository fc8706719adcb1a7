package wire

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// Error is the kernel's refusal of one operation. Errors.Is sees its Errno.
type Error struct {
	Op     Op
	Errno  unix.Errno
	Detail string // the kernel's own words, if it had any
}

func (e *Error) Error() string {
	s := e.Op.Verb
	if e.Op.Object != "" {
		s += " " + e.Op.Object
	}
	if e.Detail != "" {
		return fmt.Sprintf("%s: %v (%s)", s, e.Errno, e.Detail)
	}
	return fmt.Sprintf("%s: %v", s, e.Errno)
}

func (e *Error) Unwrap() error { return e.Errno }

// reply is one message from the kernel.
type reply struct {
	typ, flags uint16
	sequence   uint32
	payload    []byte
}

// parseReplies yields the messages of one datagram.
func parseReplies(b []byte, yield func(reply) bool) {
	for len(b) >= messageHeader {
		size := int(binary.NativeEndian.Uint32(b))
		if size < messageHeader || size > len(b) {
			return
		}
		r := reply{
			typ:      binary.NativeEndian.Uint16(b[4:]),
			flags:    binary.NativeEndian.Uint16(b[6:]),
			sequence: binary.NativeEndian.Uint32(b[8:]),
			payload:  b[messageHeader:size],
		}
		if !yield(r) {
			return
		}
		b = b[min(aligned(size), len(b)):]
	}
}

// errno is what an NLMSG_ERROR or NLMSG_DONE message reports; 0 is success.
func (r reply) errno() unix.Errno {
	if len(r.payload) < 4 {
		return 0
	}
	return unix.Errno(-int32(binary.NativeEndian.Uint32(r.payload)))
}

// detail is the text of an extended acknowledgement. The message that failed
// stands before it by its header alone, which NETLINK_CAP_ACK sees to.
func (r reply) detail() string {
	const start = 4 + messageHeader
	if r.flags&unix.NLM_F_ACK_TLVS == 0 || len(r.payload) < start {
		return ""
	}
	return String(Attr(r.payload[start:], unix.NLMSGERR_ATTR_MSG))
}
