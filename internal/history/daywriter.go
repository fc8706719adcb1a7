package history

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"slices"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/sessiond/sessiond/internal/nat"
)

// A day's file has three tables, each a sequence of compressed blocks: spans by outside
// address and ports, holders by user, inside addresses. Behind them are the hashes of the
// blocks of spans, an index of each table, and the foot, which a trailer finds.
const (
	dayMagic   = "sessiond history day 1\n"
	tailMagic  = "hday0001"
	tailSize   = 4 + 4 + len(tailMagic)
	tableCount = 3
)

// The tables of a day's file.
const (
	tableSpans = iota
	tableHolders
	tableInsides
)

// dayContent is everything in a day's file.
type dayContent struct {
	dayNote
	list    []span // by block, then by time; ref is an index into holders
	holders []holderData
	salts   []blockSalts // nil: new ones; the holders' own do not count
}

// dayWriter writes a day's file.
type dayWriter struct {
	out    io.Writer
	size   int64
	tables [tableCount]tableIndex
	raw    []byte // of a block
	err    error
}

// tableIndex has the first key and the place of each block of a table.
type tableIndex struct {
	keys    [][]byte
	offsets []int64 // of the blocks, and of the end
}

// writeDay writes a day's file. It sorts the holders, and completes the note, which sign
// signs.
func writeDay(files diskFiles, path string, c *dayContent, sign func(text string) (string, error)) error {
	rows, err := c.sortHolders()
	if err != nil {
		return err
	}
	if c.salts == nil {
		c.salts = newSeeds((len(c.list) + spanRows - 1) / spanRows)
	}
	for i := range c.list {
		if row := &rows[c.list[i].ref]; len(row.spans) == 0 {
			row.salt = c.salts[i/spanRows].of(i % spanRows)
		}
		rows[c.list[i].ref].spans = append(rows[c.list[i].ref].spans, uint64(i/spanRows))
	}
	commitments := make([][sha256.Size]byte, len(rows))
	for i := range rows {
		commitments[i] = rows[i].commitment()
	}
	leaves := make([]tlog.Hash, len(c.list))
	checks := make([]byte, 0, checkSize*len(c.list))
	var room []byte
	c.chain = chainHash{}
	for i := range c.list {
		s := &c.list[i]
		room = s.leafData(room[:0], c.group, commitments[s.ref])
		leaves[i] = tlog.RecordHash(room)
		c.chain = c.chain.next(leaves[i])
		checks = append(checks, c.chain[:checkSize]...)
	}
	c.spans = uint64(len(c.list))
	if c.root, err = tlog.TreeHash(int64(len(leaves)), newTree(0, leaves, nil)); err != nil {
		return err
	}
	signed, err := sign(c.text())
	if err != nil {
		return fmt.Errorf("sign the checkpoint: %w", err)
	}
	return writeFile(files, path, func(out io.Writer) error {
		buffered := bufio.NewWriterSize(out, 1<<20)
		w := &dayWriter{out: buffered}
		w.write([]byte(dayMagic))
		w.spans(c.list, checks, c.salts)
		w.holders(rows)
		insides := w.insides(rows)
		for at := 0; at+spanRows <= len(leaves); at += spanRows {
			h := subtreeOf(leaves[at : at+spanRows])
			w.write(h[:])
		}
		w.foot(signed, c, len(rows), insides)
		if w.err == nil {
			w.err = buffered.Flush()
		}
		return w.err
	})
}

// sortHolders returns the holders by user, erased ones first, each once, and lets the spans
// refer to them.
func (c *dayContent) sortHolders() ([]holderRow, error) {
	order := make([]int, len(c.holders))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		x, y := &c.holders[a], &c.holders[b]
		if d := bytes.Compare(x.identity, y.identity); d != 0 {
			return d
		}
		return bytes.Compare(x.hash[:], y.hash[:])
	})
	numbers := make([]uint64, len(order))
	var rows []holderRow
	for _, i := range order {
		h := &c.holders[i]
		n := len(rows)
		if n > 0 && bytes.Equal(rows[n-1].identity, h.identity) && rows[n-1].hash == h.hash {
			numbers[i] = uint64(n - 1)
			continue
		}
		rows = append(rows, holderRow{holderData: *h})
		numbers[i] = uint64(n)
	}
	for i := range c.list {
		if c.list[i].ref >= uint64(len(numbers)) {
			return nil, fmt.Errorf("%w: a record has no holder", ErrDamaged)
		}
		c.list[i].ref = numbers[c.list[i].ref]
	}
	return rows, nil
}

