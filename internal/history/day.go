package history

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"os"
	"slices"
	"sync"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/sessiond/sessiond/internal/nat"
)

// errRemoved: the retention removed a file.
var errRemoved = errors.New("the file was removed by the retention")

// dayFile is a day's file, which is read when it is asked for.
type dayFile struct {
	path   string
	number uint64
	from   microTime

	mu      sync.RWMutex // of what follows; held for reading while the file is read
	removed bool
	reader  *dayReader
}

// dayReader reads a day's file that is open. Its methods may be called concurrently.
type dayReader struct {
	path   string
	file   io.ReaderAt
	note   string // signed
	number uint64
	from   microTime
	counts [tableCount]int
	widest int // ports of the largest block
	tables [tableCount]tableIndex
	hashes int64 // where those of the blocks of spans are
}

// with calls use with the file's reader.
func (d *dayFile) with(use func(*dayReader) error) error {
	for {
		d.mu.RLock()
		if d.reader != nil {
			defer d.mu.RUnlock()
			return use(d.reader)
		}
		removed := d.removed
		d.mu.RUnlock()
		if removed {
			return errRemoved
		}
		if err := d.load(); err != nil {
			return err
		}
	}
}

// load opens the file and reads its indexes.
func (d *dayFile) load() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.reader != nil || d.removed {
		return nil
	}
	f, err := os.Open(d.path)
	if err != nil {
		return err
	}
	r, err := newDayReader(d.path, f)
	if err == nil && (r.number != d.number || r.from != d.from) {
		err = fmt.Errorf("%w: %s is file %d from %s by its content", ErrDamaged, d.path, r.number, r.from.text())
	}
	if err != nil {
		_ = f.Close() // only read
		return err
	}
	d.reader = r
	return nil
}

// close closes the file. A removed one is not opened again.
func (d *dayFile) close(removed bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.reader != nil {
		if f, ok := d.reader.file.(*os.File); ok {
			_ = f.Close() // only read
		}
		d.reader = nil
	}
	d.removed = d.removed || removed
}

// newDayReader reads the foot and the indexes of a file.
func newDayReader(path string, f *os.File) (*dayReader, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	r, err := parseDay(f, info.Size())
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrDamaged, path, err)
	}
	r.path = path
	return r, nil
}

// parseDay reads the foot and the indexes of a file of so many octets.
func parseDay(f io.ReaderAt, size int64) (*dayReader, error) {
	tail := make([]byte, tailSize)
	if size < int64(len(dayMagic)+tailSize) {
		return nil, fmt.Errorf("cut off at octet %d", size)
	}
	if _, err := f.ReadAt(tail, size-int64(tailSize)); err != nil {
		return nil, err
	}
	n := int64(binary.BigEndian.Uint32(tail))
	if string(tail[8:]) != tailMagic || n > size-int64(tailSize) {
		return nil, fmt.Errorf("no end of a day's file at octet %d: cut off, or another file", size)
	}
	foot := make([]byte, n)
	if _, err := f.ReadAt(foot, size-int64(tailSize)-n); err != nil {
		return nil, err
	}
	if crc32.Checksum(foot, castagnoli) != binary.BigEndian.Uint32(tail[4:]) {
		return nil, errors.New("its foot is not as it was written")
	}
	p := fieldReader{rest: foot}
	r := &dayReader{file: f, note: p.string(), number: p.uvarint(), from: microTime(p.uvarint())}
	for i := range r.counts {
		r.counts[i] = int(min(p.uvarint(), 1<<40))
	}
	r.widest = int(min(p.uvarint(), 1<<16))
	for i, rows := range [tableCount]int{spanRows, holderRows, insideRows} {
		begin, at, length := p.uvarint(), p.uvarint(), p.uvarint()
		if p.cut || at > uint64(size) || length > uint64(size)-at || begin > at {
			return nil, errors.New("its foot leads nowhere")
		}
		blocks := (r.counts[i] + rows - 1) / rows
		if err := r.readIndex(i, int64(begin), int64(at), int(length), blocks); err != nil {
			return nil, err
		}
		if i == 0 {
			r.hashes = int64(at) - int64(r.counts[0]/spanRows)*int64(tlog.HashSize)
		}
	}
	if len(p.rest) > 0 || r.hashes < 0 {
		return nil, errors.New("its foot leads nowhere")
	}
	return r, nil
}

