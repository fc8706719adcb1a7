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
	latest   microTime // of the events
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
	slices.SortFunc(l.segments, func(a, b *segment) int {
		if c := compareNumbers(a.number, b.number); c != 0 {
			return c
		}
		return compareNumbers(int(b.journal.size-b.journal.begun), int(a.journal.size-a.journal.begun))
	})
	for i := 1; i < len(l.segments); i++ {
		g := l.segments[i]
		if g.number != l.segments[i-1].number {
			continue
		}
		// It was begun twice: the first time, an error told that it might not be durable.
		if g.journal.size > g.journal.begun {
			return fmt.Errorf("%w: %s and %s are both file %d: move the wrong one away", ErrDamaged, l.segments[i-1].file(), g.file(), g.number)
		}
		if err := errors.Join(g.journal.file.Close(), l.o.files.remove(g.file())); err != nil {
			return err
		}
		l.segments = slices.Delete(l.segments, i, i+1)
		i--
	}
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
		g := l.gap(e.at, e.until, e.text)
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

// newestSpans knows the newest span of each block that the transaction being made has.
type newestSpans map[blockKey]newestSpan

type newestSpan struct {
	known bool // there is one in this journal
	open  bool
	since microTime
}

func (l *groupLog) newest(k blockKey, tx newestSpans) newestSpan {
	if s, ok := tx[k]; ok {
		return s
	}
	s := l.running().book.lastOf(k)
	if s == nil {
		return newestSpan{}
	}
	return newestSpan{known: true, open: s.released == never, since: s.allocated}
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
	position, latest, gaps, tx := l.position, l.latest, len(l.gaps), newestSpans{}
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
			if err := l.addEvent(&e.Events[i], tx); err != nil {
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

// addEvent adds an event to the transaction. Its times stay as they are told: with its block, the
// time of an allocation tells which one a release or an Interim is of. But a span is never
// empty.
func (l *groupLog) addEvent(e *nat.Event, tx newestSpans) error {
	if e.Kind != nat.Allocated && e.Kind != nat.Interim && e.Kind != nat.Released {
		return nil // about limits: nobody has another port
	}
	if err := l.checkEvent(e); err != nil {
		return err
	}
	k, at, since := keyOf(e.Block), microsOf(e.At), microsOf(e.Since)
	if e.Kind != nat.Interim {
		l.checkClock(at)
	}
	was := l.newest(k, tx)
	add := journalEntry{key: k}
	switch e.Kind {
	case nat.Allocated:
		if was.open && was.since == at {
			return nil // told again
		}
		add.kind, add.at, add.since = entryAllocated, at, at
	case nat.Interim:
		if was.known && was.since >= since || !was.known && l.hasSince(k, since) {
			return nil // told again, or of a span before
		}
		add.kind, add.at, add.since = entryConfirmed, since, since
	case nat.Released:
		add.at, add.since = max(at, since+1), since
		switch {
		case was.known && was.since != since:
			add.kind = entryPast
		case was.open:
			add.kind = entryReleased
		case was.known:
			return nil // told again
		default:
			add.kind = entryPast
		}
	}
	tx[k] = newestSpan{known: true, open: e.Kind != nat.Released, since: add.since}
	if add.kind.hasHolder() {
		add.holder.salt = l.salts.next()
		add.holder.identity = appendIdentity(nil, &e.Holder)
	}
	l.tx.add(add)
	return nil
}

// hasSince reports whether an older file has a span of a block that began then or later, or
// cannot be read: an Interim that comes late must not bring back a holder.
func (l *groupLog) hasSince(k blockKey, since microTime) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if len(l.segments) < 2 {
		return false
	}
	spans, err := l.spansOf(len(l.segments)-2, k.outside, k.first, k.last)
	return err != nil || slices.ContainsFunc(spans, func(s span) bool { return s.blockKey == k && s.allocated >= since })
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

// earliest returns the time before which an event shows that the clock was set back, or that it is
// told late. Where nothing happens for long, the time to which the log was read shows it.
func (l *groupLog) earliest(latest microTime) microTime {
	return max(latest-jitter, l.through-clockStep)
}

// checkClock notes a gap where an event is too early. The times between have come twice, or a
// change of them was told late.
func (l *groupLog) checkClock(at microTime) {
	early, to := at < l.earliest(l.latest), max(l.latest, l.through)+1
	l.latest = max(l.latest, at)
	if !early {
		return
	}
	// Events that follow may be earlier by the jitter. None of them may seem to be from before the
	// gap.
	from := at - jitter - 1
	if !slices.ContainsFunc(l.gaps, func(g Gap) bool { return microsOf(g.From) <= from && to <= microsOf(g.To) }) {
		l.addGap(entryGap, from, to, reasonClock)
	}
}

// reasonClock is the reason of a gap that the times of the events show.
const reasonClock = "the clock was set back, or changes were told late"

func (l *groupLog) gap(from, to microTime, reason string) Gap {
	return Gap{Group: l.group, From: from.time(), To: to.time(), Reason: reason}
}

// addGap adds a gap to the transaction.
func (l *groupLog) addGap(kind entryKind, from, to microTime, reason string) {
	l.tx.add(journalEntry{kind: kind, at: from, until: to, text: reason})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gaps = append(l.gaps, l.gap(from, to, reason))
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
			return l.rotate(microsOf(e.At) - jitter)
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
		_ = l.o.files.remove(path) // it may be there, and not durable; the next start removes it too
		return nil, err
	}
	return openJournal(l.o.files, path, func(*journalEntry) {})
}