func (w *dayWriter) write(b []byte) {
	if w.err != nil {
		return
	}
	n, err := w.out.Write(b)
	w.size, w.err = w.size+int64(n), err
}

// block writes w.raw as a block of a table.
func (w *dayWriter) block(table int, key []byte) {
	t := &w.tables[table]
	if len(t.offsets) == 0 {
		t.offsets = append(t.offsets, w.size)
	}
	w.write(w.raw)
	t.keys = append(t.keys, key)
	t.offsets = append(t.offsets, w.size)
}

func (w *dayWriter) spans(list []span, checks []byte, salts []blockSalts) {
	for at := 0; at < len(list); at += spanRows {
		end := min(at+spanRows, len(list))
		w.raw = encodeSpans(w.raw[:0], &spanBlock{list[at:end], checks[at*checkSize : end*checkSize], salts[at/spanRows]})
		w.block(tableSpans, spanKey(list[at].outside, list[at].first))
	}
}

// spanKey returns the octets by which the index of the spans is in order.
func spanKey(outside uint32, first nat.Port) []byte {
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint32(nil, outside), uint16(first))
}

func (w *dayWriter) holders(rows []holderRow) {
	for at := 0; at < len(rows) && w.err == nil; at += holderRows {
		end := min(at+holderRows, len(rows))
		if w.raw, w.err = encodeHolders(w.raw[:0], rows[at:end]); w.err == nil {
			w.block(tableHolders, userOf(rows[at].identity))
		}
	}
}

// insides writes the table of inside addresses, and returns the number of its rows.
func (w *dayWriter) insides(holders []holderRow) int {
	var rows []insideRow
	for i := range holders {
		if holders[i].identity == nil {
			continue
		}
		fields, err := splitFields(holders[i].identity)
		if err != nil {
			w.err = err
			return 0
		}
		rows = append(rows, insideRow{fields[fieldInside], uint64(i / holderRows)})
	}
	slices.SortFunc(rows, func(a, b insideRow) int {
		if d := bytes.Compare(a.inside, b.inside); d != 0 {
			return d
		}
		return compareNumbers(a.block, b.block)
	})
	for at := 0; at < len(rows); at += insideRows {
		end := min(at+insideRows, len(rows))
		w.raw = encodeInsides(w.raw[:0], rows[at:end])
		w.block(tableInsides, rows[at].inside)
	}
	return len(rows)
}

// foot writes the indexes, the foot and the trailer.
func (w *dayWriter) foot(signed string, c *dayContent, holders, insides int) {
	widest := 0
	for i := range c.list {
		widest = max(widest, int(c.list[i].last-c.list[i].first)+1)
	}
	foot := appendString(nil, signed)
	for _, n := range []uint64{c.number, uint64(c.from), uint64(len(c.list)), uint64(holders), uint64(insides), uint64(widest)} {
		foot = binary.AppendUvarint(foot, n)
	}
	for i := range w.tables {
		t := &w.tables[i]
		begin := w.size
		if len(t.offsets) > 0 {
			begin = t.offsets[0]
		}
		at := w.size
		w.write(encodeIndex(w.raw[:0], t))
		for _, n := range []uint64{uint64(begin), uint64(at), uint64(w.size - at)} {
			foot = binary.AppendUvarint(foot, n)
		}
	}
	w.write(foot)
	tail := binary.BigEndian.AppendUint32(nil, uint32(len(foot)))
	tail = binary.BigEndian.AppendUint32(tail, crc32.Checksum(foot, castagnoli))
	w.write(append(tail, tailMagic...))
}
