package subscriberdb

import "sync"

// putRoom is room for the arguments of a command that writes bindings. There are many
// such commands, and long ones, so the next takes the room of the one before.
type putRoom struct {
	text  []byte // of all
	ends  []int  // where each argument ends in text
	parts []part
	list  []any
}

var putRooms = sync.Pool{New: func() any { return new(putRoom) }}

// keepText is how much text is kept for the next command.
const keepText = 1 << 20

func (r *putRoom) free() {
	if cap(r.text) <= keepText {
		putRooms.Put(r)
	}
}

// part is an argument. A pointer to it stands for the text in a list of arguments,
// where the text itself would have to be allocated.
type part []byte

// MarshalBinary is how the client asks for the text.
func (p *part) MarshalBinary() ([]byte, error) { return *p, nil }

// args returns the command that writes the bindings; it lasts until free.
func (r *putRoom) args(group string, bindings []Binding) []any {
	r.text, r.ends, r.parts = r.text[:0], r.ends[:0], r.parts[:0]
	for i := range bindings {
		b := &bindings[i]
		r.text = Block{b.Outside, b.First}.appendField(r.text)
		r.ends = append(r.ends, len(r.text))
		r.text = b.appendValue(r.text)
		r.ends = append(r.ends, len(r.text))
	}
	from := 0
	for _, end := range r.ends {
		r.parts = append(r.parts, r.text[from:end:end])
		from = end
	}
	r.list = append(r.list[:0], "hset", bindingsKey(group))
	for i := range r.parts {
		r.list = append(r.list, &r.parts[i])
	}
	return r.list
}
