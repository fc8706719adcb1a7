package history

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Filter selects the records of a user, of an inside address, or of both.
type Filter struct {
	Group    string // "": all
	User     string // raw octets
	Inside   netip.Addr
	From, To time.Time // records with Allocated < To and From < Released; zero: no bound
}

// ListRecords lists records, of each group the newest file first, and in it the last one that
// was allocated. A record of several files is listed once, from the newest of them before
// To. page is "" for the first page, then next; next is "" behind the last record. size is the
// number of records of a page, from 1 on.
func (s *Store) ListRecords(f Filter, page string, size int) (list []Record, next string, err error) {
	if f.User == "" && !f.Inside.IsValid() {
		return nil, "", errors.New("history: the question names neither a user nor an inside address")
	}
	p, err := parsePage(page)
	if err != nil || size < 1 {
		return nil, "", fmt.Errorf("history: page %q of %d records is none: begin with page \"\"", page, size)
	}
	for _, l := range s.logs(f.Group) {
		if l.group < p.group {
			continue
		}
		if l.group > p.group {
			p = listPage{group: l.group}
		}
		if p, err = l.listRecords(&f, p, size, &list); err != nil {
			return nil, "", fmt.Errorf("history: group %s: %w", l.group, err)
		}
		if len(list) == size && p.file > 0 {
			return list, p.text(), nil
		}
	}
	return list, "", nil
}

// listPage is the place of a page: of a group, a file of it, and the records there that are on
// earlier pages. File 0 is the newest one.
type listPage struct {
	group string
	file  uint64
	skip  int
}

func (p listPage) text() string {
	return fmt.Sprintf("%d.%d.%s", p.file, p.skip, url.PathEscape(p.group))
}

func parsePage(text string) (p listPage, err error) {
	if text == "" {
		return p, nil
	}
	parts := strings.SplitN(text, ".", 3)
	if len(parts) != 3 {
		return p, errors.New("no page")
	}
	file, err1 := strconv.ParseUint(parts[0], 10, 64)
	skip, err2 := strconv.ParseUint(parts[1], 10, 31)
	group, err3 := url.PathUnescape(parts[2])
	return listPage{group, file, int(skip)}, errors.Join(err1, err2, err3)
}

// listRecords adds records of one group until there are as many as size, and returns the
// place behind them; its file is 0 where there are no more.
func (l *groupLog) listRecords(f *Filter, p listPage, size int, list *[]Record) (listPage, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	from, to := microTime(0), never
	if !f.From.IsZero() {
		from = microsOf(f.From)
	}
	if !f.To.IsZero() {
		to = microsOf(f.To)
	}
	newest := true // of the files that the time is in
	for i := len(l.segments) - 1; i >= 0; i-- {
		g := l.segments[i]
		if g.from >= to {
			continue
		}
		if i+1 < len(l.segments) && l.segments[i+1].from <= from {
			break
		}
		carried := newest
		newest = false
		if p.file > 0 && g.number > p.file {
			continue
		}
		if g.number != p.file {
			p.skip = 0
		}
		found, err := l.matching(i, f)
		if err != nil {
			return p, err
		}
		found = slices.DeleteFunc(found, func(s span) bool {
			return s.allocated >= to || s.vacant <= from || !carried && s.vacant > l.segments[i+1].from
		})
		slices.SortFunc(found, func(a, b span) int {
			if d := compareNumbers(b.allocated, a.allocated); d != 0 {
				return d
			}
			return a.compare(&b)
		})
		for k := p.skip; k < len(found); k++ {
			if len(*list) == size {
				return listPage{l.group, g.number, k}, nil
			}
			r, err := l.record(i, &found[k])
			if err != nil {
				return p, err
			}
			*list = append(*list, r)
		}
	}
	return listPage{group: l.group}, nil
}

// matching returns the spans of a segment that are of the filter's user and inside address.
func (l *groupLog) matching(i int, f *Filter) (found []span, err error) {
	g := l.segments[i]
	if g.day != nil {
		err = g.day.with(func(r *dayReader) error {
			found, err = r.matching(f)
			return err
		})
		return found, err
	}
	want := digestsOf(&holderData{identity: appendString(userKey(f.User), string(f.Inside.AsSlice()))})
	g.journal.book.each(func(s *span) {
		if (f.User == "" || s.digests.user == want.user) && (!f.Inside.IsValid() || s.digests.inside == want.inside) {
			found = append(found, *s)
		}
	})
	sure := found[:0]
	for k := range found {
		h, err := g.journal.holder(found[k].ref)
		if err != nil {
			return nil, err
		}
		if f.matches(&h) {
			sure = append(sure, found[k])
		}
	}
	if i == 0 || l.segments[i-1].number != g.number-1 {
		return sure, nil
	}
	return l.goingOn(i, sure, f)
}

