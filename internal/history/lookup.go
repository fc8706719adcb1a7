package history

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sort"
	"strconv"
	"time"

	"github.com/sessiond/sessiond/internal/nat"
)

// Record says who had one block when: Allocated <= t < Released.
type Record struct {
	Group string
	nat.Block
	Holder nat.Identity
	Erased bool // Holder was erased: nobody knows it any more

	Allocated time.Time
	// Released is the time of the release; zero: none is known at Through. If ReleasedBy is set,
	// the release was lost: it was between Released and ReleasedBy.
	Released, ReleasedBy time.Time
	Through              time.Time // the history that the record is taken from ends

	File uint64 // number of the file that it is taken from
}

// Question asks who had a port at a time.
type Question struct {
	Group   string // "" asks all groups
	Outside netip.Addr
	Port    nat.Port
	At      time.Time // counts to the microsecond
	// Quarantine is the time for which the group keeps a freed block from others; 0: none.
	Quarantine time.Duration
}

// State is the kind of an answer.
type State uint8

// The kinds of answers.
const (
	Held    State = iota + 1 // Record has the holder
	Nobody                   // nobody had it
	Unknown                  // Because says why
)

// Cause is the reason why an answer is unknown.
type Cause string

// The causes.
const (
	CauseGap      Cause = "GAP"      // changes of that time may be missing, or its times came twice
	CauseRelease  Cause = "RELEASE"  // the release of the last holder was lost
	CauseConflict Cause = "CONFLICT" // two records say that they had it
	CauseBefore   Cause = "BEFORE"   // the history begins later, or was removed by the retention
	CauseNotRead  Cause = "NOT_READ" // the log is not read as far as that, or the time is still to come
	CauseMissing  Cause = "MISSING"  // a file is missing
	CauseDamaged  Cause = "DAMAGED"  // a file cannot be read
	CauseNoGroup  Cause = "NO_GROUP" // there is no history of the group
)

// Answer answers a Question. A name is in it only where it is certain.
type Answer struct {
	State  State
	Record Record // Held: the holder's. Nobody: that of the last holder, if it is known
	// LastKnown tells whether Record is set of Nobody: the last holder is looked for in the
	// file of the time, and in the one before.
	LastKnown   bool
	Quarantined bool // Nobody: the block was in quarantine behind Record
	Because     Cause
	Detail      string // of Unknown, in words
}

// errMissing: a file between others is not there.
var errMissing = errors.New("a file is missing")

// LookupOutside tells who had a port of an outside address at a time. The error is one of
// reading files.
func (s *Store) LookupOutside(q Question) (Answer, error) {
	outside, ok := outsideNumber(q.Outside)
	if !ok {
		return Answer{}, fmt.Errorf("history: the outside address %s is not IPv4", q.Outside)
	}
	logs := s.logs(q.Group)
	if len(logs) == 0 {
		return unknown(CauseNoGroup, "there is no history of group %q", q.Group), nil
	}
	var best Answer
	for i, l := range logs {
		a, err := l.lookup(outside, q.Port, microsOf(q.At), microTime(q.Quarantine/time.Microsecond))
		if err != nil {
			return Answer{}, fmt.Errorf("history: group %s: %w", l.group, err)
		}
		if i == 0 {
			best = a
		} else {
			best = better(best, a)
		}
	}
	return best, nil
}

// better joins the answers of two groups, of which one has the address.
func better(a, b Answer) Answer {
	switch {
	case a.State == Held && b.State == Held:
		return unknown(CauseConflict, "groups %s and %s both gave it away", a.Record.Group, b.Record.Group)
	case a.Because == CauseConflict || a.State == Held:
		return a
	case b.Because == CauseConflict || b.State == Held:
		return b
	case a.State == Unknown:
		return a
	case b.State == Unknown:
		return b
	case b.LastKnown && (!a.LastKnown || b.Record.Released.After(a.Record.Released)):
		return b
	}
	return a
}

func unknown(because Cause, format string, args ...any) Answer {
	return Answer{State: Unknown, Because: because, Detail: fmt.Sprintf(format, args...)}
}

