package history

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/sessiond/sessiond/internal/nat"
)

// entryKind is the kind of a journal's entry.
type entryKind uint8

// The kinds of entries.
const (
	entryBegin     entryKind = iota + 1 // the journal begins
	entryPosition                       // where the log was read to
	entryAllocated                      // a holder gets a block
	entryReleased                       // the open span of a block ends
	entryPast                           // a span that began before this journal ends
	entryConfirmed                      // a holder still has a block
	entryGap                            // changes may be missing
	entryReset                          // a gap, behind which only blocks that are confirmed are held
	entrySigned                         // a checkpoint of all before it
	entryKept                           // older files were removed
)

// journalEntry is one entry of a journal. Each kind has some of the fields.
type journalEntry struct {
	kind   entryKind
	key    blockKey
	since  microTime
	at     microTime
	holder holderData
	until  microTime         // the end of a gap; of a position the latest event
	text   string            // of a gap its reason; of a position the database's epoch; of a checkpoint the note
	id     string            // of a position
	number uint64            // of a begin its file's, of entryKept the first one that is kept
	before uint64            // of a begin: the number of the log's entries before it
	hash   [sha256.Size]byte // of a begin: the chain before it
}

// hasBlock and hasHolder report which kinds have a block, and which a holder.
func (k entryKind) hasBlock() bool  { return k >= entryAllocated && k <= entryConfirmed }
func (k entryKind) hasHolder() bool { return k.hasBlock() && k != entryReleased }

// appendFields appends the entry without its holder.
func (e *journalEntry) appendFields(to []byte) []byte {
	to = append(to, byte(e.kind))
	if e.kind.hasBlock() {
		to = binary.BigEndian.AppendUint32(to, e.key.outside)
		to = binary.BigEndian.AppendUint16(to, uint16(e.key.first))
		to = binary.BigEndian.AppendUint16(to, uint16(e.key.last))
	}
	to = binary.AppendVarint(to, int64(e.at))
	switch e.kind {
	case entryPast:
		to = binary.AppendVarint(to, int64(e.at-e.since))
	case entryBegin:
		to = append(to, e.hash[:]...)
		to = binary.AppendUvarint(to, e.number)
		to = binary.AppendUvarint(to, e.before)
		to = appendString(to, e.text)
	case entryPosition:
		to = binary.AppendVarint(to, int64(e.until-e.at))
		to = appendString(to, e.text)
		to = appendString(to, e.id)
	case entryGap, entryReset:
		to = binary.AppendVarint(to, int64(e.until-e.at))
		to = appendString(to, e.text)
	case entrySigned:
		to = appendString(to, e.text)
	case entryKept:
		to = binary.AppendUvarint(to, e.number)
	}
	return to
}

// parseEntry reads an entry, which is all of raw. It returns the number of octets before the
// holder. The entry keeps raw.
func parseEntry(raw []byte) (e journalEntry, fields int, err error) {
	p := fieldReader{rest: raw}
	e.kind = entryKind(p.octets(1)[0])
	if e.kind.hasBlock() {
		b := p.octets(8)
		e.key = blockKey{binary.BigEndian.Uint32(b), nat.Port(binary.BigEndian.Uint16(b[4:])), nat.Port(binary.BigEndian.Uint16(b[6:]))}
		if e.key.last < e.key.first {
			return e, 0, errors.New("entry: a block without a port")
		}
	}
	e.at = microTime(p.varint())
	switch e.kind {
	case entryReleased:
	case entryPast:
		e.since = e.at - microTime(p.varint())
	case entryAllocated, entryConfirmed:
		e.since = e.at
	case entryBegin:
		copy(e.hash[:], p.octets(sha256.Size))
		e.number, e.before = p.uvarint(), p.uvarint()
		e.text = p.string()
	case entryPosition:
		e.until = e.at + microTime(p.varint())
		e.text, e.id = p.string(), p.string()
	case entryGap, entryReset:
		e.until = e.at + microTime(p.varint())
		e.text = p.string()
	case entrySigned:
		e.text = p.string()
	case entryKept:
		e.number = p.uvarint()
	default:
		return e, 0, fmt.Errorf("entry of unknown kind %d", e.kind)
	}
	if p.cut {
		return e, 0, errors.New("entry: cut off")
	}
	fields = len(raw) - len(p.rest)
	switch {
	case e.kind.hasHolder():
		e.holder, err = parseHolder(p.rest)
	case len(p.rest) > 0:
		err = fmt.Errorf("entry: %d octets too many", len(p.rest))
	}
	return e, fields, err
}

// leafOf returns the hash of an entry: of its fields, and of its holder by its commitment, so
// that it outlives an erasure.
func leafOf(fields []byte, kind entryKind, h *holderData) [sha256.Size]byte {
	if !kind.hasHolder() {
		return sha256.Sum256(fields)
	}
	c := h.commitment()
	var room [128]byte
	return sha256.Sum256(append(append(room[:0], fields...), c[:]...))
}

// chainHash is the hash of all leaves up to one.
type chainHash [sha256.Size]byte

// checkSize is the number of octets of the chain that each record has with it. They tell
// which one is the first that is not as it was written.
const checkSize = 2

// next returns the chain behind a further leaf.
func (c chainHash) next(leaf [sha256.Size]byte) chainHash {
	var room [2 * sha256.Size]byte
	copy(room[:], c[:])
	copy(room[sha256.Size:], leaf[:])
	return sha256.Sum256(room[:])
}

// fieldReader reads fields one by one. Behind the end they are zero, and cut is set.
type fieldReader struct {
	rest []byte
	cut  bool
}

func (p *fieldReader) octets(n int) []byte {
	if n < 0 || n > len(p.rest) {
		p.cut, p.rest = true, nil
		return make([]byte, min(max(n, 1), 64))
	}
	b := p.rest[:n]
	p.rest = p.rest[n:]
	return b
}

func (p *fieldReader) varint() int64 {
	v, n := binary.Varint(p.rest)
	if n <= 0 {
		p.cut, p.rest = true, nil
		return 0
	}
	p.rest = p.rest[n:]
	return v
}

func (p *fieldReader) uvarint() uint64 {
	v, n := binary.Uvarint(p.rest)
	if n <= 0 {
		p.cut, p.rest = true, nil
		return 0
	}
	p.rest = p.rest[n:]
	return v
}

func (p *fieldReader) string() string { return string(p.slice()) }

func (p *fieldReader) slice() []byte {
	n := p.uvarint()
	if n > uint64(len(p.rest)) {
		p.cut, p.rest = true, nil
		return nil
	}
	return p.octets(int(n))
}
