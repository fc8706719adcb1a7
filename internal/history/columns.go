package history

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"math/bits"
	"slices"
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
	parts [][]byte // as they are stored
}

// leastPacked is the number of octets below which a part is not compressed.
const leastPacked = 24

// append appends the block.
func (w *partWriter) append(to []byte) []byte {
	at := len(to)
	to = append(to, 0, 0, 0, 0)
	to = binary.AppendUvarint(to, uint64(1+len(w.parts)))
	to = append(to, packPart(w.head)...)
	for _, p := range w.parts {
		to = append(to, p...)
	}
	binary.BigEndian.PutUint32(to[at:], crc32.Checksum(to[at+4:], castagnoli))
	return to
}

// packPart returns a part as it is stored: its length, whether it is compressed, and its octets.
func packPart(part []byte) []byte {
	room := make([]byte, 0, len(part)+binary.MaxVarintLen64)
	if len(part) >= leastPacked {
		if packed := blockEncoder().EncodeAll(part, nil); len(packed) < len(part) {
			return append(binary.AppendUvarint(room, uint64(len(packed))<<1|1), packed...)
		}
	}
	return append(binary.AppendUvarint(room, uint64(len(part))<<1), part...)
}

// octets adds a part of octets.
func (w *partWriter) octets(b []byte) { w.parts = append(w.parts, packPart(b)) }

// size returns the octets of the writer's parts.
func (w *partWriter) size() int {
	n := len(w.head)
	for _, p := range w.parts {
		n += len(p)
	}
	return n
}

// shortest adds what one of the ways to write a column adds: the one with the fewest octets. The
// head tells which.
func (w *partWriter) shortest(ways ...func(*partWriter) bool) {
	var best partWriter
	chosen := -1
	for i, way := range ways {
		var try partWriter
		if way(&try) && (chosen < 0 || try.size() < best.size()) {
			best, chosen = try, i
		}
	}
	w.head = append(append(w.head, byte(chosen)), best.head...)
	w.parts = append(w.parts, best.parts...)
}

// The forms of a column of numbers, besides 0 to 8 planes of octets.
const (
	formSparse = 0x40 // which ones are not zero, and those
	formBits   = 0x80 // with the number of bits of each
)

// numbers adds a column of numbers. Those that are zero are left out where they are many. The
// others are a part for their lowest octets, one for the next, up to the highest that is not zero
// everywhere; or bits without a gap, where compression gains less.
func (w *partWriter) numbers(column []uint64) {
	all, zeros := uint64(0), 0
	for _, n := range column {
		all |= n
		if n == 0 {
			zeros++
		}
	}
	if all != 0 && zeros > len(column)/8 {
		which, rest := make([]byte, (len(column)+7)/8), make([]uint64, 0, len(column)-zeros)
		for i, n := range column {
			if n != 0 {
				which[i/8] |= 1 << (i % 8)
				rest = append(rest, n)
			}
		}
		w.head = append(w.head, formSparse)
		w.octets(which)
		w.dense(rest, all)
		return
	}
	w.dense(column, all)
}

func (w *partWriter) dense(column []uint64, all uint64) {
	width := bits.Len64(all)
	planes := (width + 7) / 8
	parts, size := make([][]byte, planes), 0
	for p := range planes {
		plane := make([]byte, len(column))
		for i, n := range column {
			plane[i] = byte(n >> (8 * p))
		}
		parts[p] = packPart(plane)
		size += len(parts[p])
	}
	if (len(column)*width+7)/8+2 < size {
		w.head = append(w.head, formBits|byte(width))
		w.octets(packBits(column, width))
		return
	}
	w.head = append(w.head, byte(planes))
	w.parts = append(w.parts, parts...)
}

// packBits returns numbers of so many bits, the lowest bit first.
func packBits(column []uint64, width int) []byte {
	packed := make([]byte, (len(column)*width+7)/8)
	at := 0
	for _, n := range column {
		for left := width; left > 0; {
			room := min(8-at%8, left)
			packed[at/8] |= byte(n) << (at % 8) // what is beyond the room is cut off
			n >>= room
			at, left = at+room, left-room
		}
	}
	return packed
}

// mostListed bounds the different strings of a column that are listed.
const mostListed = 64

// strings adds a column of strings.
func (w *partWriter) strings(column [][]byte) {
	w.shortest(
		func(w *partWriter) bool { return w.listed(column) },
		func(w *partWriter) bool { w.shared(column); return true },
		func(w *partWriter) bool { return w.shaped(column) },
	)
}

