package history

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Completed receives when a file was completed, so that Maintain has work.
func (s *Store) Completed() <-chan struct{} { return s.wake }

// Maintain makes files of days of the journals that are complete, and removes those that the
// retention does not keep. Call it each minute, and when Completed receives. Meanwhile
// everything else goes on. After an error, such as of a full disk, the next call goes on.
func (s *Store) Maintain(now time.Time) error {
	s.housework.Lock()
	defer s.housework.Unlock()
	var errs []error
	for _, l := range s.logs("") {
		errs = append(errs, l.rotateByTime())
		for more := true; more; {
			var err error
			if more, err = l.seal(); err != nil {
				errs = append(errs, fmt.Errorf("history: group %s: complete a day: %w", l.group, err))
				more = false
			}
		}
	}
	errs = append(errs, s.removeOld(now))
	return errors.Join(errs...)
}

// rotateByTime begins a new journal where nothing happened since its day ended. No event that is told
// late, without a gap, is from before it.
func (l *groupLog) rotateByTime() error {
	l.writing.Lock()
	defer l.writing.Unlock()
	j := l.running()
	if j == nil || dayOf(l.through-clockStep) <= dayOf(j.from) {
		return nil
	}
	return l.rotate(l.through - clockStep)
}

// seal makes a day's file of the oldest journal that is complete, and reports whether there
// was one.
func (l *groupLog) seal() (bool, error) {
	l.mu.RLock()
	i := slices.IndexFunc(l.segments, func(g *segment) bool { return g.journal != nil })
	if i < 0 || i == len(l.segments)-1 {
		l.mu.RUnlock()
		return false, nil
	}
	j, next := l.segments[i].journal, l.segments[i+1]
	c := &dayContent{dayNote: dayNote{group: l.group, number: j.number, from: j.from, to: next.from, gaps: gapsWithin(l.gaps, j.from, next.from)}}
	var before *segment
	if j.number > 1 && i > 0 && l.segments[i-1].number == j.number-1 {
		before = l.segments[i-1]
	}
	l.mu.RUnlock()
	if j.number > 1 && before == nil {
		return false, fmt.Errorf("%w: the one before %s", errMissing, j.path)
	}
	check, raw, err := checkJournal(j.path, j.size)
	if err != nil {
		return false, err
	}
	if check.flaw != nil {
		return false, fmt.Errorf("%w: %s: entry %d: %s", ErrDamaged, j.path, check.flaw.Number, check.flaw.Detail)
	}
	c.behind, c.head, c.entries = check.behind, check.head, check.entries
	if err := c.gather(j, raw, before); err != nil {
		return false, err
	}
	path := l.path(j.from, j.number, dayExt)
	if err := writeDay(l.o.files, path, c, l.o.Key.sign); err != nil {
		return false, err
	}
	l.mu.Lock()
	l.segments[i] = &segment{number: j.number, from: j.from, day: &dayFile{path: path, number: j.number, from: j.from}}
	err = j.file.Close()
	l.mu.Unlock()
	return true, errors.Join(err, l.o.files.remove(j.path))
}

// gapsWithin returns the gaps that touch the time of a file. Each proof has them.
func gapsWithin(gaps []Gap, from, to microTime) (list []Gap) {
	for _, g := range gaps {
		if microsOf(g.From) < to && from < microsOf(g.To) {
			list = append(list, g)
		}
	}
	return list
}

// gather collects the spans of a day, with those that it has from the file before, and their
// holders.
func (c *dayContent) gather(j *journal, raw []byte, before *segment) error {
	older := map[uint32][]span{}
	var holders []holderData
	if before != nil {
		err := before.day.with(func(r *dayReader) error {
			all, err := r.all()
			for _, s := range all.list {
				older[s.outside] = append(older[s.outside], s)
			}
			holders = all.holders
			return err
		})
		if err != nil {
			return err
		}
	}
	addrs := maps.Clone(older)
	for a := range j.book.addrs {
		addrs[a] = nil
	}
	size := len(holders) + j.spans
	c.list, c.holders = make([]span, 0, size), make([]holderData, 0, size)
	numbers := map[uint64]uint64{} // of holders of the file before, by their refs there
	for _, a := range slices.Sorted(maps.Keys(addrs)) {
		now := j.book.within(nil, a, 0, 1<<16-1)
		for _, s := range combine(older[a], now, j.book.resets, j.from) {
			if s.from != holderSource(j) {
				if s.ref >= uint64(len(holders)) {
					return fmt.Errorf("%w: %s has no holder %d", ErrDamaged, before.day.path, s.ref)
				}
				n, ok := numbers[s.ref]
				if !ok {
					n = uint64(len(c.holders))
					numbers[s.ref] = n
					c.holders = append(c.holders, holders[s.ref])
				}
				s.ref = n
				c.list = append(c.list, s)
				continue
			}
			at, n := s.ref>>refLength, s.ref&(1<<refLength-1)
			h, err := parseHolder(raw[at : at+n])
			if err != nil {
				return fmt.Errorf("%w: %s: %w", ErrDamaged, j.path, err)
			}
			s.ref = uint64(len(c.holders))
			c.holders = append(c.holders, h)
			c.list = append(c.list, s)
		}
	}
	return nil
}