// readIndex reads the index of a table.
func (r *dayReader) readIndex(table int, begin, at int64, length, blocks int) error {
	packed := make([]byte, length)
	if blocks > 1024*(length+1) { // no index is packed as tightly
		return fmt.Errorf("index %d: %w", table, errBlock)
	}
	if _, err := r.file.ReadAt(packed, at); err != nil {
		return err
	}
	t, err := decodeIndex(packed, blocks, begin, at)
	if err != nil {
		return fmt.Errorf("index %d: %w", table, err)
	}
	r.tables[table] = t
	return nil
}

// read returns the octets of a block of a table, and the number of its rows.
func (r *dayReader) read(table, block int) ([]byte, int, error) {
	rows := [tableCount]int{spanRows, holderRows, insideRows}[table]
	t := &r.tables[table]
	if block < 0 || block >= len(t.keys) {
		return nil, 0, fmt.Errorf("%w: %s: there is no block %d", ErrDamaged, r.path, block)
	}
	raw := make([]byte, t.offsets[block+1]-t.offsets[block])
	if _, err := r.file.ReadAt(raw, t.offsets[block]); err != nil {
		return nil, 0, fmt.Errorf("%s: %w", r.path, err)
	}
	return raw, min(rows, r.counts[table]-block*rows), nil
}

// before returns the last block whose first key is less than key, or the first block.
func (t *tableIndex) before(key []byte) int {
	i, _ := slices.BinarySearchFunc(t.keys, key, bytes.Compare)
	return max(i-1, 0)
}

func (r *dayReader) spanBlock(block int) (b spanBlock, err error) {
	raw, n, err := r.read(tableSpans, block)
	if err == nil {
		b, err = decodeSpans(raw, n, r)
	}
	if err != nil {
		return b, fmt.Errorf("%w: %s: records from %d on: %w", ErrDamaged, r.path, block*spanRows+1, err)
	}
	return b, nil
}

func (r *dayReader) holderBlock(block int) ([]holderRow, error) { return r.holderRows(block, everyRow) }

func (r *dayReader) holderRows(block, only int) ([]holderRow, error) {
	raw, n, err := r.read(tableHolders, block)
	if err != nil {
		return nil, err
	}
	rows, err := decodeHolders(raw, n, only)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: holders from %d on: %w", ErrDamaged, r.path, block*holderRows+1, err)
	}
	for i := range rows {
		rows[i].number = uint64(block*holderRows + max(only, i))
	}
	return rows, nil
}

func (r *dayReader) insideBlock(block int) ([]insideRow, error) {
	raw, n, err := r.read(tableInsides, block)
	if err != nil {
		return nil, err
	}
	rows, err := decodeInsides(raw, n)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: inside addresses from %d on: %w", ErrDamaged, r.path, block*insideRows+1, err)
	}
	return rows, nil
}

// holder returns the holder with this number, without its salt.
func (r *dayReader) holder(ref uint64) (holderData, error) {
	row, err := r.holderRow(ref)
	return row.holderData, err
}

func (r *dayReader) holderRow(ref uint64) (holderRow, error) {
	if ref >= uint64(r.counts[tableHolders]) {
		return holderRow{}, fmt.Errorf("%w: %s: there is no holder %d", ErrDamaged, r.path, ref)
	}
	rows, err := r.holderRows(int(ref/holderRows), int(ref%holderRows))
	if err != nil {
		return holderRow{}, err
	}
	return rows[0], nil
}

// within appends the spans of blocks that have a port from first to last, in their order.
func (r *dayReader) within(to []span, outside uint32, first, last nat.Port) ([]span, error) {
	low := nat.Port(max(int(first)-r.widest+1, 0))
	if len(r.tables[tableSpans].keys) == 0 {
		return to, nil
	}
	end := spanKey(outside, last)
	for i := r.tables[tableSpans].before(spanKey(outside, low)); i < len(r.tables[tableSpans].keys); i++ {
		if bytes.Compare(r.tables[tableSpans].keys[i], end) > 0 {
			break
		}
		b, err := r.spanBlock(i)
		if err != nil {
			return to, err
		}
		for _, s := range b.spans {
			if s.outside == outside && s.first <= last && first <= s.last {
				to = append(to, s)
			}
		}
	}
	return to, nil
}

