package history

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"golang.org/x/mod/sumdb/tlog"
)

// ErrCheckpoint: a known checkpoint is none of the history's key.
var ErrCheckpoint = errors.New("no checkpoint of this history")

// FlawKind is the kind of a flaw.
type FlawKind string

// The kinds of flaws.
const (
	FlawChanged   FlawKind = "CHANGED"   // the record is not as it was written, or not at its place
	FlawMissing   FlawKind = "MISSING"   // the file is not there, and later ones are
	FlawTruncated FlawKind = "TRUNCATED" // it and all behind it are not there
	FlawUnsigned  FlawKind = "UNSIGNED"  // the file's checkpoint is not signed by the key
)

// Flaw is the first record of a group's history that is not as it was written.
type Flaw struct {
	Kind   FlawKind
	File   string // its path
	Number uint64 // of the record in the file, of a journal of the entry in the log, from 1 on
	Detail string
}

// Verified is the result of the verification of one group.
type Verified struct {
	Group       string
	Files       int
	Records     uint64   // of days' files; one that is in several files counts in each
	Entries     uint64   // of the log
	Checkpoints []string // of the days' files, signed notes, the oldest one first
	Flaw        *Flaw    // nil: there is none
}

// Verify verifies the files of a group, or of all for "": each record by its hash, each file
// by its checkpoint, and the files by the chain of the log, from the first one that the
// retention kept to the last entry. known are signed checkpoints that were kept elsewhere;
// without them an exchanged or truncated running journal can show no flaw. Meanwhile no file is
// completed, and appends go on.
func (s *Store) Verify(ctx context.Context, group string, known ...string) ([]Verified, error) {
	s.housework.Lock()
	defer s.housework.Unlock()
	var list []Verified
	for _, l := range s.logs(group) {
		v, err := l.verify(ctx, known)
		if err != nil {
			return nil, fmt.Errorf("history: group %s: verify: %w", l.group, err)
		}
		list = append(list, *v)
	}
	return list, nil
}

func (l *groupLog) verify(ctx context.Context, known []string) (*Verified, error) {
	segments, sizes := l.files()
	l.mu.RLock()
	kept := max(l.kept, 1)
	l.mu.RUnlock()
	v := &Verified{Group: l.group}
	days, logs, err := l.sortKnown(known)
	if err != nil {
		return nil, err
	}
	next, head := kept, chainHash{}
	var entries uint64
	for i, g := range segments {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if g.number != next {
			v.Flaw = &Flaw{FlawMissing, g.file(), 1, fmt.Sprintf("file %d, before this one, is missing", next)}
			return v, nil
		}
		first := i == 0 && g.number > 1 // nothing tells the chain before it
		if g.day != nil {
			n, flaw, err := l.verifyDay(g, v)
			if err != nil {
				return nil, err
			}
			switch text, ok := days[g.number]; {
			case flaw != nil:
			case !first && (n.behind != head):
				flaw = &Flaw{FlawChanged, g.day.path, 1, "its log does not go on where that of the file before ends"}
			case ok && text != n.text():
				flaw = &Flaw{FlawChanged, g.day.path, 1, "it is not the file of the known checkpoint"}
			}
			if flaw != nil {
				v.Flaw = flaw
				return v, nil
			}
			head, entries = n.head, n.entries
		} else {
			c, _, err := checkJournal(g.journal.path, sizes[i])
			if err != nil {
				return nil, err
			}
			if c.flaw == nil && !first && c.behind != head {
				c.flaw = &Flaw{FlawChanged, g.journal.path, entries + 1, "its log does not go on where that of the file before ends"}
			}
			if c.flaw == nil {
				c.flaw = l.checkKnown(c, g.journal.path, entries, logs)
			}
			if c.flaw != nil {
				v.Flaw = c.flaw
				return v, nil
			}
			head, entries = c.head, c.entries
		}
		v.Files++
		next++
	}
	v.Entries = entries
	for n := range days {
		if n >= next {
			v.Flaw = &Flaw{FlawTruncated, l.dir, 1, fmt.Sprintf("file %d of a known checkpoint is missing", n)}
		}
	}
	for n := range logs {
		if n > entries {
			v.Flaw = &Flaw{FlawTruncated, l.dir, entries + 1, fmt.Sprintf("a known checkpoint has %d entries", n)}
		}
	}
	return v, nil
}