// listed adds a column of few different strings: a list of them, and their numbers in it.
func (w *partWriter) listed(column [][]byte) bool {
	seen := map[string]uint64{}
	var list [][]byte
	numbers := make([]uint64, len(column))
	for i, s := range column {
		n, ok := seen[string(s)]
		if !ok {
			if len(list) == mostListed || 2*len(list) > len(column) {
				return false
			}
			n = uint64(len(list))
			seen[string(s)] = n
			list = append(list, s)
		}
		numbers[i] = n
	}
	w.head = append(w.head, byte(len(list)))
	w.shared(list)
	w.numbers(numbers)
	return true
}

// mostShapes bounds the shapes of a column.
const mostShapes = 4

// groupDigits is the number of hexadecimal digits that are one number.
const groupDigits = 8

// shaped adds a column of strings that differ in hexadecimal digits only, such as addresses of
// stations: a list of shapes, which have 0 for each digit, their numbers, and the digits as
// numbers, those at one place of one shape together.
func (w *partWriter) shaped(column [][]byte) bool {
	seen := map[string]uint64{}
	var shapes [][]byte
	numbers := make([]uint64, len(column))
	for i, s := range column {
		shape := make([]byte, len(s))
		for k, c := range s {
			if c == 0 {
				return false
			}
			if digitOf(c) < 0 {
				shape[k] = c
			}
		}
		n, ok := seen[string(shape)]
		if !ok {
			if len(shapes) == mostShapes {
				return false
			}
			n = uint64(len(shapes))
			seen[string(shape)] = n
			shapes = append(shapes, shape)
		}
		numbers[i] = n
	}
	w.head = append(w.head, byte(len(shapes)))
	w.shared(shapes)
	w.numbers(numbers)
	for n, shape := range shapes {
		places := digitPlaces(shape)
		for len(places) > 0 {
			group := places[:min(groupDigits, len(places))]
			places = places[len(group):]
			var digits []uint64
			for i, s := range column {
				if numbers[i] != uint64(n) {
					continue
				}
				value := uint64(0)
				for _, k := range group {
					value = value<<4 | uint64(digitOf(s[k]))
				}
				digits = append(digits, value)
			}
			w.numbers(digits)
		}
	}
	return true
}

// digitOf returns the value of a hexadecimal digit in lower case, negative for another octet.
func digitOf(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	}
	return -1
}

func digitPlaces(shape []byte) (places []int) {
	for i, c := range shape {
		if c == 0 {
			places = append(places, i)
		}
	}
	return places
}

// addresses adds a column of addresses: as strings, as numbers from the lowest on, or each by its
// distance from the one before.
func (w *partWriter) addresses(column [][]byte) {
	numbers, steps, lowest := make([]uint64, len(column)), make([]uint64, len(column)), uint64(math.MaxUint32)
	all4 := true
	for i, a := range column {
		if len(a) != 4 {
			all4 = false
			break
		}
		numbers[i] = uint64(binary.BigEndian.Uint32(a))
		lowest = min(lowest, numbers[i])
	}
	before := lowest
	for i, n := range numbers {
		steps[i] = uint64(uint32(n - before))
		before = n
		numbers[i] -= lowest
	}
	as := func(column []uint64) func(*partWriter) bool {
		return func(w *partWriter) bool {
			if all4 {
				w.head = binary.AppendUvarint(w.head, lowest)
				w.numbers(column)
			}
			return all4
		}
	}
	w.shortest(func(w *partWriter) bool { w.shared(column); return true }, as(numbers), as(steps))
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
	only  int       // the row that is needed of strings, or everyRow
	room  *[]uint64 // of columns, until free
}

// columnRoom has room for the columns of a block: they are most of the octets of a lookup.
var columnRoom = sync.Pool{New: func() any { return new(make([]uint64, 0, 64*spanRows)) }}

// free ends the use of the columns that were read.
func (r *partReader) free() {
	*r.room = (*r.room)[:0]
	columnRoom.Put(r.room)
}

// column returns a column of zeros.
func (r *partReader) column(n int) []uint64 {
	at := len(*r.room)
	if n > cap(*r.room)-at {
		return make([]uint64, n)
	}
	*r.room = (*r.room)[:at+n]
	column := (*r.room)[at : at+n : at+n]
	clear(column)
	return column
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
	return &partReader{fieldReader{rest: parts[0]}, parts[1:], everyRow, columnRoom.Get().(*[]uint64)}, nil
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
	form := r.head.octets(1)[0]
	if form != formSparse {
		return r.dense(n, form)
	}
	which := r.octets((n + 7) / 8)
	count := 0
	for i := range n {
		count += int(which[i/8] >> (i % 8) & 1)
	}
	rest := r.dense(count, r.head.octets(1)[0])
	column := r.column(n)
	for i := range column {
		if which[i/8]>>(i%8)&1 == 1 {
			column[i], rest = rest[0], rest[1:]
		}
	}
	return column
}