// lookup answers from one group's log.
func (l *groupLog) lookup(outside uint32, port nat.Port, at, quarantine microTime) (Answer, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	i, doubt, err := l.segmentOf(at)
	if err != nil || doubt.State == Unknown {
		return doubt, err
	}
	spans, err := l.spansOf(i, outside, port, port)
	if err != nil {
		return doubtful(err)
	}
	live, lost := liveAt(spans, at)
	switch {
	case len(live) > 1:
		if g := l.gapBeyond(at, span{allocated: never}); g != nil {
			return unknownIn(g), nil
		}
		return unknown(CauseConflict, "%d records say that they had it", len(live)), nil
	case len(live) == 1:
		if g, err := l.gapBeyondAll(i, at, live[0]); g != nil || err != nil {
			if err != nil {
				return doubtful(err)
			}
			return unknownIn(g), nil
		}
		r, err := l.record(i, &live[0])
		if err != nil {
			return doubtful(err)
		}
		return Answer{State: Held, Record: r}, nil
	}
	if g := l.gapBeyond(at, span{allocated: never}); g != nil {
		return unknownIn(g), nil
	}
	if lost {
		return unknown(CauseRelease, "the release of the last holder was lost"), nil
	}
	return l.nobody(i, spans, outside, port, at, quarantine)
}

func unknownIn(g *Gap) Answer {
	return unknown(CauseGap, "from %s to %s: %s", microsOf(g.From).text(), microsOf(g.To).text(), g.Reason)
}

// doubtful returns the answer where a file cannot be read as it should.
func doubtful(err error) (Answer, error) {
	switch {
	case errors.Is(err, errMissing), errors.Is(err, os.ErrNotExist):
		return unknown(CauseMissing, "%v", err), nil
	case errors.Is(err, errRemoved):
		return unknown(CauseBefore, "%v", err), nil
	case errors.Is(err, ErrDamaged), errors.Is(err, errBlock):
		return unknown(CauseDamaged, "%v", err), nil
	}
	return Answer{}, err
}

// liveAt returns the spans that have a time in them, and whether one may have.
func liveAt(spans []span, at microTime) (live []span, lost bool) {
	for _, s := range spans {
		switch {
		case s.allocated > at:
		case at < s.released:
			live = append(live, s)
		case at < s.vacant:
			lost = true
		}
	}
	return live, lost
}

// gapBeyond returns a gap that has the time, and that the span does not cover from its
// beginning to its end: its holder is not certain there.
func (l *groupLog) gapBeyond(at microTime, s span) *Gap {
	for i := range l.gaps {
		from, to := microsOf(l.gaps[i].From), microsOf(l.gaps[i].To)
		if from <= at && at < to && (s.allocated > from || s.released < to) {
			return &l.gaps[i]
		}
	}
	return nil
}

// gapBeyondAll is gapBeyond, of a span of a segment that later ones may show to have ended in
// the gap.
func (l *groupLog) gapBeyondAll(i int, at microTime, s span) (*Gap, error) {
	if l.gapBeyond(at, span{allocated: never}) == nil {
		return nil, nil
	}
	s, _, err := l.follow(i, s)
	if err != nil {
		return nil, err
	}
	return l.gapBeyond(at, s), nil
}

// follow returns an open span of a segment as the last one that has it knows it, and the
// index of that one.
func (l *groupLog) follow(i int, s span) (span, int, error) {
	for s.released == never && i+1 < len(l.segments) {
		if l.segments[i+1].number != l.segments[i].number+1 {
			return s, i, fmt.Errorf("%w: the one behind %s", errMissing, l.segments[i].file())
		}
		later, err := l.spansOf(i+1, s.outside, s.first, s.last)
		if err != nil {
			return s, i, err
		}
		k := slices.IndexFunc(later, func(x span) bool { return x.blockKey == s.blockKey && x.allocated == s.allocated })
		if k < 0 {
			return s, i, fmt.Errorf("%w: %s goes on without a record of %s", ErrDamaged, l.segments[i+1].file(), s.block().Outside)
		}
		s, i = later[k], i+1 // of several, which a clock that stands still can make, the shortest one
	}
	return s, i, nil
}

