package history

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sessiond/sessiond/internal/nat"
)

// groupLog is the history of one group: files of days that are complete, and journals of
// those that are not yet. Its last file is the running journal.
type groupLog struct {
	group string
	dir   string
	o     *Options
	wake  chan<- struct{}

	writing sync.Mutex // held by the one writer, before mu
	tx      frameWriter
	salts   saltSource

	mu       sync.RWMutex // of what follows, for changes together with writing
	segments []*segment
	gaps     []Gap
	epoch    string
	position string
	through  microTime
	latest   microTime // of the events, since the clock was last set back
	kept     uint64    // number of the first file that is kept
}

// segment is one file: a day's, or a journal.
type segment struct {
	number  uint64
	from    microTime
	day     *dayFile
	journal *journal
}

// The ends of file names.
const (
	dayExt     = ".day"
	journalExt = ".journal"
)

const nameFormat = "2006-01-02T150405.000000Z"

func (l *groupLog) path(from microTime, number uint64, ext string) string {
	return filepath.Join(l.dir, fmt.Sprintf("%s.%06d%s", from.time().Format(nameFormat), number, ext))
}

// parseName is the reverse of path.
func parseName(name string) (from microTime, number uint64, ext string, ok bool) {
	ext = filepath.Ext(name)
	stamp, digits, ok := cutLast(strings.TrimSuffix(name, ext), ".")
	if !ok || ext != dayExt && ext != journalExt {
		return 0, 0, "", false
	}
	t, err1 := time.Parse(nameFormat, stamp)
	number, err2 := strconv.ParseUint(digits, 10, 64)
	return microsOf(t), number, ext, err1 == nil && err2 == nil && number > 0
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return "", "", false
	}
	return s[:i], s[i+len(sep):], true
}

// load reads the folder of the group. It removes files that a crash left half written, and
// journals of which a day's file was made.
func (l *groupLog) load() error {
	entries, err := os.ReadDir(l.dir)
	if err != nil {
		return err
	}
	sealed := map[uint64]bool{}
	var journals []string
	for _, e := range entries {
		name := filepath.Join(l.dir, e.Name())
		from, number, ext, ok := parseName(e.Name())
		switch {
		case strings.HasSuffix(e.Name(), ".tmp"):
			if err := l.o.files.remove(name); err != nil {
				return err
			}
		case !ok:
			return fmt.Errorf("%s is no file of the history: move it away", name)
		case ext == dayExt:
			sealed[number] = true
			l.segments = append(l.segments, &segment{number: number, from: from, day: &dayFile{path: name, number: number, from: from}})
		default:
			journals = append(journals, name)
		}
	}
	for _, name := range journals {
		from, number, _, _ := parseName(filepath.Base(name))
		if sealed[number] {
			if err := l.o.files.remove(name); err != nil {
				return err
			}
			continue
		}
		j, err := openJournal(l.o.files, name, func(e *journalEntry) { l.recall(e) })
		if err != nil {
			return err
		}
		if j.number != number || j.from != from {
			return fmt.Errorf("%w: %s is file %d from %s by its content", ErrDamaged, name, j.number, j.from.text())
		}
		l.segments = append(l.segments, &segment{number: number, from: from, journal: j})
	}
	slices.SortFunc(l.segments, func(a, b *segment) int { return compareNumbers(a.number, b.number) })
	if n := len(l.segments); n > 0 && l.segments[n-1].journal == nil {
		return fmt.Errorf("%w: %s: the running journal is missing. Bring it back, or move the folder away to begin a new history", ErrDamaged, l.dir)
	}
	for len(l.segments) > 0 && l.segments[0].number < l.kept { // the retention was interrupted
		if err := l.o.files.remove(l.segments[0].file()); err != nil {
			return err
		}
		l.segments = l.segments[1:]
	}
	return nil
}

// file returns the path of the segment's file.
func (g *segment) file() string {
	if g.day != nil {
		return g.day.path
	}
	return g.journal.path
}

// files returns the segments, and of journals the octets that are whole. Whoever needs them for
// longer than a moment has Store.housework.
func (l *groupLog) files() (segments []*segment, sizes []int64) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	segments = slices.Clone(l.segments)
	sizes = make([]int64, len(segments))
	for i, g := range segments {
		if g.journal != nil {
			sizes[i] = g.journal.size
		}
	}
	return segments, sizes
}

// recall puts an entry of a journal, of which the spans are not meant, into memory.
func (l *groupLog) recall(e *journalEntry) {
	switch e.kind {
	case entryPosition:
		l.epoch, l.position, l.through, l.latest = e.text, e.id, max(l.through, e.at), e.until
	case entryGap, entryReset:
		g := Gap{Group: l.group, From: e.at.time(), To: e.until.time(), Reason: e.text}
		if !slices.Contains(l.gaps, g) {
			l.gaps = append(l.gaps, g)
		}
	case entryKept:
		l.kept = max(l.kept, e.number)
	}
}

func (l *groupLog) close() error {
	l.writing.Lock()
	defer l.writing.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	for _, g := range l.segments {
		if g.day != nil {
			g.day.close(true)
		} else {
			errs = append(errs, g.journal.file.Close())
		}
	}
	l.segments = l.segments[:0]
	return errors.Join(errs...)
}

