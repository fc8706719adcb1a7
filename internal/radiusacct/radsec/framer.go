package radsec

import (
	"io"

	"github.com/sessiond/sessiond/internal/radiusacct/wire"
)

// framerLength is the buffer of a stream in octets: what one TLS record holds.
const framerLength = 16 << 10

// A framer cuts a stream into packets by their Length field (RFC 6613 section
// 2.6.4). Packets may share a segment or be spread over several.
type framer struct {
	buffer     []byte
	start, end int // of what was read and not yet taken
}

func newFramer() framer { return framer{buffer: make([]byte, framerLength)} }

// next takes the next packet, or returns nil when some of it is yet to be read.
// It aliases the buffer, until fill. After a fault nobody knows where the next
// packet begins.
func (f *framer) next() (wire.Packet, *wire.Malformed) {
	p, malformed := wire.First(f.buffer[f.start:f.end])
	f.start += len(p)
	return p, malformed
}

// fill reads once. There is room: next has taken all that is whole.
func (f *framer) fill(r io.Reader) error {
	f.end = copy(f.buffer, f.buffer[f.start:f.end])
	f.start = 0
	n, err := r.Read(f.buffer[f.end:])
	f.end += n
	if n > 0 {
		return nil // an error will come again
	}
	return err
}

// partial reports whether a packet has begun and not yet ended.
func (f *framer) partial() bool { return f.start < f.end }
