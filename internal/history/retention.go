package history

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"
)

// removeOld removes the days' files that the retention does not keep, the oldest first. Each
// is noted in the running journal before, so that it is not missed later.
func (s *Store) removeOld(now time.Time) error {
	var errs []error
	oldest := microTime(0)
	if s.o.MaxAge > 0 {
		oldest = microsOf(now.Add(-s.o.MaxAge))
	}
	for _, l := range s.logs("") {
		for {
			_, end, ok := l.oldestDay()
			if !ok || end > oldest {
				break
			}
			if err := l.removeOldest(); err != nil {
				errs = append(errs, err)
				break
			}
		}
	}
	if s.o.MaxOctets > 0 {
		errs = append(errs, s.removeBySize())
	}
	return errors.Join(errs...)
}

// removeBySize removes the oldest files of all groups until the rest is as small as it has to
// be.
func (s *Store) removeBySize() error {
	for {
		var total int64
		var first *groupLog
		begin := never
		for _, l := range s.logs("") {
			size, err := l.octetsOfDays()
			if err != nil {
				return err
			}
			total += size
			if from, _, ok := l.oldestDay(); ok && from < begin {
				first, begin = l, from
			}
		}
		if total <= s.o.MaxOctets || first == nil {
			return nil
		}
		if err := first.removeOldest(); err != nil {
			return err
		}
	}
}

// oldestDay returns the time of the oldest day's file that can be removed. The last one
// cannot: the journal behind it goes on with its spans.
func (l *groupLog) oldestDay() (from, end microTime, ok bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if len(l.segments) < 2 || l.segments[0].day == nil || l.segments[1].day == nil {
		return 0, 0, false
	}
	return l.segments[0].from, l.segments[1].from, true
}

// octetsOfDays returns the size of the days' files.
func (l *groupLog) octetsOfDays() (total int64, err error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for _, g := range l.segments {
		if g.day == nil {
			continue
		}
		info, err := os.Stat(g.day.path)
		if err != nil {
			return 0, fmt.Errorf("history: %w", err)
		}
		total += info.Size()
	}
	return total, nil
}

// removeOldest removes the oldest day's file. Nobody waits for the file system meanwhile.
func (l *groupLog) removeOldest() error {
	l.writing.Lock()
	kept := l.segments[1].number
	j := l.running()
	l.tx.begin(j.size, j.head)
	l.tx.add(journalEntry{kind: entryKept, number: kept})
	if err := j.write(&l.tx); err != nil {
		l.writing.Unlock()
		return fmt.Errorf("history: group %s: note a removal: %w", l.group, err)
	}
	l.mu.Lock()
	j.applied(&l.tx)
	gone := l.segments[0].day
	l.segments, l.kept = slices.Clone(l.segments[1:]), kept
	from := l.segments[0].from
	l.gaps = slices.DeleteFunc(slices.Clone(l.gaps), func(g Gap) bool { return microsOf(g.To) <= from })
	l.mu.Unlock()
	l.writing.Unlock()
	gone.close(true)
	if err := l.o.files.remove(gone.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("history: group %s: remove a day: %w", l.group, err)
	}
	return nil
}
