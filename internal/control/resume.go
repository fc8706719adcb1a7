package control

import (
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"
	"math"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// A resume token is a position in the stream of events, with a checksum that detects a
// damaged one. In octets: the checksum (4) of all that follows; the version (1); the run (8);
// the number of the event; and for each group its name, the checksum of the epoch (8), the
// feed entry and the number of its changes. Names and entries have their length before them;
// numbers without a size are of variable length.

// tokenVersion is the version of resume tokens. A daemon reads those of its version alone: any
// other is a position that cannot be gone on from.
const tokenVersion = 1

// resumeToken returns the token of a position.
func resumeToken(p inspect.Position) string {
	raw := append(make([]byte, 0, 24+48*len(p.Feeds)), tokenVersion)
	raw = binary.BigEndian.AppendUint64(raw, p.Run)
	raw = binary.AppendUvarint(raw, p.Seq)
	for _, f := range p.Feeds {
		raw = appendText(raw, f.Group)
		raw = binary.BigEndian.AppendUint64(raw, f.Epoch)
		raw = appendText(raw, f.Entry.String())
		raw = binary.AppendUvarint(raw, uint64(f.Changes))
	}
	return withSum(raw)
}

// withSum returns the text of a token with a checksum before it.
func withSum(raw []byte) string {
	sum := binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE(raw))
	return base64.RawURLEncoding.EncodeToString(append(sum, raw...))
}

func appendText(to []byte, text string) []byte {
	return append(binary.AppendUvarint(to, uint64(len(text))), text...)
}

// parseResumeToken returns the position of a token. One of another version is a position of
// another run without any feed.
func parseResumeToken(token string) (inspect.Position, error) {
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(raw) < 5 || binary.BigEndian.Uint32(raw) != crc32.ChecksumIEEE(raw[4:]) {
		return inspect.Position{}, badResumeToken()
	}
	if raw[4] != tokenVersion {
		return inspect.Position{}, nil
	}
	r := tokenReader{rest: raw[5:]}
	p := inspect.Position{Run: r.fixed(), Seq: r.number()}
	for len(r.rest) > 0 && !r.bad {
		f := inspect.FeedPosition{Group: r.text(), Epoch: r.fixed(), Entry: subscriber.ParseVersion(r.text())}
		changes := r.number()
		f.Changes = int(min(changes, math.MaxInt32))
		if n := len(p.Feeds); n > 0 && p.Feeds[n-1].Group >= f.Group {
			r.bad = true
		}
		p.Feeds = append(p.Feeds, f)
	}
	if r.bad || resumeToken(p) != token { // only tokens that resumeToken makes
		return inspect.Position{}, badResumeToken()
	}
	return p, nil
}

func badResumeToken() error {
	return invalid("resume_token", "is damaged; give it as it came, or list and watch without one")
}

// tokenReader reads the parts of a resume token. Behind its end all are zero, and bad is set.
type tokenReader struct {
	rest []byte
	bad  bool
}

func (r *tokenReader) fixed() uint64 {
	if len(r.rest) < 8 {
		r.bad, r.rest = true, nil
		return 0
	}
	n := binary.BigEndian.Uint64(r.rest)
	r.rest = r.rest[8:]
	return n
}

func (r *tokenReader) number() uint64 {
	n, size := binary.Uvarint(r.rest)
	if size <= 0 {
		r.bad, r.rest = true, nil
		return 0
	}
	r.rest = r.rest[size:]
	return n
}

func (r *tokenReader) text() string {
	n := r.number()
	if n > uint64(len(r.rest)) {
		r.bad, r.rest = true, nil
		return ""
	}
	text := string(r.rest[:n])
	r.rest = r.rest[n:]
	return text
}
