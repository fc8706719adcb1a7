package history

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
)

// A journal is a file of frames. Each is one transaction: a head of frameHead octets with the
// length and the CRC-32C of the rest, its entries, and the chain behind them.
const (
	frameMagic = "hfr1"
	frameHead  = len(frameMagic) + 4 + 4
	// mostOfFrame bounds the octets of a frame in memory.
	mostOfFrame = 1 << 30
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrDamaged: a file is not as it was written, and not because of a crash.
var ErrDamaged = errors.New("the history is damaged")

// journal is the file that entries are appended to, with their spans in memory.
type journal struct {
	path    string
	file    diskFile
	number  uint64
	from    microTime
	size    int64 // of the frames that are whole and durable
	begun   int64 // of the first of them
	ragged  bool  // there may be octets behind size
	head    chainHash
	entries uint64 // of the group's log up to here
	spans   int    // that began or ended here
	book    *spanBook
}

// frameWriter makes the frame of one transaction.
type frameWriter struct {
	frame   []byte
	body    []byte
	chain   chainHash
	at      int64 // of the frame in its file
	entries []placedEntry
}

// placedEntry is an entry with the reference of its holder.
type placedEntry struct {
	journalEntry
	ref     uint64
	digests holderDigests
}

// A ref of a journal's holder is its place in the file and its length.
const refLength = 24

func (w *frameWriter) begin(at int64, chain chainHash) {
	w.frame = append(w.frame[:0], make([]byte, frameHead)...)
	w.entries, w.chain, w.at = w.entries[:0], chain, at
}

// add appends an entry. The holder is not kept.
func (w *frameWriter) add(e journalEntry) {
	w.body = e.appendFields(w.body[:0])
	fields := len(w.body)
	w.chain = w.chain.next(leafOf(w.body, e.kind, &e.holder))
	if e.kind.hasHolder() {
		w.body = e.holder.append(w.body)
	}
	w.frame = binary.AppendUvarint(w.frame, uint64(len(w.body)))
	w.frame = append(w.frame, w.chain[:checkSize]...)
	ref := uint64(w.at+int64(len(w.frame)+fields))<<refLength | uint64(len(w.body)-fields)
	w.frame = append(w.frame, w.body...)
	digests := digestsOf(&e.holder)
	e.holder = holderData{}
	w.entries = append(w.entries, placedEntry{e, ref, digests})
}

// finish completes the frame.
func (w *frameWriter) finish() []byte {
	w.frame = append(w.frame, w.chain[:]...)
	copy(w.frame, frameMagic)
	binary.BigEndian.PutUint32(w.frame[len(frameMagic):], uint32(len(w.frame)-frameHead))
	binary.BigEndian.PutUint32(w.frame[len(frameMagic)+4:], crc32.Checksum(w.frame[frameHead:], castagnoli))
	return w.frame
}

// parseFrame reads the frame at the beginning of raw. ok is false where there is no whole one.
func parseFrame(raw []byte) (payload []byte, size int, ok bool) {
	if len(raw) < frameHead || string(raw[:len(frameMagic)]) != frameMagic {
		return nil, 0, false
	}
	n := binary.BigEndian.Uint32(raw[len(frameMagic):])
	if n < sha256.Size || n > mostOfFrame || uint64(n) > uint64(len(raw)-frameHead) {
		return nil, 0, false
	}
	payload = raw[frameHead : frameHead+int(n)]
	if crc32.Checksum(payload, castagnoli) != binary.BigEndian.Uint32(raw[len(frameMagic)+4:]) {
		return nil, 0, false
	}
	return payload, frameHead + int(n), true
}

// readFrame calls use with each entry of a payload: the entry, its check, its fields, and the
// place of its holder in the payload. It returns the chain behind them, as the frame has it.
func readFrame(payload []byte, use func(e *journalEntry, check, fields []byte, holderAt, holderLen int) error) (chainHash, error) {
	var chain chainHash
	if len(payload) < len(chain) {
		return chain, errors.New("frame: cut off")
	}
	rest := payload[:len(payload)-len(chain)]
	copy(chain[:], payload[len(rest):])
	end := len(rest)
	var e journalEntry // one for all: use keeps none
	for len(rest) > 0 {
		n, size := binary.Uvarint(rest)
		if size <= 0 || len(rest)-size < checkSize || n > uint64(len(rest)-size-checkSize) || n == 0 {
			return chain, errors.New("entry: cut off")
		}
		check := rest[size : size+checkSize]
		body := rest[size+checkSize:][:n]
		rest = rest[size+checkSize+int(n):]
		var fields int
		var err error
		if e, fields, err = parseEntry(body); err != nil {
			return chain, err
		}
		if err := use(&e, check, body[:fields], end-len(rest)-len(body)+fields, len(body)-fields); err != nil {
			return chain, err
		}
	}
	return chain, nil
}

// apply puts an entry into the book.
func (b *spanBook) apply(e *placedEntry, from holderSource) {
	s := span{blockKey: e.key, allocated: e.since, released: never, vacant: never, from: from, ref: e.ref, digests: e.digests}
	switch e.kind {
	case entryAllocated:
		b.begin(s)
	case entryConfirmed:
		b.confirm(s)
	case entryReleased:
		b.end(e.key, e.at)
	case entryPast:
		s.released, s.vacant = e.at, e.at
		b.begin(s)
	case entryReset:
		b.reset(gapSpan{e.at, e.until})
	}
}

// openJournal reads a journal, and calls also with each of its entries. What a crash left of
// an unfinished frame at the end is cut off at the next append.
func openJournal(files diskFiles, path string, also func(*journalEntry)) (*journal, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	j := &journal{path: path, book: newBook()}
	for at := 0; at < len(raw); {
		payload, size, ok := parseFrame(raw[at:])
		if !ok {
			if i := laterFrame(raw[at:]); i >= 0 {
				return nil, fmt.Errorf("%w: %s: the octets from %d to %d are not as they were written. Look at it with history verify; to go on with a gap, move the file away", ErrDamaged, path, at, at+i)
			}
			j.ragged = true
			break
		}
		j.head, err = readFrame(payload, func(e *journalEntry, _, _ []byte, holderAt, holderLen int) error {
			j.entries++
			if e.kind == entryBegin {
				j.number, j.from, j.entries = e.number, e.at, e.before+1
			}
			if e.kind.hasBlock() {
				j.spans++
			}
			ref := uint64(at+frameHead+holderAt)<<refLength | uint64(holderLen)
			j.book.apply(&placedEntry{*e, ref, digestsOf(&e.holder)}, j)
			also(e)
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("%w: %s: at octet %d: %w", ErrDamaged, path, at, err)
		}
		at += size
		j.size = int64(at)
		if j.begun == 0 {
			j.begun = j.size
		}
	}
	if j.number == 0 {
		return nil, fmt.Errorf("%w: %s has no beginning. To go on with a gap, move the file away", ErrDamaged, path)
	}
	j.file, err = files.open(path)
	return j, err
}

// laterFrame returns the place of a whole frame behind the beginning of raw, -1 for none.
func laterFrame(raw []byte) int {
	for at := 1; at < len(raw); {
		i := bytes.Index(raw[at:], []byte(frameMagic))
		if i < 0 {
			return -1
		}
		if _, _, ok := parseFrame(raw[at+i:]); ok {
			return at + i
		}
		at += i + 1
	}
	return -1
}

// write appends a frame durably; applied follows. After an error the journal is as before.
func (j *journal) write(w *frameWriter) error {
	frame := w.finish()
	if j.ragged {
		if err := j.file.Truncate(j.size); err != nil {
			return fmt.Errorf("%s: cut off an unfinished frame: %w", j.path, err)
		}
		j.ragged = false
	}
	_, err := j.file.WriteAt(frame, j.size)
	if err == nil {
		err = j.file.Sync()
	}
	if err != nil {
		j.ragged = j.file.Truncate(j.size) != nil
		return fmt.Errorf("%s: append: %w", j.path, err)
	}
	return nil
}

// applied puts the entries of a frame that was written into memory.
func (j *journal) applied(w *frameWriter) {
	for i := range w.entries {
		e := &w.entries[i]
		j.book.apply(e, j)
		if e.kind.hasBlock() {
			j.spans++
		}
	}
	j.head, j.entries, j.size = w.chain, j.entries+uint64(len(w.entries)), j.size+int64(len(w.frame))
}

// holder reads a holder.
func (j *journal) holder(ref uint64) (holderData, error) {
	raw := make([]byte, ref&(1<<refLength-1))
	if _, err := j.file.ReadAt(raw, int64(ref>>refLength)); err != nil {
		return holderData{}, fmt.Errorf("%s: %w", j.path, err)
	}
	return parseHolder(raw)
}

// rewriteJournal writes a journal anew, with other holders of the same commitments.
func rewriteJournal(files diskFiles, j *journal, change func(holderData) holderData) error {
	raw := make([]byte, j.size)
	if _, err := j.file.ReadAt(raw, 0); err != nil {
		return err
	}
	return writeFile(files, j.path, func(out io.Writer) error {
		var w frameWriter
		var chain chainHash
		for at, to := 0, int64(0); at < len(raw); {
			payload, size, ok := parseFrame(raw[at:])
			if !ok {
				return fmt.Errorf("%w: %s: at octet %d", ErrDamaged, j.path, at)
			}
			w.begin(to, chain)
			head, err := readFrame(payload, func(e *journalEntry, _, _ []byte, _, _ int) error {
				if e.kind == entryBegin {
					w.chain = e.hash
				}
				if e.kind.hasHolder() {
					e.holder = change(e.holder)
				}
				w.add(*e)
				return nil
			})
			if err != nil {
				return err
			}
			if w.chain != head {
				return fmt.Errorf("%w: %s: the chain is another one at octet %d", ErrDamaged, j.path, at)
			}
			n, err := out.Write(w.finish())
			if err != nil {
				return err
			}
			at, to, chain = at+size, to+int64(n), head
		}
		return nil
	})
}
