package control

import (
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"
	"math"
	"net/netip"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// A resume token is a position in the stream of events, with a checksum that detects a
// damaged one. In octets: the checksum (4) of all that follows; the version (1); the run (8);
// the number of the event; the place in a list; and for each group its name, the checksum of the
// epoch (8), the feed entry and the number of its changes. The place in a list is a 0 for none; or
// a 1, the checksum of the filter (4), its group, the group and the address (0, 4 or 16) that was
// listed last, and how many were listed. Names, addresses and entries have their length before them; numbers without a
// size are of variable length.

// tokenVersion is the version of resume tokens. A daemon reads those of its version alone: any
// other is a position that cannot be gone on from.
const tokenVersion = 3

// resumeToken returns the token of a position behind which nothing has to be listed.
func resumeToken(p inspect.Position) string { return watchToken(p, nil) }

// watchToken returns the token of a position at which a list may not have come to its end.
func watchToken(p inspect.Position, list *listPlace) string {
	raw := append(make([]byte, 0, 25+48*len(p.Feeds)), tokenVersion)
	raw = binary.BigEndian.AppendUint64(raw, p.Run)
	raw = binary.AppendUvarint(raw, p.Seq)
	raw = list.append(raw)
	for _, f := range p.Feeds {
		raw = appendText(raw, f.Group)
		raw = binary.BigEndian.AppendUint64(raw, f.Epoch)
		raw = appendText(raw, f.Entry.String())
		raw = binary.AppendUvarint(raw, uint64(f.Changes))
	}
	return withSum(raw)
}

// append appends the place in a list, or that there is none.
func (p *listPlace) append(raw []byte) []byte {
	if p == nil {
		return append(raw, 0)
	}
	raw = binary.BigEndian.AppendUint32(append(raw, 1), p.filter)
	raw = appendText(appendText(raw, p.group), p.after.Group)
	raw = appendText(raw, string(p.after.Inside.AsSlice()))
	return binary.AppendUvarint(raw, uint64(p.listed))
}

// withSum returns the text of a token with a checksum before it.
func withSum(raw []byte) string {
	sum := binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE(raw))
	return base64.RawURLEncoding.EncodeToString(append(sum, raw...))
}

func appendText(to []byte, text string) []byte {
	return append(binary.AppendUvarint(to, uint64(len(text))), text...)
}

// parseResumeToken returns the position of a token, and the place in a list that has not come to
// its end there. A token of another version is a position of another run without any feed.
func parseResumeToken(token string) (p inspect.Position, list *listPlace, err error) {
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(raw) < 5 || binary.BigEndian.Uint32(raw) != crc32.ChecksumIEEE(raw[4:]) {
		return p, nil, badResumeToken()
	}
	if raw[4] != tokenVersion {
		return p, nil, nil
	}
	r := tokenReader{rest: raw[5:]}
	p.Run, p.Seq = r.fixed(), r.number()
	if r.number() != 0 {
		list = r.place()
	}
	for len(r.rest) > 0 && !r.bad {
		f := inspect.FeedPosition{Group: r.text(), Epoch: r.fixed(), Entry: subscriber.ParseVersion(r.text())}
		changes := r.number()
		f.Changes = int(min(changes, math.MaxInt32))
		if n := len(p.Feeds); n > 0 && p.Feeds[n-1].Group >= f.Group {
			r.bad = true
		}
		p.Feeds = append(p.Feeds, f)
	}
	if r.bad || watchToken(p, list) != token { // only tokens that watchToken makes
		return inspect.Position{}, nil, badResumeToken()
	}
	return p, list, nil
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
	var n [8]byte
	r.read(n[:])
	return binary.BigEndian.Uint64(n[:])
}

func (r *tokenReader) read(octets []byte) {
	if len(r.rest) < len(octets) {
		r.bad, r.rest = true, nil
		return
	}
	r.rest = r.rest[copy(octets, r.rest):]
}

// place reads a place in a list, behind its mark.
func (r *tokenReader) place() *listPlace {
	var sum [4]byte
	r.read(sum[:])
	p := listPlace{filter: binary.BigEndian.Uint32(sum[:])}
	p.group, p.after.Group = r.text(), r.text()
	p.after.Inside, _ = netip.AddrFromSlice([]byte(r.text()))
	p.listed = int(min(r.number(), math.MaxInt32))
	return &p
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
