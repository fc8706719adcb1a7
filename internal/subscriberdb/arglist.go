package subscriberdb

import "sync"

// argList is room for the arguments of a command. There are many long commands, so
// the next takes the room of the one before. A command may be sent until its list
// is reset.
type argList struct {
	list  []any
	text  []byte // of arguments that exist nowhere else
	done  int    // of text, in arguments so far
	parts []part
}

// argLists are those of commands that are over.
var argLists = sync.Pool{New: func() any { return new(argList) }}

// part is an argument out of the text of a list. A pointer to it stands for it in
// the list, where a string would have to be allocated.
type part struct {
	of       *argList
	from, to int
}

// MarshalBinary is how the client asks for the text.
func (p *part) MarshalBinary() ([]byte, error) { return p.of.text[p.from:p.to], nil }

// add appends arguments as they are.
func (l *argList) add(args ...any) { l.list = append(l.list, args...) }

// cut makes an argument of what was appended to the text since the last one.
func (l *argList) cut() {
	l.parts = append(l.parts, part{l, l.done, len(l.text)})
	l.list = append(l.list, &l.parts[len(l.parts)-1])
	l.done = len(l.text)
}

// keepText is how much text is kept for the next command.
const keepText = 1 << 20

// reset empties the list, and lets go of what it refers to.
func (l *argList) reset() {
	if cap(l.text) > keepText {
		*l = argList{}
		return
	}
	clear(l.list)
	l.list, l.text, l.done, l.parts = l.list[:0], l.text[:0], 0, l.parts[:0]
}
