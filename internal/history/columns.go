package history

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"

	"github.com/sessiond/sessiond/internal/nat"
)

// mostOfBlock bounds the octets of a block before it is compressed.
const mostOfBlock = 64 << 20

// The one encoder and decoder of blocks. Their EncodeAll and DecodeAll may be called
// concurrently. Errors of the options would be mistakes of ours.
var (
	blockEncoder = sync.OnceValue(func() *zstd.Encoder {
		e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderCRC(true))
		if err != nil {
			panic(fmt.Sprintf("history: %v", err))
		}
		return e
	})
	blockDecoder = sync.OnceValue(func() *zstd.Decoder {
		d, err := zstd.NewReader(nil, zstd.WithDecoderMaxMemory(mostOfBlock))
		if err != nil {
			panic(fmt.Sprintf("history: %v", err))
		}
		return d
	})
)

// The forms of a column of strings.
const (
	formShared = iota // each by its octets in common with the one before, and the rest
	formListed        // few different ones, by their number in a list
)

// mostListed bounds the different strings of a column that is formListed.
const mostListed = 64

// appendStrings appends a column of strings.
func appendStrings(to []byte, column [][]byte) []byte {
	numbers := map[string]byte{}
	var list [][]byte
	for _, s := range column {
		if _, ok := numbers[string(s)]; !ok {
			if len(list) == mostListed || 2*len(list) > len(column) {
				return appendShared(append(to, formShared), column)
			}
			numbers[string(s)] = byte(len(list))
			list = append(list, s)
		}
	}
	to = append(to, formListed)
	to = appendShared(binary.AppendUvarint(to, uint64(len(list))), list)
	for _, s := range column {
		to = append(to, numbers[string(s)])
	}
	return to
}

func appendShared(to []byte, column [][]byte) []byte {
	var before []byte
	var rest []byte
	for _, s := range column {
		n := 0
		for n < len(s) && n < len(before) && s[n] == before[n] {
			n++
		}
		to = binary.AppendUvarint(binary.AppendUvarint(to, uint64(n)), uint64(len(s)-n))
		rest = append(rest, s[n:]...)
		before = s
	}
	return append(to, rest...)
}

// strings reads a column of n strings.
func (p *fieldReader) strings(n int) [][]byte {
	if p.octets(1)[0] == formShared {
		return p.shared(n)
	}
	size := p.uvarint()
	if size > mostListed {
		p.cut = true
	}
	if p.cut {
		return nil
	}
	list := p.shared(int(size))
	column := make([][]byte, n)
	for i, number := range p.octets(n) {
		if p.cut || int(number) >= len(list) {
			p.cut = true
			return nil
		}
		column[i] = list[number]
	}
	return column
}

func (p *fieldReader) shared(n int) [][]byte {
	if n > len(p.rest) { // each has two octets at least
		p.cut = true
		return nil
	}
	type part struct{ common, rest uint64 }
	parts := make([]part, n)
	var total, before uint64
	for i := range parts {
		x := part{p.uvarint(), p.uvarint()}
		if x.common > before || x.rest > uint64(len(p.rest)) {
			p.cut = true
			return nil
		}
		before = x.common + x.rest
		if total += before; total > mostOfBlock {
			p.cut = true
			return nil
		}
		parts[i] = x
	}
	room := make([]byte, 0, total)
	column := make([][]byte, n)
	var last []byte
	for i, x := range parts {
		at := len(room)
		room = append(room, last[:x.common]...)
		room = append(room, p.octets(int(x.rest))...)
		if p.cut {
			return nil
		}
		last = room[at:len(room):len(room)]
		column[i] = last
	}
	return column
}

// errBlock: a block is no block of its kind.
var errBlock = errors.New("block: cut off")

// blockRows is the number of rows in each block of a table but the last one. Of spans it is
// a power of two: a block is a subtree of the Merkle tree.
const (
	spanRows   = 1 << spanLevel
	spanLevel  = 8
	holderRows = 128
	insideRows = 512
)

// encodeSpans writes a block of spans. base is the beginning of the file.
func encodeSpans(to []byte, spans []span, checks []byte, base microTime) []byte {
	before := uint32(0)
	for i := range spans {
		to = binary.AppendUvarint(to, uint64(spans[i].outside-before))
		before = spans[i].outside
	}
	for i := range spans {
		to = binary.AppendUvarint(to, uint64(spans[i].first))
	}
	for i := range spans {
		to = binary.AppendUvarint(to, uint64(spans[i].last-spans[i].first))
	}
	for i := range spans {
		to = binary.AppendVarint(to, int64(spans[i].allocated-base))
	}
	for i := range spans {
		n := uint64(0)
		if s := &spans[i]; s.released != never {
			n = uint64(s.released-s.allocated) + 1
		}
		to = binary.AppendUvarint(to, n)
	}
	for i := range spans {
		n := uint64(0)
		if s := &spans[i]; s.vacant != s.released {
			n = uint64(s.vacant - s.released)
		}
		to = binary.AppendUvarint(to, n)
	}
	for i := range spans {
		to = binary.AppendUvarint(to, spans[i].ref)
	}
	return append(to, checks...)
}

