package radsec

import (
	"io"

	"github.com/sessiond/sessiond/internal/radiusacct/wire"
)

// framerLength is the buffer of a stream in octets: the content of one TLS record.
const framerLength = 16 << 10

// A framer splits a stream into packets by their Length field (RFC 6613 section 2.6.4).
// Packets may share a segment or be spread over several.
type framer struct {
	buffer     []byte
	start, end int // unread part of the buffer
}

func newFramer() framer { return framer{buffer: make([]byte, framerLength)} }

// next returns the next packet, or nil when it is not complete. The packet aliases the
// buffer, until fill. After an error the begin of the next packet is unknown.
func (f *framer) next() (wire.Packet, *wire.Malformed) {
	p, malformed := wire.First(f.buffer[f.start:f.end])
	f.start += len(p)
	return p, malformed
}

// fill reads once. There is room, because next has returned all complete packets.
func (f *framer) fill(r io.Reader) error {
	f.end = copy(f.buffer, f.buffer[f.start:f.end])
	f.start = 0
	n, err := r.Read(f.buffer[f.end:])
	f.end += n
	if n > 0 {
		return nil // the next Read returns the error again
	}
	return err
}

// partial reports whether a packet has begun and not yet ended.
func (f *framer) partial() bool { return f.start < f.end }
