package main

import (
	"slices"
	"strings"
)

// sample is the number of rows that determine a table's columns. It bounds the
// memory for endless output.
const sample = 1000

const (
	columnGap = 2 // columns between two cells

	// usualWidth bounds the width of a column at a terminal. A wider value is printed in full and
	// moves the rest of its row: one long name must not take the room of everybody's columns.
	usualWidth = 24

	// textColumn is the least room for a last column whose values are broken into lines.
	textColumn = 16
)

// table prints rows in aligned columns. At a terminal those columns that find no room are left
// out, the least important first, and named at the end.
type table struct {
	out    *printed
	header []string
	least  []string   // titles of the least important columns, the least first
	rows   [][]string // not printed yet
	begun  bool       // the header is printed
	shown  []int      // the columns
	widths []int      // of the columns shown
	total  int        // columns of the terminal; 0: there is none, or it does not matter
}

// newTable returns an empty table. Without further word the last columns are the least important.
func newTable(out *printed, header []string) *table {
	t := &table{out: out, header: header}
	if !out.wide {
		t.total = out.columns()
	}
	return t
}

// stream makes the table print each row at once, in columns of at least these
// widths.
func (t *table) stream(widths ...int) error {
	t.arrange(widths)
	if err := t.note(); err != nil {
		return err
	}
	return t.flush()
}

func (t *table) add(row []string) error {
	if err := t.gather(row); err != nil {
		return err
	}
	return t.flushKnown()
}

// gather adds a row that may be printed later.
func (t *table) gather(row []string) error {
	clean := row
	for i, cell := range row {
		if text := cleanCell(cell); text != cell {
			if &clean[0] == &row[0] {
				clean = slices.Clone(row)
			}
			clean[i] = text
		}
	}
	t.rows = append(t.rows, clean)
	if len(t.rows) < sample {
		return nil
	}
	return t.flush()
}

// flushKnown prints the gathered rows, once the columns are fixed.
func (t *table) flushKnown() error {
	if t.shown == nil {
		return nil
	}
	return t.flush()
}

// end prints the rest, and the names of columns that are not shown.
func (t *table) end() error {
	if err := t.flush(); err != nil {
		return err
	}
	return t.note()
}

func (t *table) flush() error {
	if t.shown == nil {
		t.arrange(nil)
	}
	if !t.begun {
		t.widen(t.header)
	}
	for _, row := range t.rows {
		t.widen(row)
	}
	var text []byte
	if !t.begun {
		t.begun = true
		text = t.appendRow(text, t.header, true)
	}
	for _, row := range t.rows {
		text = t.appendRow(text, row, false)
	}
	t.rows = t.rows[:0]
	return t.out.writeClean(text)
}

// note names the columns that are not shown.
func (t *table) note() error {
	if len(t.shown) == len(t.header) {
		return nil
	}
	var hidden []string
	for i, title := range t.header {
		if !slices.Contains(t.shown, i) {
			hidden = append(hidden, title)
		}
	}
	line := t.out.appendStyled(nil, styleNote, "(no room for "+strings.Join(hidden, ", ")+": -o wide)")
	return t.out.writeClean(append(line, '\n'))
}

// arrange chooses the columns, by the widths of the gathered rows and the given ones.
func (t *table) arrange(given []int) {
	natural := make([]int, len(t.header))
	copy(natural, given)
	for _, row := range append([][]string{t.header}, t.rows...) {
		for i, cell := range row {
			natural[i] = max(natural[i], t.bounded(textWidth(cell)))
		}
	}
	if last := len(natural) - 1; t.total > 0 {
		natural[last] = min(natural[last], textColumn)
	}
	t.shown = fittingColumns(natural, t.leastFirst(), t.total)
	for _, column := range t.shown {
		width := 0
		if column < len(given) {
			width = given[column]
		}
		t.widths = append(t.widths, width)
	}
}

// bounded returns the part of a value's width that its column takes.
func (t *table) bounded(width int) int {
	if t.total == 0 {
		return width
	}
	return min(width, usualWidth)
}

// leastFirst returns the columns in the order in which they go, without the last one to go.
func (t *table) leastFirst() []int {
	var order []int
	for _, title := range t.least {
		order = append(order, slices.Index(t.header, title))
	}
	for column := len(t.header) - 1; column > 0; column-- {
		if !slices.Contains(order, column) {
			order = append(order, column)
		}
	}
	return order
}

// fittingColumns returns the columns that fit into the total width, without as many of the least
// important ones as is necessary.
func fittingColumns(widths, leastFirst []int, total int) []int {
	var shown []int
	needed := -columnGap
	for column, width := range widths {
		shown = append(shown, column)
		needed += width + columnGap
	}
	for _, column := range leastFirst {
		if total == 0 || needed <= total {
			break
		}
		shown = slices.DeleteFunc(shown, func(c int) bool { return c == column })
		needed -= widths[column] + columnGap
	}
	return shown
}

// widen makes the columns wide enough for a row.
func (t *table) widen(row []string) {
	for i, column := range t.shown {
		t.widths[i] = max(t.widths[i], t.bounded(textWidth(row[column])))
	}
}

func (t *table) appendRow(to []byte, row []string, head bool) []byte {
	place := 0
	for i, column := range t.shown {
		cell := row[column]
		style := styleOf(t.header[column], cell)
		if head {
			style = styleHead
		}
		if i == len(t.shown)-1 {
			return t.appendLast(to, cell, style, place)
		}
		to = t.out.appendStyled(to, style, cell)
		gap := max(t.widths[i]-textWidth(cell), 0) + columnGap
		to = append(to, strings.Repeat(" ", gap)...)
		place += t.widths[i] + columnGap
	}
	return append(to, '\n')
}

// appendLast appends the last cell of a row. At a terminal it is broken between words.
func (t *table) appendLast(to []byte, cell string, style textStyle, place int) []byte {
	room := t.total - place
	if t.total == 0 || room < textColumn {
		return append(t.out.appendStyled(to, style, cell), '\n')
	}
	for i, line := range brokenLines(cell, room) {
		if i > 0 {
			to = append(to, strings.Repeat(" ", place)...)
		}
		to = append(t.out.appendStyled(to, style, line), '\n')
	}
	return to
}

// broken breaks a text between words, at a terminal. It begins at a place in its line, and so do the
// further lines.
func (p *printer) broken(text string, place int) string {
	room := p.stdout.columns() - place
	if room < textColumn {
		return text
	}
	return strings.Join(brokenLines(text, room), "\n"+strings.Repeat(" ", place))
}

// brokenLines breaks a text between words into lines of a width. A longer word has a line of its
// own.
func brokenLines(text string, room int) []string {
	if textWidth(text) <= room {
		return []string{text}
	}
	var lines []string
	line := ""
	for word := range strings.SplitSeq(text, " ") {
		switch {
		case line == "":
			line = word
		case textWidth(line)+1+textWidth(word) <= room:
			line += " " + word
		default:
			lines, line = append(lines, line), word
		}
	}
	return append(lines, line)
}
