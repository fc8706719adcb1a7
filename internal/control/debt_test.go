package control

import (
	"bytes"
	"slices"
	"testing"

	"golang.org/x/net/http2"
)

// FuzzFrameScanner: in any division of the octets, the scanner finds exactly
// the heads that were written.
func FuzzFrameScanner(f *testing.F) {
	f.Add([]byte("some data"), uint8(3), uint32(7))
	f.Add(bytes.Repeat([]byte{0}, 300), uint8(1), uint32(1<<31-1))
	f.Fuzz(func(t *testing.T, data []byte, cut uint8, stream uint32) {
		stream = stream&^(1<<31) | 1
		if len(data) > 1<<14 {
			return
		}
		var wire bytes.Buffer
		frames := http2.NewFramer(&wire, nil)
		if frames.WriteSettings() != nil || frames.WriteData(stream, true, data) != nil ||
			frames.WriteRSTStream(stream, http2.ErrCodeCancel) != nil {
			t.Skip("not written")
		}
		var found []frameHead
		var s frameScanner
		for part := range slices.Chunk(wire.Bytes(), int(cut)+1) {
			s.scan(part, func(h frameHead) { found = append(found, h) })
		}
		want := []frameHead{
			{http2.FrameSettings, 0, 0}, {http2.FrameData, http2.FlagDataEndStream, stream}, {http2.FrameRSTStream, 0, stream},
		}
		if !slices.Equal(found, want) {
			t.Errorf("found %v, want %v", found, want)
		}
	})
}
