package nlmsg

import (
	"encoding/binary"
	"iter"
	"math"

	"golang.org/x/sys/unix"
)

const (
	attrHeader = unix.SizeofNlAttr
	typeMask   = ^uint16(unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
	maxAttr    = math.MaxUint16 // an attribute's length is 16 bits wide
)

// NextAttr splits the first attribute off b. Its type comes without flags. ok is false if
// there is none, or if its length is impossible.
func NextAttr(b []byte) (typ uint16, value, rest []byte, ok bool) {
	if len(b) < attrHeader {
		return 0, nil, nil, false
	}
	size := int(binary.NativeEndian.Uint16(b))
	if size < attrHeader || size > len(b) {
		return 0, nil, nil, false
	}
	typ = binary.NativeEndian.Uint16(b[2:]) & typeMask
	return typ, b[attrHeader:size], b[min(aligned(size), len(b)):], true
}

// Attrs yields type, without flags, and value of each attribute in b, up to the first one that
// does not fit.
func Attrs(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for {
			typ, value, rest, ok := NextAttr(b)
			if !ok || !yield(typ, value) {
				return
			}
			b = rest
		}
	}
}

// Attr returns the value of the first attribute of a type in b, nil for none.
func Attr(b []byte, typ uint16) []byte {
	for t, value := range Attrs(b) {
		if t == typ {
			return value
		}
	}
	return nil
}

// Uint32 reads a number in network byte order; 0 when b is shorter.
func Uint32(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}

// Uint64 reads a number in network byte order; 0 when b is shorter.
func Uint64(b []byte) uint64 {
	if len(b) < 8 {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}

// String reads a string up to its terminating zero, if any.
func String(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}

// AppendAttr appends an attribute and its padding.
func AppendAttr(dst []byte, typ uint16, value []byte) []byte {
	dst = appendHeader(dst, typ, len(value))
	return pad(append(dst, value...))
}

// AppendString appends an attribute with a zero-terminated string.
func AppendString(dst []byte, typ uint16, s string) []byte {
	dst = appendHeader(dst, typ, len(s)+1)
	return pad(append(append(dst, s...), 0))
}

// AppendUint8 appends an attribute with a number.
func AppendUint8(dst []byte, typ uint16, v uint8) []byte {
	return append(appendHeader(dst, typ, 1), v, 0, 0, 0)
}

// AppendUint16 appends an attribute with a number in network byte order.
func AppendUint16(dst []byte, typ, v uint16) []byte {
	return append(binary.BigEndian.AppendUint16(appendHeader(dst, typ, 2), v), 0, 0)
}

// AppendUint32 appends an attribute with a number in network byte order.
func AppendUint32(dst []byte, typ uint16, v uint32) []byte {
	return binary.BigEndian.AppendUint32(appendHeader(dst, typ, 4), v)
}

// BeginNested appends the header of an attribute that contains others. EndNested, given the
// length that dst had before, completes it.
func BeginNested(dst []byte, typ uint16) []byte {
	return appendHeader(dst, typ|unix.NLA_F_NESTED, 0)
}

// EndNested sets the length of the attribute that begins at start and ends with dst.
func EndNested(dst []byte, start int) []byte {
	size := len(dst) - start
	if size > maxAttr {
		panic("nlmsg: attribute is longer than 64 KiB")
	}
	binary.NativeEndian.PutUint16(dst[start:], uint16(size))
	return dst
}

func appendHeader(dst []byte, typ uint16, size int) []byte {
	dst = binary.NativeEndian.AppendUint16(dst, uint16(attrHeader+size))
	return binary.NativeEndian.AppendUint16(dst, typ)
}

func pad(b []byte) []byte {
	for len(b)%unix.NLA_ALIGNTO != 0 {
		b = append(b, 0)
	}
	return b
}

// aligned rounds up to the offset of the next message or attribute.
func aligned(n int) int { return (n + unix.NLA_ALIGNTO - 1) &^ (unix.NLA_ALIGNTO - 1) }
