package history

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/bits"
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
		e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderCRC(false), zstd.WithSingleSegment(true))
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

// errBlock: a block is no block of its kind.
var errBlock = errors.New("block: cut off")

// blockRows is the number of rows in each block of a table but the last one. Of spans it is
// a power of two: a block is a subtree of the Merkle tree.
const (
	spanRows   = 1 << spanLevel
	spanLevel  = 8
	holderRows = 256
	insideRows = 512
)

// A block has a CRC-32C, and parts that are compressed each by itself: digits compress badly
// beside random octets. The first part, the head, has the small numbers.
type partWriter struct {
	head  []byte
	parts [][]byte
}

// leastPacked is the number of octets below which a part is not compressed.
const leastPacked = 24

// append appends the block.
func (w *partWriter) append(to []byte) []byte {
	at := len(to)
	to = append(to, 0, 0, 0, 0)
	to = binary.AppendUvarint(to, uint64(1+len(w.parts)))
	to = appendPart(to, w.head)
	for _, p := range w.parts {
		to = appendPart(to, p)
	}
	binary.BigEndian.PutUint32(to[at:], crc32.Checksum(to[at+4:], castagnoli))
	return to
}

func appendPart(to, part []byte) []byte {
	if len(part) >= leastPacked {
		if packed := blockEncoder().EncodeAll(part, nil); len(packed) < len(part) {
			return append(binary.AppendUvarint(to, uint64(len(packed))<<1|1), packed...)
		}
	}
	return append(binary.AppendUvarint(to, uint64(len(part))<<1), part...)
}

// octets adds a part of octets.
func (w *partWriter) octets(b []byte) { w.parts = append(w.parts, b) }

// numbers adds a column of numbers: a part for their lowest octets, one for the next, up to
// the highest that is not zero everywhere.
func (w *partWriter) numbers(column []uint64) {
	all := uint64(0)
	for _, n := range column {
		all |= n
	}
	planes := (bits.Len64(all) + 7) / 8
	w.head = append(w.head, byte(planes))
	for p := range planes {
		plane := make([]byte, len(column))
		for i, n := range column {
			plane[i] = byte(n >> (8 * p))
		}
		w.octets(plane)
	}
}

// mostListed bounds the different strings of a column that are listed.
const mostListed = 64

// strings adds a column of strings: if they are few different ones, a list of them, and their
// numbers in it.
func (w *partWriter) strings(column [][]byte) {
	seen := map[string]byte{}
	var list [][]byte
	for _, s := range column {
		if _, ok := seen[string(s)]; !ok {
			if len(list) == mostListed || 2*len(list) > len(column) {
				w.head = append(w.head, 0)
				w.shared(column)
				return
			}
			seen[string(s)] = byte(len(list))
			list = append(list, s)
		}
	}
	w.head = append(w.head, byte(len(list)))
	w.shared(list)
	numbers := make([]byte, len(column))
	for i, s := range column {
		numbers[i] = seen[string(s)]
	}
	w.octets(numbers)
}

// shared adds a column of strings: of each the octets in common with the one before, and the
// rest.
func (w *partWriter) shared(column [][]byte) {
	common, lengths := make([]uint64, len(column)), make([]uint64, len(column))
	var before, rest []byte
	for i, s := range column {
		n := 0
		for n < len(s) && n < len(before) && s[n] == before[n] {
			n++
		}
		common[i], lengths[i] = uint64(n), uint64(len(s)-n)
		rest = append(rest, s[n:]...)
		before = s
	}
	w.numbers(common)
	w.numbers(lengths)
	w.octets(rest)
}

// partReader reads a block. Behind an error everything is empty, and head.cut is set.
type partReader struct {
	head  fieldReader
	parts [][]byte
}

// readParts reads the parts of a block, which is all of raw.
func readParts(raw []byte) (*partReader, error) {
	if len(raw) < 4 || binary.BigEndian.Uint32(raw) != crc32.Checksum(raw[4:], castagnoli) {
		return nil, errBlock
	}
	p := fieldReader{rest: raw[4:]}
	n := p.uvarint()
	if n < 1 || n > uint64(len(p.rest)) {
		return nil, errBlock
	}
	parts := make([][]byte, n)
	total := 0
	for i := range parts {
		size := p.uvarint()
		if size>>1 > uint64(len(p.rest)) {
			return nil, errBlock
		}
		part := p.octets(int(size >> 1))
		if size&1 == 1 {
			var err error
			if part, err = blockDecoder().DecodeAll(part, nil); err != nil {
				return nil, errBlock
			}
		}
		if total += len(part); total > mostOfBlock {
			return nil, errBlock
		}
		parts[i] = part
	}
	if p.cut || len(p.rest) > 0 {
		return nil, errBlock
	}
	return &partReader{fieldReader{rest: parts[0]}, parts[1:]}, nil
}

