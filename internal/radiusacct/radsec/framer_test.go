package radsec

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"testing"
)

// chunks reads a stream in pieces of given sizes, in turn.
type chunks struct {
	stream []byte
	sizes  []byte
	next   int
}

func (c *chunks) Read(p []byte) (int, error) {
	if len(c.stream) == 0 {
		return 0, io.EOF
	}
	size := len(c.stream)
	if len(c.sizes) > 0 {
		size = 1 + int(c.sizes[c.next%len(c.sizes)])
		c.next++
	}
	n := copy(p, c.stream[:min(size, len(c.stream))])
	c.stream = c.stream[n:]
	return n, nil
}

// FuzzFramer splits a stream into packets, read in arbitrary pieces, and compares them with
// those of the whole stream.
func FuzzFramer(f *testing.F) {
	packet := append([]byte{4, 1, 0, 150}, make([]byte, 146)...)
	empty := append([]byte{4, 2, 0, 20}, make([]byte, 16)...)
	f.Add(packet, []byte{0})
	f.Add(slices.Concat(packet, empty), []byte{7, 255})
	f.Add(append(slices.Clone(packet), 4, 1, 0, 19), []byte{})
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"), []byte{3})
	f.Add([]byte{4, 1, 16, 0, 0}, []byte{2})
	f.Fuzz(func(t *testing.T, stream, sizes []byte) {
		want, wantFault := walkStream(stream)
		framer, source := newFramer(), &chunks{stream: stream, sizes: sizes}
		var got [][]byte
		for {
			p, fault := framer.next()
			if fault != nil {
				if !wantFault {
					t.Fatalf("refused after %d packets: %v", len(got), fault)
				}
				break
			}
			if p != nil {
				got = append(got, bytes.Clone(p))
				continue
			}
			if err := framer.fill(source); errors.Is(err, io.EOF) {
				if wantFault {
					t.Fatal("a bad length was taken")
				}
				break
			}
		}
		if len(got) != len(want) {
			t.Fatalf("%d packets, want %d", len(got), len(want))
		}
		for i := range got {
			if !bytes.Equal(got[i], want[i]) {
				t.Fatalf("packet %d is %x, want %x", i, got[i], want[i])
			}
		}
	})
}

// walkStream is the framer for a whole stream.
func walkStream(b []byte) (packets [][]byte, fault bool) {
	for len(b) >= 4 {
		length := int(binary.BigEndian.Uint16(b[2:]))
		if length < 20 || length > 4096 {
			return packets, true
		}
		if length > len(b) {
			return packets, false
		}
		packets = append(packets, b[:length])
		b = b[length:]
	}
	return packets, false
}