// segmentOf returns the index of the segment that knows most of a time, or says why there is none.
// That is the one that has it, or of a time in a gap the one behind that.
func (l *groupLog) segmentOf(at microTime) (int, Answer, error) {
	i := l.segmentAt(at)
	switch {
	case len(l.segments) == 0:
		return 0, Answer{}, os.ErrClosed
	case i < 0:
		return 0, unknown(CauseBefore, "the history begins at %s", l.segments[0].from.text()), nil
	case at > l.through:
		return 0, unknown(CauseNotRead, "the history ends at %s", l.through.text()), nil
	}
	if end, err := l.endOf(i); err != nil {
		a, err := doubtful(err)
		return 0, a, err
	} else if at >= end {
		return 0, unknown(CauseMissing, "the file behind %s is missing", l.segments[i].file()), nil
	}
	for k := range l.gaps {
		if from, to := microsOf(l.gaps[k].From), microsOf(l.gaps[k].To); from <= at && at < to {
			i = max(i, l.segmentAt(to))
		}
	}
	return i, Answer{}, nil
}

// segmentAt returns the index of the segment that has a time, -1 for none.
func (l *groupLog) segmentAt(at microTime) int {
	return sort.Search(len(l.segments), func(i int) bool { return l.segments[i].from > at }) - 1
}

// endOf returns the time from which on a segment says nothing, because another one does or
// should.
func (l *groupLog) endOf(i int) (microTime, error) {
	if i+1 == len(l.segments) {
		return never, nil
	}
	if l.segments[i+1].number == l.segments[i].number+1 || l.segments[i].day == nil {
		return l.segments[i+1].from, nil
	}
	var end microTime
	err := l.segments[i].day.with(func(r *dayReader) error {
		n, err := parseDayNote(textOf(r.note))
		if err == nil {
			end = n.to
		}
		return err
	})
	return end, err
}

// spansOf returns the spans that a segment has of an address, of blocks that have a port from
// first to last.
func (l *groupLog) spansOf(i int, outside uint32, first, last nat.Port) (spans []span, err error) {
	g := l.segments[i]
	if g.day != nil {
		err = g.day.with(func(r *dayReader) error {
			spans, err = r.within(nil, outside, first, last)
			return err
		})
		return spans, err
	}
	now := g.journal.book.within(nil, outside, first, last)
	if g.number == 1 {
		return now, nil
	}
	if i == 0 || l.segments[i-1].number != g.number-1 {
		return nil, fmt.Errorf("%w: the one before %s", errMissing, g.journal.path)
	}
	before, err := l.spansOf(i-1, outside, first, last)
	if err != nil {
		return nil, err
	}
	return combine(before, now, g.journal.book.resets, g.from), nil
}

// record returns a span of a segment as a record.
func (l *groupLog) record(i int, s *span) (Record, error) {
	h, err := l.holderOf(s)
	if err != nil {
		return Record{}, err
	}
	through := l.through
	if i+1 < len(l.segments) {
		if through, err = l.endOf(i); err != nil {
			return Record{}, err
		}
	}
	return recordOf(l.group, l.segments[i].number, s, &h, through)
}

// holderOf reads the holder of a span.
func (l *groupLog) holderOf(s *span) (h holderData, err error) {
	r, ok := s.from.(*dayReader)
	if !ok {
		return s.from.holder(s.ref)
	}
	for _, g := range l.segments { // the file must stay open while it is read
		if g.day != nil && g.day.path == r.path {
			err = g.day.with(func(r *dayReader) error {
				h, err = r.holder(s.ref)
				return err
			})
			return h, err
		}
	}
	return h, errRemoved
}

func recordOf(group string, file uint64, s *span, h *holderData, through microTime) (Record, error) {
	r := Record{
		Group: group, Block: s.block(), Erased: h.identity == nil, Allocated: s.allocated.time(),
		Released: s.released.time(), Through: through.time(), File: file,
	}
	if s.vacant != s.released {
		r.ReleasedBy = s.vacant.time()
	}
	if r.Erased {
		return r, nil
	}
	var err error
	r.Holder, err = parseIdentity(h.identity)
	return r, err
}