// running returns the journal that is written; nil of a log that has not begun, or is closed.
func (l *groupLog) running() *journal {
	if len(l.segments) == 0 {
		return nil
	}
	return l.segments[len(l.segments)-1].journal
}

// openSpans knows the newest span of each block that the transaction being made has.
type openSpans map[blockKey]openSpan

type openSpan struct {
	known   bool // there is one in this journal
	open    bool
	clamped bool // it may have begun earlier than it is stored
	since   microTime
	last    microTime // it ended, or can end: no span is empty, so each of a block has its own beginning
}

func (l *groupLog) newest(k blockKey, tx openSpans) openSpan {
	if s, ok := tx[k]; ok {
		return s
	}
	j := l.running()
	x := j.book.block(k, false)
	if x == nil {
		return openSpan{}
	}
	s := x.spans[len(x.spans)-1]
	o := openSpan{known: true, open: s.released == never, since: s.allocated, last: s.allocated + 1}
	if n := len(x.spans); n > 1 {
		o.clamped = s.allocated == x.spans[n-2].vacant
	}
	if !o.open {
		o.last = s.vacant
	}
	return o
}

// append stores what is new of a batch.
func (l *groupLog) append(b *Batch) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	if l.running() == nil {
		return fmt.Errorf("history: %w", os.ErrClosed)
	}
	if b.Epoch != l.epoch {
		return fmt.Errorf("history: group %s: %w: epoch %q instead of %q", l.group, ErrEpoch, b.Epoch, l.epoch)
	}
	rest := b.Entries
	for len(rest) > 0 && rest[0].Position != "" && comparePositions(rest[0].Position, l.position) <= 0 {
		rest = rest[1:]
	}
	through := max(l.through, microsOf(b.Through))
	for {
		if err := l.rotateBefore(rest); err != nil {
			return err
		}
		n, err := l.appendSome(rest, through)
		if err != nil || n == len(rest) {
			return err
		}
		rest = rest[n:]
	}
}

// mostOfTransaction is the number of octets behind which a transaction is completed.
const mostOfTransaction = 4 << 20

// appendSome stores entries until the journal has to be completed, in one transaction, and
// returns their number.
func (l *groupLog) appendSome(entries []Entry, through microTime) (n int, err error) {
	j := l.running()
	l.tx.begin(j.size, j.head)
	position, latest, gaps, open := l.position, l.latest, len(l.gaps), openSpans{}
	defer func() {
		if err != nil {
			l.latest, l.gaps = latest, l.gaps[:gaps]
		}
	}()
	records := 0
	for n < len(entries) && len(l.tx.frame) < mostOfTransaction {
		e := &entries[n]
		if n > 0 && l.completes(e, j, records) {
			break
		}
		for i := range e.Events {
			if err := l.addEvent(&e.Events[i], open); err != nil {
				return 0, fmt.Errorf("history: group %s: entry %s: event %d: %w", l.group, e.Position, i+1, err)
			}
		}
		records += len(e.Events)
		position = cmp.Or(e.Position, position)
		n++
	}
	if n < len(entries) {
		through = l.through // of what is read later
	}
	through = max(through, l.latest-jitter)
	silent := position == l.position && len(l.tx.entries) == 0
	if silent && through == l.through {
		return n, nil
	}
	l.tx.add(journalEntry{kind: entryPosition, at: through, until: l.latest, text: l.epoch, id: position})
	if silent && through-l.through < microTime(time.Minute/time.Microsecond) {
		// A start forgets up to a minute of silence, and learns it again from the log.
		l.mu.Lock()
		l.through = through
		l.mu.Unlock()
		return n, nil
	}
	if err := j.write(&l.tx); err != nil {
		return 0, fmt.Errorf("history: group %s: %w", l.group, err)
	}
	l.mu.Lock()
	j.applied(&l.tx)
	l.position, l.through = position, through
	l.mu.Unlock()
	return n, nil
}

// addEvent adds an event to the transaction.
func (l *groupLog) addEvent(e *nat.Event, tx openSpans) error {
	if e.Kind != nat.Allocated && e.Kind != nat.Interim && e.Kind != nat.Released {
		return nil // about limits: nobody has another port
	}
	if err := l.checkEvent(e); err != nil {
		return err
	}
	k, at, since := keyOf(e.Block), microsOf(e.At), microsOf(e.Since)
	if e.Kind == nat.Interim {
		at = since
	} else {
		l.checkClock(at)
	}
	was := l.newest(k, tx)
	add := journalEntry{kind: entryAllocated, key: k}
	switch e.Kind {
	case nat.Allocated:
		if was.open && was.since == at {
			return nil
		}
		at = max(at, was.last)
		tx[k] = openSpan{known: true, open: true, clamped: was.known && at == was.last, since: at, last: at + 1}
	case nat.Interim:
		if was.known && at <= was.since {
			return nil
		}
		if was.known {
			at = max(at, was.last)
		}
		add.kind = entryConfirmed
		tx[k] = openSpan{known: true, open: true, since: at, last: at + 1}
	case nat.Released:
		at = max(at, was.last)
		switch {
		case was.open && (was.since == since || was.clamped && since < was.since):
			l.tx.add(journalEntry{kind: entryReleased, key: k, at: at})
			tx[k] = openSpan{known: true, since: was.since, last: at}
			return nil
		case was.known && !was.open && since <= was.since:
			return nil // told again
		}
		at = max(at, since+1)
		add.kind = entryPast
		tx[k] = openSpan{known: true, since: since, last: at}
	}
	add.at, add.since = at, at
	if e.Kind == nat.Released {
		add.since = since
	}
	add.holder.salt = l.salts.next()
	add.holder.identity = appendIdentity(nil, &e.Holder)
	l.tx.add(add)
	return nil
}