// salted returns a holder with its salt, from the blocks of spans that were read so far.
func (r *dayReader) salted(row *holderRow, read map[uint64]spanBlock) (holderData, error) {
	h := row.holderData
	if h.identity == nil {
		return h, nil
	}
	if len(row.spans) == 0 {
		return h, fmt.Errorf("%w: %s: holder %d has no record", ErrDamaged, r.path, row.number)
	}
	first := row.spans[0]
	b, ok := read[first]
	if !ok {
		var err error
		if b, err = r.spanBlock(int(min(first, math.MaxInt32))); err != nil {
			return h, err
		}
		read[first] = b
	}
	k := slices.IndexFunc(b.spans, func(s span) bool { return s.ref == row.number })
	if k < 0 {
		return h, fmt.Errorf("%w: %s: holder %d has no record where it lists one", ErrDamaged, r.path, row.number)
	}
	h.salt = b.salts.of(k)
	return h, nil
}

// leaves returns the hashes of the records of a block.
func (r *dayReader) leaves(group string, block int) ([]tlog.Hash, error) {
	b, err := r.spanBlock(block)
	if err != nil {
		return nil, err
	}
	list := make([]tlog.Hash, len(b.spans))
	read := map[uint64]spanBlock{uint64(block): b}
	holders := map[uint64][]holderRow{} // blocks of them
	for i := range b.spans {
		s := &b.spans[i]
		at, n := s.ref/holderRows, s.ref%holderRows
		if holders[at] == nil {
			if holders[at], err = r.holderBlock(int(min(at, math.MaxInt32))); err != nil {
				return nil, err
			}
		}
		if n >= uint64(len(holders[at])) {
			return nil, fmt.Errorf("%w: %s: there is no holder %d", ErrDamaged, r.path, s.ref)
		}
		h, err := r.salted(&holders[at][n], read)
		if err != nil {
			return nil, err
		}
		list[i] = tlog.RecordHash(s.leafData(nil, group, h.commitment()))
	}
	return list, nil
}

// tree returns the Merkle tree of the records.
func (r *dayReader) tree(group string) (*hashTree, error) {
	subtrees := make([]tlog.Hash, r.counts[tableSpans]/spanRows)
	raw := make([]byte, len(subtrees)*tlog.HashSize)
	if _, err := r.file.ReadAt(raw, r.hashes); err != nil {
		return nil, err
	}
	for i := range subtrees {
		copy(subtrees[i][:], raw[i*tlog.HashSize:])
	}
	return newTree(spanLevel, subtrees, func(block int64) ([]tlog.Hash, error) { return r.leaves(group, int(block)) }), nil
}

// all reads the whole file: its spans, its salts, and its holders by their numbers.
func (r *dayReader) all() (c dayContent, err error) {
	c.list = make([]span, 0, r.counts[tableSpans])
	for i := range r.tables[tableSpans].keys {
		b, err := r.spanBlock(i)
		if err != nil {
			return c, err
		}
		c.list, c.salts = append(c.list, b.spans...), append(c.salts, b.salts)
	}
	c.holders = make([]holderData, 0, r.counts[tableHolders])
	for i := range r.tables[tableHolders].keys {
		rows, err := r.holderBlock(i)
		if err != nil {
			return c, err
		}
		for k := range rows {
			c.holders = append(c.holders, rows[k].holderData)
		}
	}
	return c, c.restoreSalts()
}

// restoreSalts gives the holders their salts.
func (c *dayContent) restoreSalts() error {
	known := make([]bool, len(c.holders))
	for i := range c.list {
		ref := c.list[i].ref
		if ref >= uint64(len(known)) {
			return fmt.Errorf("%w: a record has no holder", ErrDamaged)
		}
		if !known[ref] {
			known[ref] = true
			c.holders[ref].salt = c.salts[i/spanRows].of(i % spanRows)
		}
	}
	return nil
}