// nobody returns the answer where no record has the time, with the last holder of the port.
func (l *groupLog) nobody(i int, spans []span, outside uint32, port nat.Port, at, quarantine microTime) (Answer, error) {
	last := lastBefore(spans, at)
	if last == nil && i > 0 && l.segments[i-1].number == l.segments[i].number-1 {
		i--
		older, err := l.spansOf(i, outside, port, port)
		if err != nil {
			return doubtful(err)
		}
		last = lastBefore(older, at)
	}
	a := Answer{State: Nobody}
	if last == nil {
		return a, nil
	}
	r, err := l.record(i, last)
	if err != nil {
		return doubtful(err)
	}
	a.Record, a.LastKnown = r, true
	a.Quarantined = last.vacant+quarantine > at
	return a, nil
}

// lastBefore returns the span that ended last before a time, nil for none.
func lastBefore(spans []span, at microTime) (last *span) {
	for i := range spans {
		if s := &spans[i]; s.vacant <= at && (last == nil || s.vacant > last.vacant) {
			last = s
		}
	}
	return last
}

// Candidates are the holders of an outside address at a time, by port.
type Candidates struct {
	Records []Record
	Next    string // the page behind these; "" for none
	// Because says why there may be others; "" if these are all.
	Because Cause
	Detail  string
}

// ListHolders lists the holders of all ports of an outside address at a time: the candidates
// where the port is not known. page is "" for the first page, then Next. size is the number of
// records of a page, from 1 on.
func (s *Store) ListHolders(group string, outside netip.Addr, at time.Time, page string, size int) (Candidates, error) {
	number, ok := outsideNumber(outside)
	if !ok {
		return Candidates{}, fmt.Errorf("history: the outside address %s is not IPv4", outside)
	}
	skip, err := strconv.Atoi("0" + page)
	if err != nil || size < 1 {
		return Candidates{}, fmt.Errorf("history: page %q of %d records is none: begin with page \"\"", page, size)
	}
	var c Candidates
	logs := s.logs(group)
	if len(logs) == 0 {
		c.Because, c.Detail = CauseNoGroup, fmt.Sprintf("there is no history of group %q", group)
	}
	for _, l := range logs {
		if err := l.listHolders(&c, number, microsOf(at), &skip, size); err != nil {
			return Candidates{}, fmt.Errorf("history: group %s: %w", l.group, err)
		}
	}
	if len(c.Records) > size {
		from, _ := strconv.Atoi("0" + page)
		c.Records, c.Next = c.Records[:size], strconv.Itoa(from+size)
	}
	return c, nil
}

// listHolders adds the holders of one group, up to one more than size.
func (l *groupLog) listHolders(c *Candidates, outside uint32, at microTime, skip *int, size int) error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	i, doubt, err := l.segmentOf(at)
	if err != nil {
		return err
	}
	var spans []span
	if doubt.State != Unknown {
		if spans, err = l.spansOf(i, outside, 0, 1<<16-1); err != nil {
			if doubt, err = doubtful(err); err != nil {
				return err
			}
		}
	}
	live, lost := liveAt(spans, at)
	if g := l.gapBeyond(at, span{allocated: never}); g != nil && doubt.State != Unknown {
		doubt = unknownIn(g)
		live = slices.DeleteFunc(live, func(s span) bool {
			beyond, err := l.gapBeyondAll(i, at, s)
			return beyond != nil || err != nil
		})
	}
	if lost && doubt.State != Unknown {
		doubt = unknown(CauseRelease, "releases were lost")
	}
	if doubt.State == Unknown && c.Because == "" {
		c.Because, c.Detail = doubt.Because, doubt.Detail
	}
	for k := range live {
		if *skip > 0 {
			*skip--
			continue
		}
		if len(c.Records) > size {
			return nil
		}
		r, err := l.record(i, &live[k])
		if err != nil {
			return err
		}
		c.Records = append(c.Records, r)
	}
	return nil
}