// goingOn adds the spans that a journal has from the file before.
func (l *groupLog) goingOn(i int, found []span, f *Filter) ([]span, error) {
	older, err := l.matching(i-1, f)
	if err != nil {
		return nil, err
	}
	own := len(found)
	for _, old := range older {
		if old.vacant <= l.segments[i].from {
			continue
		}
		if slices.ContainsFunc(found[:own], func(s span) bool { return s.blockKey == old.blockKey && s.allocated == old.allocated }) {
			continue
		}
		spans, err := l.spansOf(i, old.outside, old.first, old.last)
		if err != nil {
			return nil, err
		}
		for _, s := range spans {
			if s.blockKey == old.blockKey && s.allocated == old.allocated {
				found = append(found, s)
			}
		}
	}
	return found, nil
}

// matches reports whether a holder is of the filter's user and inside address.
func (f *Filter) matches(h *holderData) bool {
	if h.identity == nil {
		return false
	}
	fields, err := splitFields(h.identity)
	return err == nil && (f.User == "" || string(fields[fieldUser]) == f.User) &&
		(!f.Inside.IsValid() || bytes.Equal(fields[fieldInside], f.Inside.AsSlice()))
}

// matching returns the spans of holders that are of the filter's user and inside address.
func (r *dayReader) matching(f *Filter) (found []span, err error) {
	var rows []holderRow
	if f.User != "" {
		rows, err = r.rowsOfUser(userKey(f.User))
	} else {
		rows, err = r.rowsOfInside(f.Inside.AsSlice())
	}
	if err != nil {
		return nil, err
	}
	for i := range rows {
		if !f.matches(&rows[i].holderData) {
			continue
		}
		for _, n := range slices.Compact(rows[i].spans) {
			b, err := r.spanBlock(int(min(n, math.MaxInt32)))
			if err != nil {
				return nil, err
			}
			for _, s := range b.spans {
				if s.ref == rows[i].number {
					found = append(found, s)
				}
			}
		}
	}
	return found, nil
}

// rowsOfUser returns the holders of a user.
func (r *dayReader) rowsOfUser(key []byte) (found []holderRow, err error) {
	t := &r.tables[tableHolders]
	for i := t.before(key); i < len(t.keys); i++ {
		if bytes.Compare(t.keys[i], key) > 0 {
			break
		}
		rows, err := r.holderBlock(i)
		if err != nil {
			return nil, err
		}
		for k := range rows {
			if rows[k].identity != nil && bytes.Equal(userOf(rows[k].identity), key) {
				found = append(found, rows[k])
			}
		}
	}
	return found, nil
}

// rowsOfInside returns the holders of an inside address.
func (r *dayReader) rowsOfInside(inside []byte) (found []holderRow, err error) {
	t := &r.tables[tableInsides]
	read := map[uint64]bool{} // blocks of holders
	for i := t.before(inside); i < len(t.keys); i++ {
		if bytes.Compare(t.keys[i], inside) > 0 {
			break
		}
		rows, err := r.insideBlock(i)
		if err != nil {
			return nil, err
		}
		for k := range rows {
			if !bytes.Equal(rows[k].inside, inside) || read[rows[k].block] {
				continue
			}
			read[rows[k].block] = true
			holders, err := r.holderBlock(int(min(rows[k].block, math.MaxInt32)))
			if err != nil {
				return nil, err
			}
			for n := range holders {
				fields, err := splitFields(holders[n].identity)
				if err == nil && bytes.Equal(fields[fieldInside], inside) {
					found = append(found, holders[n])
				}
			}
		}
	}
	return found, nil
}

// Complete returns a record that is still open in its file as the newest file knows it: with
// its release, where there is one.
func (s *Store) Complete(r Record) (Record, error) {
	l := s.log(r.Group)
	if l == nil || !r.Released.IsZero() {
		return r, nil
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	i := slices.IndexFunc(l.segments, func(g *segment) bool { return g.number == r.File })
	if i < 0 {
		return r, nil
	}
	key := keyOf(r.Block)
	spans, err := l.spansOf(i, key.outside, key.first, key.last)
	if err != nil {
		return r, fmt.Errorf("history: group %s: %w", r.Group, err)
	}
	for _, x := range spans {
		if x.blockKey != key || x.allocated != microsOf(r.Allocated) || x.released != never {
			continue
		}
		last, at, err := l.follow(i, x)
		if err == nil {
			r, err = l.record(at, &last)
		}
		if err != nil {
			return r, fmt.Errorf("history: group %s: %w", r.Group, err)
		}
	}
	return r, nil
}