// checkEvent refuses events that the store cannot have.
func (l *groupLog) checkEvent(e *nat.Event) error {
	switch {
	case e.Group != "" && e.Group != l.group:
		return fmt.Errorf("it is of group %s", e.Group)
	case !e.Outside.Is4():
		return fmt.Errorf("the outside address %s is not IPv4", e.Outside)
	case e.Last < e.First:
		return fmt.Errorf("the block %d-%d has no port", e.First, e.Last)
	case e.Kind != nat.Interim && (e.At.Year() < 1970 || e.At.Year() > 9999):
		return fmt.Errorf("the time %s is none of an event", e.At)
	case e.Kind != nat.Allocated && (e.Since.Year() < 1970 || e.Since.Year() > 9999):
		return fmt.Errorf("the time of its allocation, %s, is none of an event", e.Since)
	}
	return nil
}

// checkClock notes a gap where the clock of the log was set back: the times between have come
// twice.
func (l *groupLog) checkClock(at microTime) {
	if at >= l.latest-jitter {
		l.latest = max(l.latest, at)
		return
	}
	// Events that follow may be earlier by the jitter. None of them may seem to be from before the
	// gap, and none may be moved behind its end by those of its block before it: each moves the
	// next by a microsecond.
	l.addGap(entryGap, at-jitter-1, l.latest+microTime(time.Millisecond/time.Microsecond), "the clock was set back")
	l.latest = at
}

// addGap adds a gap to the transaction.
func (l *groupLog) addGap(kind entryKind, from, to microTime, reason string) {
	l.tx.add(journalEntry{kind: kind, at: from, until: to, text: reason})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gaps = append(l.gaps, Gap{Group: l.group, From: from.time(), To: to.time(), Reason: reason})
}

// completes reports whether the journal is complete before an entry: its day is over, or it
// has as many records as it may.
func (l *groupLog) completes(e *Entry, j *journal, records int) bool {
	for i := range e.Events {
		if at := microsOf(e.Events[i].At); e.Events[i].Kind != nat.Interim {
			return at-jitter > j.from && (dayOf(at-jitter) > dayOf(j.from) || j.spans+records >= l.o.FileRecords)
		}
	}
	return false
}

func dayOf(m microTime) int64 { return int64(m) / int64(24*time.Hour/time.Microsecond) }

// rotateBefore begins a new journal if the running one is complete before the first entry.
func (l *groupLog) rotateBefore(entries []Entry) error {
	j := l.running()
	if len(entries) == 0 || !l.completes(&entries[0], j, 0) {
		return nil
	}
	for i := range entries[0].Events {
		if e := &entries[0].Events[i]; e.Kind != nat.Interim {
			return l.rotate(max(microsOf(e.At), l.latest) - jitter)
		}
	}
	return nil
}

// rotate begins a new journal. Spans that end behind its beginning are of both.
func (l *groupLog) rotate(from microTime) error {
	before := l.running()
	begin := journalEntry{kind: entryBegin, at: from, number: before.number + 1, before: before.entries, hash: before.head, text: l.group}
	j, err := l.createJournal(begin, nil)
	if err != nil {
		return fmt.Errorf("history: group %s: begin a file: %w", l.group, err)
	}
	l.mu.Lock()
	l.segments = append(l.segments, &segment{number: j.number, from: from, journal: j})
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
	return nil
}

// createJournal writes a journal with one frame: its beginning, more entries, and everything
// that is known besides spans.
func (l *groupLog) createJournal(begin journalEntry, more []journalEntry) (*journal, error) {
	w := &l.tx
	w.begin(0, begin.hash)
	w.add(begin)
	for _, g := range l.gaps {
		w.add(journalEntry{kind: entryGap, at: microsOf(g.From), until: microsOf(g.To), text: g.Reason})
	}
	if l.kept > 0 {
		w.add(journalEntry{kind: entryKept, number: l.kept})
	}
	for _, e := range more {
		w.add(e)
	}
	w.add(journalEntry{kind: entryPosition, at: l.through, until: l.latest, text: l.epoch, id: l.position})
	frame := w.finish()
	path := l.path(begin.at, begin.number, journalExt)
	err := writeFile(l.o.files, path, func(out io.Writer) error {
		_, err := out.Write(frame)
		return err
	})
	if err != nil {
		return nil, err
	}
	return openJournal(l.o.files, path, func(*journalEntry) {})
}
