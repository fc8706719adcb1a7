package main

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"
)

// errEnough ends a list once it has shown as many rows as it may. It is no failure.
var errEnough = errors.New("the list has all the rows that were asked for")

// list prints items of one kind, as a table or as messages.
type list[M proto.Message] struct {
	to     *printer
	table  *table
	row    func(M) []string
	nobody string // printed on stderr for an empty table
	count  int
	sorted *sortedRows // with --sort
	room   []byte      // reused for messages
}

func newList[M proto.Message](to *printer, header []string, row func(M) []string) *list[M] {
	l := &list[M]{to: to, table: newTable(to.stdout, header), row: row}
	if to.order.by != "" {
		l.sorted = to.order.rows(header)
	}
	return l
}

// leastImportant names the columns that go first where a terminal has no room for all.
func (l *list[M]) leastImportant(titles ...string) { l.table.least = titles }

func (l *list[M]) add(m M) error { return l.addAll([]M{m}) }

// addAll adds several items, which are printed together. It returns errEnough with the last one
// that the list may have.
func (l *list[M]) addAll(items []M) error {
	if limit := l.to.order.limit; limit > 0 && l.sorted == nil {
		if left := limit - l.count; len(items) >= left {
			if err := l.print(items[:left]); err != nil {
				return err
			}
			if err := l.end(); err != nil {
				return err
			}
			return errEnough
		}
	}
	l.to.progress.count(len(items))
	if l.sorted != nil {
		return l.sort(items)
	}
	return l.print(items)
}

func (l *list[M]) print(items []M) error {
	l.count += len(items)
	if !l.to.forPeople() {
		return l.messages(items)
	}
	for _, m := range items {
		if err := l.table.gather(l.row(m)); err != nil {
			return err
		}
	}
	return l.table.flushKnown()
}

// messages prints each item for programs.
func (l *list[M]) messages(items []M) error {
	var last M
	l.room = append(l.room[:0], l.to.head(last.ProtoReflect().Descriptor())...)
	var err error
	for _, m := range items {
		if l.room, err = l.to.encoder.append(l.room, m); err != nil {
			break
		}
	}
	return errors.Join(err, l.to.stdout.writeClean(l.room))
}

// sort keeps items until the end.
func (l *list[M]) sort(items []M) error {
	for _, m := range items {
		one := sortedRow{cells: l.row(m)}
		if !l.to.forPeople() {
			var err error
			if one.text, err = l.to.encoder.append(nil, m); err != nil {
				return err
			}
		}
		if err := l.sorted.add(one); err != nil {
			return err
		}
	}
	return nil
}

// end prints the rest of the list.
func (l *list[M]) end() error {
	if err := l.printSorted(); err != nil {
		return err
	}
	switch {
	case !l.to.forPeople():
		return l.messages(nil)
	case l.count == 0 && l.nobody != "":
		_, err := fmt.Fprintln(l.to.stderr, l.nobody)
		return err
	}
	return l.table.end()
}

func (l *list[M]) printSorted() error {
	if l.sorted == nil {
		return nil
	}
	rows := l.sorted.inOrder()
	l.sorted = nil
	if err := l.print(nil); err != nil {
		return err
	}
	l.count += len(rows)
	if !l.to.forPeople() {
		var text []byte
		for _, one := range rows {
			text = append(text, one.text...)
		}
		return l.to.stdout.writeClean(text)
	}
	for _, one := range rows {
		if err := l.table.gather(one.cells); err != nil {
			return err
		}
	}
	return nil
}