// octets returns a part of n octets; of any number if n is negative.
func (r *partReader) octets(n int) []byte {
	if r.head.cut || len(r.parts) == 0 || n >= 0 && len(r.parts[0]) != n {
		r.head.cut = true
		return make([]byte, max(n, 0))
	}
	part := r.parts[0]
	r.parts = r.parts[1:]
	return part
}

func (r *partReader) numbers(n int) []uint64 {
	column := make([]uint64, n)
	planes := int(r.head.octets(1)[0])
	if planes > 8 {
		r.head.cut = true
		return column
	}
	for p := range planes {
		for i, b := range r.octets(n) {
			column[i] |= uint64(b) << (8 * p)
		}
	}
	return column
}

func (r *partReader) strings(n int) [][]byte {
	size := int(r.head.octets(1)[0])
	if size == 0 {
		return r.shared(n)
	}
	list := r.shared(size)
	column := make([][]byte, n)
	for i, number := range r.octets(n) {
		if int(number) >= len(list) {
			r.head.cut = true
			return column
		}
		column[i] = list[number]
	}
	return column
}

func (r *partReader) shared(n int) [][]byte {
	column := make([][]byte, n)
	common, lengths, rest := r.numbers(n), r.numbers(n), r.octets(-1)
	var total, before uint64
	for i := range column {
		if common[i] > before || lengths[i] > uint64(len(rest)) {
			r.head.cut = true
			return column
		}
		before = common[i] + lengths[i]
		if total += before; total > mostOfBlock {
			r.head.cut = true
			return column
		}
	}
	room := make([]byte, 0, total)
	var last []byte
	for i := range column {
		if lengths[i] > uint64(len(rest)) {
			r.head.cut = true
			return column
		}
		at := len(room)
		room = append(append(room, last[:common[i]]...), rest[:lengths[i]]...)
		rest = rest[lengths[i]:]
		last = room[at:len(room):len(room)]
		column[i] = last
	}
	if len(rest) > 0 {
		r.head.cut = true
	}
	return column
}

// done reports whether everything was read.
func (r *partReader) done() error {
	if r.head.cut || len(r.head.rest) > 0 || len(r.parts) > 0 {
		return errBlock
	}
	return nil
}

// encodeSpans appends a block of spans.
func encodeSpans(to []byte, spans []span, checks []byte) []byte {
	first := never
	for i := range spans {
		first = min(first, spans[i].allocated)
	}
	var columns [7][]uint64
	before := uint32(0)
	for i := range spans {
		s := &spans[i]
		released := uint64(0)
		if s.released != never {
			released = uint64(s.released-s.allocated) + 1
		}
		for c, n := range [...]uint64{
			uint64(s.outside - before), uint64(s.first), uint64(s.last - s.first), uint64(s.allocated - first),
			released, uint64(s.vacant - s.released), s.ref,
		} {
			columns[c] = append(columns[c], n)
		}
		before = s.outside
	}
	w := partWriter{head: binary.AppendVarint(nil, int64(first))}
	for _, c := range columns {
		w.numbers(c)
	}
	w.octets(checks)
	return w.append(to)
}

// decodeSpans reads a block of n spans.
func decodeSpans(raw []byte, n int, from holderSource) (spans []span, checks []byte, err error) {
	r, err := readParts(raw)
	if err != nil {
		return nil, nil, err
	}
	first := microTime(r.head.varint())
	var columns [7][]uint64
	for c := range columns {
		columns[c] = r.numbers(n)
	}
	checks = r.octets(n * checkSize)
	spans = make([]span, n)
	before := uint32(0)
	for i := range spans {
		before += uint32(columns[0][i])
		s := span{
			blockKey:  blockKey{before, nat.Port(columns[1][i]), nat.Port(columns[1][i] + columns[2][i])},
			allocated: first + microTime(columns[3][i]), released: never, from: from, ref: columns[6][i],
		}
		if d := columns[4][i]; d > 0 {
			s.released = s.allocated + microTime(d-1)
		}
		s.vacant = s.released + microTime(columns[5][i])
		spans[i] = s
	}
	return spans, checks, r.done()
}