func (r *partReader) dense(n int, form byte) []uint64 {
	column := r.column(n)
	switch width := int(form &^ formBits); {
	case form&formBits != 0 && width <= 64:
		packed, at := r.octets((n*width+7)/8), 0
		for i := range column {
			for got := 0; got < width; {
				room := min(8-at%8, width-got)
				column[i] |= uint64(packed[at/8]>>(at%8)&(1<<room-1)) << got
				at, got = at+room, got+room
			}
		}
	case form <= 8:
		for p := range int(form) {
			for i, b := range r.octets(n) {
				column[i] |= uint64(b) << (8 * p)
			}
		}
	default:
		r.head.cut = true
	}
	return column
}

func (r *partReader) strings(n int) [][]byte {
	switch r.head.octets(1)[0] {
	case 0:
		return r.listed(n)
	case 1:
		return r.shared(n)
	case 2:
		return r.shaped(n)
	}
	r.head.cut = true
	return make([][]byte, n)
}

func (r *partReader) listed(n int) [][]byte {
	list := r.shared(int(r.head.octets(1)[0]))
	column := make([][]byte, n)
	for i, number := range r.numbers(n) {
		if number >= uint64(len(list)) {
			r.head.cut = true
			return column
		}
		column[i] = list[number]
	}
	return column
}

func (r *partReader) shaped(n int) [][]byte {
	shapes := r.shared(int(r.head.octets(1)[0]))
	type target struct {
		row []byte
		at  int // among those of its shape
	}
	targets, counts := make([][]target, len(shapes)), make([]int, len(shapes))
	column := make([][]byte, n)
	total := 0
	for i, number := range r.numbers(n) {
		if number >= uint64(len(shapes)) || total > mostOfBlock {
			r.head.cut = true
			return column
		}
		if r.only == everyRow || r.only == i {
			column[i] = bytes.Clone(shapes[number])
			total += len(column[i])
			targets[number] = append(targets[number], target{column[i], counts[number]})
		}
		counts[number]++
	}
	for number, shape := range shapes {
		places := digitPlaces(shape)
		for len(places) > 0 {
			group := places[:min(groupDigits, len(places))]
			places = places[len(group):]
			digits := r.numbers(counts[number])
			for _, t := range targets[number] {
				value := digits[t.at]
				for k := len(group) - 1; k >= 0; k-- {
					t.row[group[k]] = "0123456789abcdef"[value&15]
					value >>= 4
				}
				if value != 0 {
					r.head.cut = true
				}
			}
		}
	}
	return column
}