// sortKnown reads known checkpoints of the group: texts of days by their numbers, and chains of
// the log by the numbers of their entries.
func (l *groupLog) sortKnown(known []string) (days map[uint64]string, logs map[uint64]chainHash, err error) {
	days, logs = map[uint64]string{}, map[uint64]chainHash{}
	for i, signed := range known {
		text, err := openNote(signed, l.o.Key.public)
		if err != nil {
			return nil, nil, fmt.Errorf("known checkpoint %d: %w: %w", i+1, ErrCheckpoint, err)
		}
		if n, err := parseDayNote(text); err == nil {
			if n.group == l.group {
				days[n.number] = text
			}
			continue
		}
		group, entries, head, err := parseLogNote(text)
		if err != nil {
			return nil, nil, fmt.Errorf("known checkpoint %d: %w: %w", i+1, ErrCheckpoint, err)
		}
		if group == l.group {
			logs[entries] = head
		}
	}
	return days, logs, nil
}

// checkKnown compares a journal with known checkpoints of the log, and its own with the key.
func (l *groupLog) checkKnown(c *journalCheck, path string, before uint64, known map[uint64]chainHash) *Flaw {
	for n, head := range known {
		if n > before && n <= c.entries && c.chains[n-before-1] != head {
			return &Flaw{FlawChanged, path, before + 1, fmt.Sprintf("entries up to %d are not those of a known checkpoint", n)}
		}
	}
	for _, s := range c.signed {
		text, err := openNote(s.text, l.o.Key.public)
		if err != nil {
			return &Flaw{FlawUnsigned, path, s.entry, err.Error()}
		}
		group, entries, head, err := parseLogNote(text)
		if err != nil || group != l.group || entries != s.entry-1 || s.entry < before+2 || c.chains[s.entry-before-2] != head {
			return &Flaw{FlawChanged, path, s.entry, "the checkpoint is of other entries"}
		}
	}
	return nil
}

// journalCheck is the result of the check of one journal.
type journalCheck struct {
	behind, head chainHash
	entries      uint64      // of the log, at its end
	chains       []chainHash // behind each entry
	signed       []signedEntry
	flaw         *Flaw
}

// signedEntry is a checkpoint in a journal.
type signedEntry struct {
	entry uint64 // its number in the log
	text  string
}

// checkJournal checks the first octets of a journal, which are whole frames, and returns them.
func checkJournal(path string, size int64) (*journalCheck, []byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	raw := make([]byte, size)
	n, err := io.ReadFull(f, raw)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	c := &journalCheck{}
	c.check(raw[:n], path)
	if c.flaw == nil && n < len(raw) {
		c.flaw = &Flaw{FlawTruncated, path, c.entries + 1, fmt.Sprintf("cut off at octet %d of %d", n, len(raw))}
	}
	return c, raw[:n], nil
}

var errCheck = errors.New("the entry is not the one that was written here")

func (c *journalCheck) check(raw []byte, path string) {
	for at := 0; at < len(raw); {
		payload, size, ok := parseFrame(raw[at:])
		if !ok { // its entries show which one is bad
			payload, size = raw[min(at+frameHead, len(raw)):], len(raw)-at
			if len(raw)-at >= frameHead {
				payload = payload[:min(uint64(len(payload)), uint64(binary.BigEndian.Uint32(raw[at+len(frameMagic):])))]
			}
		}
		before := c.entries
		chain, err := readFrame(payload, func(e *journalEntry, check, fields []byte, _, _ int) error {
			if e.kind == entryBegin && at == 0 && len(c.chains) == 0 {
				c.behind, c.head, c.entries = e.hash, e.hash, e.before
				before = e.before
			}
			next := c.head.next(leafOf(fields, e.kind, &e.holder))
			if !bytes.Equal(check, next[:checkSize]) {
				return errCheck
			}
			c.entries++
			c.head = next
			c.chains = append(c.chains, next)
			if e.kind == entrySigned {
				c.signed = append(c.signed, signedEntry{c.entries, e.text})
			}
			return nil
		})
		switch {
		case err != nil:
			c.flaw = &Flaw{FlawChanged, path, c.entries + 1, fmt.Sprintf("at octet %d: %v", at, err)}
		case chain != c.head:
			c.flaw = &Flaw{FlawChanged, path, before + 1, fmt.Sprintf("the chain behind it, at octet %d, is another one", at)}
		case !ok:
			c.flaw = &Flaw{FlawChanged, path, before + 1, fmt.Sprintf("its frame, at octet %d, is not as it was written", at)}
		}
		if c.flaw != nil {
			return
		}
		at += size
	}
}

