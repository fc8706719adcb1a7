package manpage

import (
	"regexp"
	"strings"
)

// referenceEntry is a key of the reference configuration, or several with one explanation.
type referenceEntry struct {
	parent string
	terms  []string
	text   string
}

// referenceReader reads the reference configuration line by line.
type referenceReader struct {
	page    *Page
	keys    []referenceKey // around the present line
	comment []string       // since the last key
	entry   referenceEntry // the last key, as long as others may join it
	begun   bool           // the sections have begun
}

type referenceKey struct {
	name   string
	indent int
}

var (
	keyLine       = regexp.MustCompile(`^( *)(- )?([a-z_]+):(?: (.*))?$`)
	commentedKey  = regexp.MustCompile(`^([a-z_]+): (\S+|\[.*\]|\{.*\})$`)
	trailingWords = regexp.MustCompile(`^(.*?) *# (.*)$`)
)

// WriteReference writes the keys of the reference configuration with their values and comments: a
// subsection for each key of the first level.
func WriteReference(page *Page, reference string) {
	r := &referenceReader{page: page}
	for line := range strings.Lines(reference) {
		r.read(strings.TrimRight(line, "\n"))
	}
	r.flush()
}

func (r *referenceReader) read(line string) {
	text, isComment := strings.CutPrefix(strings.TrimLeft(line, " "), "#")
	switch {
	case isComment:
		r.readComment(strings.TrimPrefix(text, " "), len(line)-len(strings.TrimLeft(line, " ")))
	case strings.TrimSpace(line) == "":
		r.flush()
		if !r.begun && len(r.comment) > 0 {
			r.page.Text(strings.Join(r.comment, "\n"))
			r.page.Section("KEYS")
			r.begun, r.comment = true, nil
		}
	default:
		if m := keyLine.FindStringSubmatch(line); m != nil {
			r.readKey(len(m[1])+len(m[2]), m[2] != "", m[3], m[4])
		}
	}
}

func (r *referenceReader) readComment(text string, indent int) {
	if m := commentedKey.FindStringSubmatch(text); m != nil && r.begun {
		r.leave(indent)
		r.addKey(m[1], m[2], "")
		return
	}
	r.comment = append(r.comment, text)
}

func (r *referenceReader) readKey(indent int, inList bool, name, value string) {
	if inList {
		r.leave(indent - 2)
		r.keys = append(r.keys, referenceKey{"[]", indent - 1})
	} else {
		r.leave(indent)
	}
	words := ""
	if m := trailingWords.FindStringSubmatch(" " + value); m != nil {
		value, words = strings.TrimSpace(m[1]), m[2]
	}
	if indent == 0 {
		r.flush()
		r.page.Subsection(name)
		if value == "" && len(r.comment) > 0 {
			r.page.Text(strings.Join(r.comment, "\n"))
			r.comment = nil
		}
	}
	if indent > 0 || value != "" || words != "" {
		r.addKey(name, value, words)
	}
	r.keys = append(r.keys, referenceKey{name, indent})
}

// leave forgets the keys that do not contain a line with this indent.
func (r *referenceReader) leave(indent int) {
	for len(r.keys) > 0 && r.keys[len(r.keys)-1].indent >= indent {
		r.keys = r.keys[:len(r.keys)-1]
	}
}

// addKey takes a key with the comment in front of it. Without one the comment of the key before
// is about both.
func (r *referenceReader) addKey(name, value, words string) {
	parent := ""
	for _, k := range r.keys {
		parent += "." + k.name
	}
	term := strings.ReplaceAll(strings.TrimPrefix(parent+"."+name, "."), ".[]", "[]") + ":"
	if value != "" {
		term += " " + value
	}
	if words != "" {
		term += " (" + words + ")"
	}
	if len(r.comment) > 0 || r.entry.parent != parent {
		r.flush()
		r.entry = referenceEntry{parent: parent, text: strings.Join(r.comment, "\n")}
		r.comment = nil
	}
	r.entry.terms = append(r.entry.terms, term)
}

func (r *referenceReader) flush() {
	if len(r.entry.terms) > 0 {
		r.page.Item(r.entry.terms, r.entry.text)
	}
	r.entry = referenceEntry{}
}
