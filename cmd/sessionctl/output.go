package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
)

// Output formats.
const (
	outputTable = "table"
	outputJSON  = "json"
)

// printer prints answers of the daemon, as tables or as JSON.
type printer struct {
	stdout, stderr io.Writer
	now            func() time.Time // for ages
	output         string           // format
	jsonEncoder
}

// list prints items of one kind, as a table or as JSON lines.
type list[M proto.Message] struct {
	to     *printer
	table  *table
	row    func(M) []string
	nobody string // printed on stderr for an empty table
	count  int
	room   []byte // reused for lines
}

func newList[M proto.Message](to *printer, header []string, row func(M) []string) *list[M] {
	return &list[M]{to: to, table: newTable(to.stdout, header), row: row}
}

func (l *list[M]) add(m M) error {
	l.count++
	if l.to.output == outputJSON {
		return l.to.json(m)
	}
	return l.table.add(l.row(m))
}

// addAll is add for several items, which are printed together.
func (l *list[M]) addAll(items []M) error {
	l.count += len(items)
	if l.to.output == outputJSON {
		return l.lines(items)
	}
	for _, m := range items {
		if err := l.table.gather(l.row(m)); err != nil {
			return err
		}
	}
	return l.table.flushKnown()
}

// lines prints each item as one line of JSON.
func (l *list[M]) lines(items []M) error {
	l.room = l.room[:0]
	var err error
	for _, m := range items {
		if l.room, err = l.to.appendJSON(l.room, m); err != nil {
			break
		}
		l.room = append(l.room, '\n')
	}
	_, failed := l.to.stdout.Write(l.room)
	return errors.Join(err, failed)
}

func (l *list[M]) end() error {
	if l.to.output == outputJSON {
		return nil
	}
	if l.count == 0 && l.nobody != "" {
		_, err := fmt.Fprintln(l.to.stderr, l.nobody)
		return err
	}
	return l.table.flush()
}

// json prints one message as one line.
func (p *printer) json(m proto.Message) error {
	line, err := p.appendJSON(nil, m)
	if err != nil {
		return err
	}
	_, err = p.stdout.Write(append(line, '\n'))
	return err
}

// answer prints one message as JSON, or the line as text.
func (p *printer) answer(m proto.Message, line string) error {
	if p.output == outputJSON {
		return p.json(m)
	}
	_, err := fmt.Fprintln(p.stdout, line)
	return err
}

// fields prints a name and a value per line, aligned.
func (p *printer) fields(pairs [][2]string) error {
	width := 0
	for _, f := range pairs {
		width = max(width, len(f[0]))
	}
	for _, f := range pairs {
		if _, err := fmt.Fprintf(p.stdout, "%-*s  %s\n", width, f[0], f[1]); err != nil {
			return err
		}
	}
	return nil
}

// sample is the number of rows that determine a table's columns. It bounds the
// memory for endless output.
const sample = 1000

// table prints rows in aligned columns.
type table struct {
	out    io.Writer
	rows   [][]string // not printed yet
	widths []int      // nil until the first rows are printed
}

func newTable(out io.Writer, header []string) *table {
	return &table{out: out, rows: [][]string{header}}
}

// stream makes the table print each row at once, in columns of at least these
// widths.
func (t *table) stream(widths ...int) error {
	t.widths = slices.Clone(widths) // widened in place
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
	t.rows = append(t.rows, row)
	if len(t.rows) < sample {
		return nil
	}
	return t.flush()
}

// flushKnown prints the gathered rows, once the columns are fixed.
func (t *table) flushKnown() error {
	if t.widths == nil {
		return nil
	}
	return t.flush()
}

func (t *table) flush() error {
	t.widen()
	var b strings.Builder
	for _, row := range t.rows {
		writeRow(&b, row, t.widths)
	}
	t.rows = t.rows[:0]
	_, err := io.WriteString(t.out, b.String())
	return err
}

// widen makes the columns wide enough for the rows to be printed.
func (t *table) widen() {
	for _, row := range t.rows {
		for i, cell := range row {
			if i == len(t.widths) {
				t.widths = append(t.widths, 0)
			}
			t.widths[i] = max(t.widths[i], utf8.RuneCountInString(cell))
		}
	}
}

func writeRow(b *strings.Builder, row []string, widths []int) {
	for i, cell := range row {
		if i == len(row)-1 {
			b.WriteString(cell)
			break
		}
		b.WriteString(cell)
		b.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+2))
	}
	b.WriteByte('\n')
}