// verifyDay verifies a day's file.
func (l *groupLog) verifyDay(g *segment, v *Verified) (*dayNote, *Flaw, error) {
	path := g.day.path
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, &Flaw{FlawMissing, path, 1, "the file is not there"}, nil
	}
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	r, err := newDayReader(path, f)
	if err != nil {
		return nil, &Flaw{FlawTruncated, path, 1, err.Error()}, nil
	}
	text, err := openNote(r.note, l.o.Key.public)
	if err != nil {
		return nil, &Flaw{FlawUnsigned, path, 1, err.Error()}, nil
	}
	n, err := parseDayNote(text)
	switch {
	case err != nil:
		return nil, &Flaw{FlawChanged, path, 1, err.Error()}, nil
	case n.group != l.group || n.number != g.number || n.from != g.from || n.number != r.number || n.from != r.from:
		return nil, &Flaw{FlawChanged, path, 1, fmt.Sprintf("it is file %d of group %s from %s", n.number, n.group, n.from.text())}, nil
	}
	bad, detail := r.check(n)
	switch held := uint64(r.counts[tableSpans]); {
	case bad > 0:
		return nil, &Flaw{FlawChanged, path, bad, detail}, nil
	case n.spans != held:
		return nil, &Flaw{FlawTruncated, path, min(n.spans, held) + 1, fmt.Sprintf("it has %d records instead of %d", held, n.spans)}, nil
	}
	v.Records += n.spans
	v.Checkpoints = append(v.Checkpoints, r.note)
	return n, nil, nil
}

// check returns the number of the first record that is not as it was written, 0 for none.
func (r *dayReader) check(n *dayNote) (bad uint64, detail string) {
	commitments := make([][sha256.Size]byte, 0, r.counts[tableHolders])
	listed := make([][]uint64, 0, r.counts[tableHolders])
	var insides []insideRow
	var unread error
	salts := r.firstSalts()
	for i := range r.tables[tableHolders].keys {
		rows, err := r.holderBlock(i)
		if err != nil {
			unread = err
			rows = make([]holderRow, min(holderRows, r.counts[tableHolders]-i*holderRows))
		}
		for k := range rows {
			if fields, err := splitFields(rows[k].identity); err == nil {
				insides = append(insides, insideRow{fields[fieldInside], uint64(i)})
			}
			rows[k].salt = salts[uint64(len(commitments))]
			commitments = append(commitments, rows[k].commitment())
			listed = append(listed, rows[k].spans)
		}
	}
	bad, detail = r.checkSpans(n, commitments, listed)
	switch {
	case bad > 0 && unread != nil:
		return bad, unread.Error()
	case bad > 0:
		return bad, detail
	case unread != nil:
		return 1, unread.Error()
	}
	for i := range listed {
		if len(listed[i]) > 0 {
			return listed[i][0]*spanRows + 1, fmt.Sprintf("it is not that of holder %d, who lists it", i+1)
		}
	}
	return r.checkInsides(insides)
}

// firstSalts returns the salts of the holders by their numbers, as far as their records can be
// read.
func (r *dayReader) firstSalts() map[uint64][saltSize]byte {
	salts := make(map[uint64][saltSize]byte, r.counts[tableHolders])
	for i := range r.tables[tableSpans].keys {
		b, err := r.spanBlock(i)
		if err != nil {
			continue // checkSpans tells
		}
		for k := range b.spans {
			if _, ok := salts[b.spans[k].ref]; !ok {
				salts[b.spans[k].ref] = b.salts.of(k)
			}
		}
	}
	return salts
}