func (r *partReader) addresses(n int) [][]byte {
	switch form := r.head.octets(1)[0]; form {
	case 0:
		return r.shared(n)
	case 1, 2:
		from := r.head.uvarint()
		column, room := make([][]byte, n), make([]byte, 0, 4*n)
		for _, number := range r.numbers(n) {
			room = binary.BigEndian.AppendUint32(room, uint32(from+number))
			if form == 2 {
				from += number
			}
		}
		for i := range column {
			column[i] = room[4*i : 4*i+4 : 4*i+4]
		}
		return column
	}
	r.head.cut = true
	return make([][]byte, n)
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

// spanBlock is a block of spans, with their checks and salts.
type spanBlock struct {
	spans  []span
	checks []byte
	salts  blockSalts
}

// encodeSpans appends a block of spans.
func encodeSpans(to []byte, b *spanBlock) []byte {
	spans := b.spans
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
	w.octets(b.checks)
	w.octets(b.salts)
	return w.append(to)
}

// decodeSpans reads a block of n spans.
func decodeSpans(raw []byte, n int, from holderSource) (b spanBlock, err error) {
	r, err := readParts(raw)
	if err != nil {
		return b, err
	}
	defer r.free()
	first := microTime(r.head.varint())
	var columns [7][]uint64
	for c := range columns {
		columns[c] = r.numbers(n)
	}
	b.checks, b.salts = r.octets(n*checkSize), r.octets(-1)
	if !b.salts.valid() {
		return b, errBlock
	}
	b.spans = make([]span, n)
	before := uint32(0)
	for i := range b.spans {
		before += uint32(columns[0][i])
		s := span{
			blockKey:  blockKey{before, nat.Port(columns[1][i]), nat.Port(columns[1][i] + columns[2][i])},
			allocated: first + microTime(columns[3][i]), released: never, from: from, ref: columns[6][i],
		}
		if d := columns[4][i]; d > 0 {
			s.released = s.allocated + microTime(d-1)
		}
		s.vacant = s.released + microTime(columns[5][i])
		b.spans[i] = s
	}
	return b, r.done()
}

// holderRow is a holder with the blocks of its spans, one for each span. Its salt is in the
// first of them.
type holderRow struct {
	holderData
	number uint64 // of the row in its file
	spans  []uint64
}

// encodeHolders appends a block of holders.
func encodeHolders(to []byte, rows []holderRow) ([]byte, error) {
	var w partWriter
	columns := [fieldCount][][]byte{}
	var forms, hashes []byte
	var counts, numbers []uint64
	for i := range rows {
		h := &rows[i]
		var fields [fieldCount][]byte
		if h.identity == nil {
			forms, hashes = append(forms, formErased), append(hashes, h.hash[:]...)
		} else {
			var err error
			if fields, err = splitFields(h.identity); err != nil {
				return nil, err
			}
			forms = append(forms, formIdentity)
		}
		for f := range fields {
			columns[f] = append(columns[f], fields[f])
		}
		counts = append(counts, uint64(len(h.spans)))
		numbers = append(numbers, h.spans...)
	}
	w.octets(forms)
	for f, c := range columns {
		if f == fieldInside {
			w.addresses(c)
		} else {
			w.strings(c)
		}
	}
	w.octets(hashes)
	w.numbers(counts)
	w.head = binary.AppendUvarint(w.head, uint64(len(numbers)))
	w.numbers(numbers)
	return w.append(to), nil
}

// everyRow lets decodeHolders read all rows.
const everyRow = -1

// decodeHolders reads a block of n holders: all of them, or only one row.
func decodeHolders(raw []byte, n, only int) ([]holderRow, error) {
	r, err := readParts(raw)
	if err != nil {
		return nil, err
	}
	defer r.free()
	r.only = only
	forms := r.octets(n)
	var columns [fieldCount][][]byte
	for f := range columns {
		if f == fieldInside {
			columns[f] = r.addresses(n)
		} else {
			columns[f] = r.strings(n)
		}
	}
	hashes := fieldReader{rest: r.octets(-1)}
	counts := r.numbers(n)
	total := r.head.uvarint()
	if r.head.cut || total > mostOfBlock/8 {
		return nil, errBlock
	}
	numbers := r.numbers(int(total))
	if err := r.done(); err != nil {
		return nil, err
	}
	size := n
	if only == everyRow {
		numbers = slices.Clone(numbers)
	} else {
		size = 1
	}
	rows := make([]holderRow, 0, size)
	for i := range n {
		if forms[i] > formErased || counts[i] > uint64(len(numbers)) {
			return nil, errBlock
		}
		h := holderRow{spans: numbers[:counts[i]:counts[i]]}
		numbers = numbers[counts[i]:]
		if forms[i] == formErased {
			copy(h.hash[:], hashes.octets(len(h.hash)))
		}
		if only != everyRow && only != i {
			continue
		}
		if only == i {
			h.spans = slices.Clone(h.spans)
		}
		if forms[i] == formIdentity {
			var fields [fieldCount][]byte
			for f := range fields {
				fields[f] = columns[f][i]
			}
			h.identity = joinFields(nil, &fields)
		}
		rows = append(rows, h)
	}
	if hashes.cut || len(hashes.rest) > 0 || len(numbers) > 0 {
		return nil, errBlock
	}
	return rows, nil
}

// insideRow tells in which block a holder of an inside address is.
type insideRow struct {
	inside []byte
	block  uint64 // of holders
}

func encodeInsides(to []byte, rows []insideRow) []byte {
	column, blocks := make([][]byte, len(rows)), make([]uint64, len(rows))
	for i := range rows {
		column[i], blocks[i] = rows[i].inside, rows[i].block
	}
	var w partWriter
	w.addresses(column)
	w.numbers(blocks)
	return w.append(to)
}

func decodeInsides(raw []byte, n int) ([]insideRow, error) {
	r, err := readParts(raw)
	if err != nil {
		return nil, err
	}
	defer r.free()
	column, blocks := r.addresses(n), r.numbers(n)
	rows := make([]insideRow, n)
	for i := range rows {
		rows[i] = insideRow{column[i], blocks[i]}
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
	defer r.free()
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
