package history

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// Errors that readers of a log check for.
var (
	// ErrNotBegun: there is no history of the group. Resume begins one.
	ErrNotBegun = errors.New("there is no history of the group yet")
	// ErrEpoch: the log is one of another database. Resume goes on with it.
	ErrEpoch = errors.New("the log is of another database")
)

// Batch is a part of a group's NAT log.
type Batch struct {
	Group string
	Epoch string // of the database; a log of another one has other positions
	// Entries are in the order of the log. Those up to the stored position are passed over,
	// so that a batch can be told again.
	Entries []Entry
	// Through is a time until which no event is missing behind Entries, such as when the log
	// was read to its end. Zero: a second before the last event.
	Through time.Time
}

// Entry is one entry of a log. Its events are stored together.
type Entry struct {
	// Position is a Redis stream's identifier, "milliseconds-sequence", with whatever else the
	// reader needs behind a slash. It is empty for events that are not of the log, such as
	// interims: they leave the position as it is.
	Position string
	Events   []nat.Event
}

// comparePositions orders positions of one epoch.
func comparePositions(a, b string) int {
	a, _, _ = strings.Cut(a, "/")
	b, _, _ = strings.Cut(b, "/")
	return subscriber.CompareVersions(a, b)
}

// Gap is a time in which changes of a group may be missing.
type Gap struct {
	Group    string
	From, To time.Time // From <= t < To
	Reason   string    // in words, for people
}

// Restart is the state of a group from which its history goes on.
type Restart struct {
	Group, Epoch string
	Position     string    // of the last entry of the log that Live rests on
	From, To     time.Time // changes may be missing from From to To; of a new history To alone counts
	Reason       string    // of the gap
	Live         []nat.Event
}

// Append stores the events of batches durably, each with its position in one transaction: a
// kill leaves both or neither. Only allocations and releases, and an Interim of a block that
// is not known, are stored; other events are passed over. After an error the batch before
// which it happened and all later ones can be told again; a full disk leaves the store
// readable.
//
// Times are stored as they are told, but a record is at least a microsecond long. An event that
// is earlier than one before it by more than a second, or than a Through before it by more than a
// minute, shows that the clock was set back, or that a change was told late: the times between are a
// gap (LOG-08).
func (s *Store) Append(batches ...Batch) error {
	for i := range batches {
		l := s.log(batches[i].Group)
		if l == nil {
			return fmt.Errorf("history: group %s: %w", batches[i].Group, ErrNotBegun)
		}
		if err := l.append(&batches[i]); err != nil {
			return err
		}
	}
	return nil
}

// Resume begins the history of a group, or goes on with it behind a gap: what is open and not
// in Live ended in the gap, nobody knows when. Live has an Interim event for each block that
// is in force at To. It is one transaction; one that was stored before is passed over. An
// older position of the same epoch is of a database that went back in time.
func (s *Store) Resume(r Restart) error {
	if r.To.Year() < 1970 || r.To.Year() > 9999 {
		return fmt.Errorf("history: group %s: resume: the time %s is none of a state", r.Group, r.To)
	}
	l := s.log(r.Group)
	if l == nil {
		return s.beginLog(&r)
	}
	return l.resume(&r)
}

// beginLog begins the history of a group.
func (s *Store) beginLog(r *Restart) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lock == nil {
		return fmt.Errorf("history: group %s: the store is closed", r.Group)
	}
	if s.groups[r.Group] != nil {
		return fmt.Errorf("history: group %s: it was begun twice at once", r.Group)
	}
	l := s.newLog(r.Group)
	if name := filepath.Base(l.dir); len(name) > 255 {
		return fmt.Errorf("history: the name of group %s is too long for a folder", url.PathEscape(r.Group))
	}
	if err := s.o.files.mkdir(l.dir); err != nil {
		return fmt.Errorf("history: group %s: %w", r.Group, err)
	}
	from := microsOf(r.To)
	live, err := l.liveEntries(r)
	if err != nil {
		return err
	}
	l.epoch, l.position, l.through, l.latest = r.Epoch, r.Position, from, latestOf(from, live)
	if from < l.latest-jitter {
		l.gaps = []Gap{l.gap(from, l.latest+1, reasonClock)}
	}
	begin := journalEntry{kind: entryBegin, at: from, number: 1, text: r.Group}
	j, err := l.createJournal(begin, live)
	if err != nil {
		return fmt.Errorf("history: group %s: begin: %w", r.Group, err)
	}
	l.segments = []*segment{{number: 1, from: from, journal: j}}
	s.groups[r.Group] = l
	return nil
}

// liveEntries returns the entries about the blocks that are in force.
func (l *groupLog) liveEntries(r *Restart) ([]journalEntry, error) {
	list := make([]journalEntry, 0, len(r.Live))
	for i := range r.Live {
		e := &r.Live[i]
		if e.Kind != nat.Interim {
			return nil, fmt.Errorf("history: group %s: resume: event %d is of kind %s instead of interim", l.group, i+1, e.Kind)
		}
		if err := l.checkEvent(e); err != nil {
			return nil, fmt.Errorf("history: group %s: resume: event %d: %w", l.group, i+1, err)
		}
		since := microsOf(e.Since)
		list = append(list, journalEntry{
			kind: entryConfirmed, key: keyOf(e.Block), at: since, since: since,
			holder: holderData{salt: l.salts.next(), identity: appendIdentity(nil, &e.Holder)},
		})
	}
	return list, nil
}

// latestOf returns the latest of a time and those of entries.
func latestOf(latest microTime, entries []journalEntry) microTime {
	for i := range entries {
		latest = max(latest, entries[i].at)
	}
	return latest
}

// resume goes on behind a gap.
func (l *groupLog) resume(r *Restart) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	j := l.running()
	if j == nil {
		return fmt.Errorf("history: group %s: the store is closed", l.group)
	}
	if r.Epoch == l.epoch && comparePositions(r.Position, l.position) == 0 {
		return nil
	}
	live, err := l.liveEntries(r)
	if err != nil {
		return err
	}
	to := microsOf(r.To)
	latest := latestOf(max(l.latest, to), live)
	// Nothing is known behind the last entry, whatever the reader says.
	from, end := min(max(microsOf(r.From), l.segments[0].from), to, l.through+1), to
	if to < l.earliest(latest) { // the clock was set back meanwhile
		from, end = min(from, to-jitter-1), max(latest, l.through)+1
	}
	if dayOf(to-jitter) > dayOf(j.from) {
		if err := l.rotate(to - jitter); err != nil {
			return err
		}
		j = l.running()
	}
	l.tx.begin(j.size, j.head)
	gaps := len(l.gaps)
	l.addGap(entryReset, from, end, r.Reason)
	for _, e := range live {
		l.tx.add(e)
	}
	l.tx.add(journalEntry{kind: entryPosition, at: max(l.through, to), until: latest, text: r.Epoch, id: r.Position})
	if err := j.write(&l.tx); err != nil {
		l.mu.Lock()
		l.gaps = l.gaps[:gaps]
		l.mu.Unlock()
		return fmt.Errorf("history: group %s: %w", l.group, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	j.applied(&l.tx)
	l.epoch, l.position, l.through, l.latest = r.Epoch, r.Position, max(l.through, to), latest
	return nil
}