// checkSpans checks the records, not their number, against their checks, the checkpoint, and the lists of their
// holders, from which it removes them.
func (r *dayReader) checkSpans(n *dayNote, commitments [][sha256.Size]byte, listed [][]uint64) (bad uint64, detail string) {
	var chain chainHash
	leaves := make([]tlog.Hash, 0, r.counts[tableSpans])
	var before span
	for i := range r.tables[tableSpans].keys {
		b, err := r.spanBlock(i)
		if err != nil {
			return uint64(len(leaves)) + 1, err.Error()
		}
		for k := range b.spans {
			s := &b.spans[k]
			number := uint64(len(leaves)) + 1
			if s.ref >= uint64(len(commitments)) {
				return number, "there is no such holder"
			}
			leaf := tlog.RecordHash(s.leafData(nil, n.group, commitments[s.ref]))
			chain = chain.next(leaf)
			leaves = append(leaves, leaf)
			own := listed[s.ref]
			switch {
			case !bytes.Equal(b.checks[k*checkSize:(k+1)*checkSize], chain[:checkSize]):
				return number, "it is not the record that was written here"
			case number > 1 && before.compare(s) > 0:
				return number, "it is not in order"
			case len(own) == 0 || own[0] != uint64(i):
				return number, "its holder does not list it"
			}
			listed[s.ref] = own[1:]
			before = *s
		}
	}
	if n.spans != uint64(len(leaves)) {
		return 0, ""
	}
	root, err := tlog.TreeHash(int64(len(leaves)), newTree(0, leaves, nil))
	if err != nil || root != n.root || chain != n.chain {
		return r.firstOther(leaves), "the records are not those of the checkpoint"
	}
	return 0, ""
}

// firstOther returns the number of the first record of the first block that is not the one
// of which the hash was stored.
func (r *dayReader) firstOther(leaves []tlog.Hash) uint64 {
	var stored tlog.Hash
	for at := 0; at+spanRows <= len(leaves); at += spanRows {
		place := r.hashes + int64(at/spanRows)*tlog.HashSize
		if _, err := r.file.ReadAt(stored[:], place); err != nil || stored != subtreeOf(leaves[at:at+spanRows]) {
			return uint64(at) + 1
		}
	}
	return 1
}

// checkInsides compares the table of inside addresses with the holders.
func (r *dayReader) checkInsides(want []insideRow) (bad uint64, detail string) {
	slices.SortFunc(want, func(a, b insideRow) int {
		if d := bytes.Compare(a.inside, b.inside); d != 0 {
			return d
		}
		return compareNumbers(a.block, b.block)
	})
	at := 0
	for i := range r.tables[tableInsides].keys {
		rows, err := r.insideBlock(i)
		if err != nil {
			return 1, err.Error()
		}
		for _, row := range rows {
			if at >= len(want) || want[at].block != row.block || !bytes.Equal(want[at].inside, row.inside) {
				return 1, "the table of inside addresses is not that of the records"
			}
			at++
		}
	}
	if at != len(want) {
		return 1, "the table of inside addresses is not that of the records"
	}
	return 0, ""
}

// Checkpoint signs the state of a group's running log, and stores that in it. It returns the
// signed note: keep it elsewhere, such as in syslog, and give it to Verify.
func (s *Store) Checkpoint(group string) (string, error) {
	l := s.log(group)
	if l == nil {
		return "", fmt.Errorf("history: group %s: %w", group, ErrNotBegun)
	}
	l.writing.Lock()
	defer l.writing.Unlock()
	j := l.running()
	if j == nil {
		return "", fmt.Errorf("history: group %s: %w", group, os.ErrClosed)
	}
	signed, err := s.o.Key.sign(logNote(group, j.entries, j.head, l.through))
	if err != nil {
		return "", fmt.Errorf("history: group %s: checkpoint: %w", group, err)
	}
	l.tx.begin(j.size, j.head)
	l.tx.add(journalEntry{kind: entrySigned, at: l.through, text: signed})
	if err := j.write(&l.tx); err != nil {
		return "", fmt.Errorf("history: group %s: checkpoint: %w", group, err)
	}
	l.mu.Lock()
	j.applied(&l.tx)
	l.mu.Unlock()
	return signed, nil
}
