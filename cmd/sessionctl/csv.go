package main

import (
	"bytes"
	"encoding/csv"
	"strconv"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// csvRecords writes each message as one record of RFC 4180, with a header: names and values of
// the JSON, the fields of a message within it as outer.inner, lists and maps as JSON in one cell.
type csvRecords struct {
	jsonEncoder
	columns map[protoreflect.FullName][]csvColumn
}

// csvColumn is the way from a message to one value of it.
type csvColumn struct {
	name string
	path []*jsonField
}

func (e *csvRecords) appendHead(to []byte, d protoreflect.MessageDescriptor) []byte {
	var names []string
	for _, column := range e.columnsOf(d) {
		names = append(names, column.name)
	}
	return appendRecord(to, names)
}

func (e *csvRecords) append(to []byte, m proto.Message) ([]byte, error) {
	columns := e.columnsOf(m.ProtoReflect().Descriptor())
	cells := make([]string, len(columns))
	for i := range columns {
		cell, err := columns[i].cell(m.ProtoReflect())
		if err != nil {
			return to, err
		}
		cells[i] = cell
	}
	return appendRecord(to, cells), nil
}

func (e *csvRecords) columnsOf(d protoreflect.MessageDescriptor) []csvColumn {
	if columns, ok := e.columns[d.FullName()]; ok {
		return columns
	}
	if e.columns == nil {
		e.columns = map[protoreflect.FullName][]csvColumn{}
	}
	e.columns[d.FullName()] = e.gatherColumns(nil, csvColumn{}, d)
	return e.columns[d.FullName()]
}

// gatherColumns adds the columns of a message that is reached by a way. A message within itself
// is one column.
func (e *csvRecords) gatherColumns(columns []csvColumn, way csvColumn, d protoreflect.MessageDescriptor) []csvColumn {
	fields := e.planOf(d).fields
	for i := range fields {
		f := &fields[i]
		column := csvColumn{
			name: strings.TrimPrefix(way.name+"."+f.TextName(), "."),
			path: append(way.path[:len(way.path):len(way.path)], f),
		}
		if f.nested() && !f.list && !way.passes(f.Message()) {
			columns = e.gatherColumns(columns, column, f.Message())
		} else {
			columns = append(columns, column)
		}
	}
	return columns
}

// passes reports whether the way is through a message of a type.
func (c csvColumn) passes(d protoreflect.MessageDescriptor) bool {
	for _, f := range c.path {
		if f.ContainingMessage() == d || f.Message() == d {
			return true
		}
	}
	return false
}

// cell returns the value of a message; none of what is absent.
func (c csvColumn) cell(m protoreflect.Message) (string, error) {
	last := c.path[len(c.path)-1]
	for _, f := range c.path[:len(c.path)-1] {
		if !m.Has(f.FieldDescriptor) {
			return "", nil
		}
		m = m.Get(f.FieldDescriptor).Message()
	}
	absent := last.absent || last.list || last.IsMap()
	if absent && !m.Has(last.FieldDescriptor) {
		return "", nil
	}
	if last.kind == protoreflect.StringKind && !last.list {
		return harmlessCell(m.Get(last.FieldDescriptor).String()), nil
	}
	value, err := last.appendValue(nil, m)
	return harmlessCell(strings.Trim(string(value), `"`)), err
}

// appendRecord appends one line of cells.
func appendRecord(to []byte, cells []string) []byte {
	for i := range cells {
		cells[i] = cleanCell(cells[i])
	}
	line := bytes.NewBuffer(to)
	w := csv.NewWriter(line)
	w.UseCRLF = true
	_ = w.Write(cells) // into memory
	w.Flush()
	return line.Bytes()
}

// harmlessCell puts an apostrophe in front of characters that begin a formula for a spreadsheet:
// at the beginning of the cell, and behind characters that some spreadsheets take for the end of
// the cell before (OWASP, CSV Injection). Numbers stay as they are.
func harmlessCell(cell string) string {
	if _, err := strconv.ParseFloat(cell, 64); err == nil || !strings.ContainsAny(cell, formulaBegins) {
		return cell
	}
	var b strings.Builder
	begins := true
	for len(cell) > 0 {
		r, size := utf8.DecodeRuneInString(cell) // 1 of an octet that is not UTF-8
		if begins && strings.ContainsRune(formulaBegins, r) {
			b.WriteByte('\'')
		}
		begins = strings.ContainsRune(cellEnds, r)
		b.WriteString(cell[:size])
		cell = cell[size:]
	}
	return b.String()
}

const (
	formulaBegins = "=+-@\t\r＝＋－＠"
	cellEnds      = ",;:|\t\r\n\"' "
)