// decodeSpans reads a block of n spans.
func decodeSpans(raw []byte, n int, base microTime, from holderSource) (spans []span, checks []byte, err error) {
	if n > len(raw) {
		return nil, nil, errBlock
	}
	p := fieldReader{rest: raw}
	spans = make([]span, n)
	before := uint32(0)
	for i := range spans {
		before += uint32(p.uvarint())
		spans[i].outside, spans[i].from = before, from
	}
	for i := range spans {
		spans[i].first = nat.Port(p.uvarint())
	}
	for i := range spans {
		spans[i].last = spans[i].first + nat.Port(p.uvarint())
	}
	for i := range spans {
		spans[i].allocated = base + microTime(p.varint())
	}
	for i := range spans {
		s := &spans[i]
		s.released = never
		if d := p.uvarint(); d > 0 {
			s.released = s.allocated + microTime(d-1)
		}
		s.vacant = s.released
	}
	for i := range spans {
		spans[i].vacant += microTime(p.uvarint())
	}
	for i := range spans {
		spans[i].ref = p.uvarint()
	}
	checks = p.octets(n * checkSize)
	if p.cut || len(p.rest) > 0 {
		return nil, nil, errBlock
	}
	return spans, checks, nil
}

// holderRow is a holder with the numbers of its spans.
type holderRow struct {
	holderData
	spans []uint64
}

// encodeHolders writes a block of holders.
func encodeHolders(to []byte, rows []holderRow) ([]byte, error) {
	columns := [fieldCount][][]byte{}
	for i := range rows {
		form := byte(formIdentity)
		var fields [fieldCount][]byte
		if rows[i].identity == nil {
			form = formErased
		} else {
			var err error
			if fields, err = splitFields(rows[i].identity); err != nil {
				return nil, err
			}
		}
		to = append(to, form)
		for f := range fields {
			columns[f] = append(columns[f], fields[f])
		}
	}
	for _, c := range columns {
		to = appendStrings(to, c)
	}
	for i := range rows {
		if rows[i].identity == nil {
			to = append(to, rows[i].hash[:]...)
		} else {
			to = append(to, rows[i].salt[:]...)
		}
	}
	for i := range rows {
		to = binary.AppendUvarint(to, uint64(len(rows[i].spans)))
	}
	for i := range rows {
		before := uint64(0)
		for _, n := range rows[i].spans {
			to = binary.AppendUvarint(to, n-before)
			before = n
		}
	}
	return to, nil
}

// decodeHolders reads a block of n holders.
func decodeHolders(raw []byte, n int) ([]holderRow, error) {
	if n > len(raw) {
		return nil, errBlock
	}
	p := fieldReader{rest: raw}
	rows := make([]holderRow, n)
	forms := p.octets(n)
	var columns [fieldCount][][]byte
	for f := range columns {
		if columns[f] = p.strings(n); p.cut {
			return nil, errBlock
		}
	}
	for i := range rows {
		switch forms[i] {
		case formErased:
			copy(rows[i].hash[:], p.octets(len(rows[i].hash)))
		case formIdentity:
			copy(rows[i].salt[:], p.octets(saltSize))
			var fields [fieldCount][]byte
			for f := range fields {
				fields[f] = columns[f][i]
			}
			rows[i].identity = joinFields(nil, &fields)
		default:
			return nil, errBlock
		}
	}
	for i := range rows {
		size := p.uvarint()
		if size > uint64(len(p.rest)) {
			return nil, errBlock
		}
		rows[i].spans = make([]uint64, size)
	}
	for i := range rows {
		before := uint64(0)
		for k := range rows[i].spans {
			before += p.uvarint()
			rows[i].spans[k] = before
		}
	}
	if p.cut || len(p.rest) > 0 {
		return nil, errBlock
	}
	return rows, nil
}

// insideRow tells which holder has an inside address.
type insideRow struct {
	inside []byte
	holder uint64
}

func encodeInsides(to []byte, rows []insideRow) []byte {
	column := make([][]byte, len(rows))
	for i := range rows {
		column[i] = rows[i].inside
	}
	to = appendShared(to, column)
	for i := range rows {
		to = binary.AppendUvarint(to, rows[i].holder)
	}
	return to
}

func decodeInsides(raw []byte, n int) ([]insideRow, error) {
	p := fieldReader{rest: raw}
	column := p.shared(n)
	if p.cut {
		return nil, errBlock
	}
	rows := make([]insideRow, n)
	for i := range rows {
		rows[i] = insideRow{column[i], p.uvarint()}
	}
	if p.cut || len(p.rest) > 0 {
		return nil, errBlock
	}
	return rows, nil
}
