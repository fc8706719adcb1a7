package subscriberdb

import "sync"

// argBuffer is room for the arguments of a command. There are many long commands, so
// the next takes the room of the one before. A command may be sent until its list
// is reset.
type argBuffer struct {
	list  []any
	text  []byte // of arguments that exist nowhere else
	done  int    // of text, in arguments so far
	parts []argSlice
}

// argLists are those of commands that are over.
var argLists = sync.Pool{New: func() any { return new(argBuffer) }}

// argSlice is an argument out of the text of a list. A pointer to it stands for it in
// the list, where a string would have to be allocated.
type argSlice struct {
	of       *argBuffer
	from, to int
}

// MarshalBinary is how the client asks for the text.
func (p *argSlice) MarshalBinary() ([]byte, error) { return p.of.text[p.from:p.to], nil }

// add appends arguments as they are.
func (l *argBuffer) add(args ...any) { l.list = append(l.list, args...) }

// cut makes an argument of what was appended to the text since the last one.
func (l *argBuffer) cut() {
	l.parts = append(l.parts, argSlice{l, l.done, len(l.text)})
	l.list = append(l.list, &l.parts[len(l.parts)-1])
	l.done = len(l.text)
}

// keepText is how much text is kept for the next command.
const keepText = 1 << 20

// reset empties the list, and lets go of what it refers to.
func (l *argBuffer) reset() {
	if cap(l.text) > keepText {
		*l = argBuffer{}
		return
	}
	clear(l.list)
	l.list, l.text, l.done, l.parts = l.list[:0], l.text[:0], 0, l.parts[:0]
}