// holderRow is a holder with the numbers of its spans.
type holderRow struct {
	holderData
	spans []uint64
}

// encodeHolders appends a block of holders.
func encodeHolders(to []byte, rows []holderRow) ([]byte, error) {
	var w partWriter
	columns := [fieldCount][][]byte{}
	var forms, secrets []byte
	var counts, numbers []uint64
	for i := range rows {
		h := &rows[i]
		var fields [fieldCount][]byte
		if h.identity == nil {
			forms, secrets = append(forms, formErased), append(secrets, h.hash[:]...)
		} else {
			var err error
			if fields, err = splitFields(h.identity); err != nil {
				return nil, err
			}
			forms, secrets = append(forms, formIdentity), append(secrets, h.salt[:]...)
		}
		for f := range fields {
			columns[f] = append(columns[f], fields[f])
		}
		counts = append(counts, uint64(len(h.spans)))
		numbers = append(numbers, h.spans...)
	}
	w.octets(forms)
	for _, c := range columns {
		w.strings(c)
	}
	w.octets(secrets)
	w.numbers(counts)
	w.head = binary.AppendUvarint(w.head, uint64(len(numbers)))
	w.numbers(numbers)
	return w.append(to), nil
}

// everyRow lets decodeHolders read all rows.
const everyRow = -1

// decodeHolders reads a block of n holders, of which only one row or everyRow is filled.
func decodeHolders(raw []byte, n, only int) ([]holderRow, error) {
	r, err := readParts(raw)
	if err != nil {
		return nil, err
	}
	rows := make([]holderRow, n)
	forms := r.octets(n)
	var columns [fieldCount][][]byte
	for f := range columns {
		columns[f] = r.strings(n)
	}
	secrets := fieldReader{rest: r.octets(-1)}
	counts := r.numbers(n)
	total := r.head.uvarint()
	if r.head.cut || total > mostOfBlock/8 {
		return nil, errBlock
	}
	numbers := r.numbers(int(total))
	if err := r.done(); err != nil {
		return nil, err
	}
	for i := range rows {
		h := &rows[i]
		if forms[i] > formErased || counts[i] > uint64(len(numbers)) {
			return nil, errBlock
		}
		h.spans, numbers = numbers[:counts[i]:counts[i]], numbers[counts[i]:]
		if forms[i] == formErased {
			copy(h.hash[:], secrets.octets(len(h.hash)))
		} else {
			salt := secrets.octets(saltSize)
			if only != everyRow && only != i {
				continue
			}
			copy(h.salt[:], salt)
			var fields [fieldCount][]byte
			for f := range fields {
				fields[f] = columns[f][i]
			}
			h.identity = joinFields(nil, &fields)
		}
	}
	if secrets.cut || len(secrets.rest) > 0 || len(numbers) > 0 {
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
	column, holders := make([][]byte, len(rows)), make([]uint64, len(rows))
	for i := range rows {
		column[i], holders[i] = rows[i].inside, rows[i].holder
	}
	var w partWriter
	w.shared(column)
	w.numbers(holders)
	return w.append(to)
}

func decodeInsides(raw []byte, n int) ([]insideRow, error) {
	r, err := readParts(raw)
	if err != nil {
		return nil, err
	}
	column, holders := r.shared(n), r.numbers(n)
	rows := make([]insideRow, n)
	for i := range rows {
		rows[i] = insideRow{column[i], holders[i]}
	}
	return rows, r.done()
}

// encodeIndex appends the index of a table: the first key and the length of each block.
func encodeIndex(to []byte, t *tableIndex) []byte {
	lengths := make([]uint64, len(t.keys))
	for i := range lengths {
		lengths[i] = uint64(t.offsets[i+1] - t.offsets[i])
	}
	var w partWriter
	w.shared(t.keys)
	w.numbers(lengths)
	return w.append(to)
}

// decodeIndex reads the index of a table of n blocks, which begin and end there.
func decodeIndex(raw []byte, n int, begin, end int64) (t tableIndex, err error) {
	r, err := readParts(raw)
	if err != nil {
		return t, err
	}
	t.keys, t.offsets = r.shared(n), []int64{begin}
	for _, length := range r.numbers(n) {
		if length > uint64(end-begin) {
			return t, errBlock
		}
		begin += int64(length)
		t.offsets = append(t.offsets, begin)
	}
	return t, r.done()
}
