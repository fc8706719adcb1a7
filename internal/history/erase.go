package history

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
)

// Erase removes the identity of a user, with its salts, from everything that is stored. The
// records stay, without a name, and verify as before. It returns the number of identities
// that were removed. A kill leaves whole files; call it again. Events that come later name the
// user again.
func (s *Store) Erase(user string) (int, error) {
	total := 0
	for _, l := range s.logs("") {
		for after, more := uint64(0), true; more; {
			var n int
			var err error
			n, after, more, err = s.eraseInNext(l, after, userKey(user))
			total += n
			if err != nil {
				return total, fmt.Errorf("history: group %s: erase: %w", l.group, err)
			}
		}
	}
	return total, nil
}

// eraseInNext erases in the first file behind that of a number, if there is one, and returns its
// number. Other housework goes on between two files: what it makes of files before has no name any
// more, and what is behind is still to come.
func (s *Store) eraseInNext(l *groupLog, after uint64, key []byte) (n int, number uint64, more bool, err error) {
	s.housework.Lock()
	defer s.housework.Unlock()
	segments, _ := l.files()
	i := slices.IndexFunc(segments, func(g *segment) bool { return g.number > after })
	if i < 0 {
		return 0, after, false, nil
	}
	if g := segments[i]; g.day != nil {
		n, err = l.eraseInDay(g.day, key)
	} else {
		n, err = l.eraseInJournal(g, key)
	}
	return n, segments[i].number, true, err
}

// eraseOne returns a holder without its identity, if it is that of the user.
func eraseOne(h holderData, key []byte, n *int) holderData {
	if h.identity == nil || !bytes.Equal(userOf(h.identity), key) {
		return h
	}
	*n++
	return h.erased()
}

// eraseInDay writes a day's file anew, if the user is in it.
func (l *groupLog) eraseInDay(d *dayFile, key []byte) (n int, err error) {
	var c *dayContent
	signed := ""
	err = d.with(func(r *dayReader) error {
		rows, err := r.rowsOfUser(key)
		if err != nil || len(rows) == 0 {
			return err
		}
		signed = r.note
		note, err := parseDayNote(textOf(r.note))
		if err != nil {
			return fmt.Errorf("%w: %s: %w", ErrDamaged, d.path, err)
		}
		all, err := r.all()
		c = &all
		c.dayNote = *note
		return err
	})
	if err != nil || signed == "" {
		return 0, err
	}
	for i := range c.holders {
		c.holders[i] = eraseOne(c.holders[i], key, &n)
	}
	c.forgetSalts()
	err = writeDay(l.o.files, d.path, c, func(text string) (string, error) {
		if text != textOf(signed) {
			return "", errors.New("its records are not those of its checkpoint: see history verify")
		}
		return signed, nil
	})
	if err != nil {
		return 0, fmt.Errorf("%s: %w", d.path, err)
	}
	d.close(false)
	return n, nil
}

// forgetSalts removes the salts of holders that are erased.
func (c *dayContent) forgetSalts() {
	first, erased := make([]bool, len(c.list)), map[int]bool{} // blocks
	seen := make([]bool, len(c.holders))
	for i := range c.list {
		ref := c.list[i].ref
		if seen[ref] {
			continue
		}
		seen[ref] = true
		if c.holders[ref].identity == nil {
			erased[i/spanRows] = true
		} else {
			first[i] = true
		}
	}
	for block := range erased {
		rows := first[block*spanRows : min((block+1)*spanRows, len(first))]
		c.salts[block] = c.salts[block].without(func(row int) bool { return row < len(rows) && rows[row] })
	}
}

// eraseInJournal writes a journal anew, if the user is in it. Appends wait meanwhile.
func (l *groupLog) eraseInJournal(g *segment, key []byte) (n int, err error) {
	l.writing.Lock()
	defer l.writing.Unlock()
	j := g.journal
	found := false
	digest := digestsOf(&holderData{identity: append(bytes.Clone(key), 0)}).user
	j.book.each(func(s *span) { found = found || s.from == holderSource(j) && s.digests.user == digest })
	if !found {
		return 0, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := rewriteJournal(l.o.files, j, func(h holderData) holderData { return eraseOne(h, key, &n) }); err != nil {
		return 0, err
	}
	fresh, err := openJournal(l.o.files, j.path, func(*journalEntry) {})
	if err != nil {
		return n, err
	}
	err = j.file.Close()
	g.journal = fresh
	return n, err
}
