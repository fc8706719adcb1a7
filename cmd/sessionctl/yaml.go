package main

import (
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// yamlDocuments writes each message as one YAML document, so that a reader, too, needs memory for
// one at a time. Names and values are those of the JSON. Each text is in double quotes, because
// YAML 1.1 makes numbers of plain ones such as 12:30 and some MAC addresses.
type yamlDocuments struct{ jsonEncoder }

func (*yamlDocuments) appendHead(to []byte, _ protoreflect.MessageDescriptor) []byte { return to }

func (e *yamlDocuments) append(to []byte, m proto.Message) ([]byte, error) {
	document, err := e.appendMessage([]byte("---\n"), m.ProtoReflect(), "")
	if err != nil {
		return to, err
	}
	return append(to, cleaned(document)...), nil
}

// appendMessage appends the fields of a message, one a line.
func (e *yamlDocuments) appendMessage(to []byte, m protoreflect.Message, indent string) (lines []byte, err error) {
	fields := e.planOf(m.Descriptor()).fields
	for i := range fields {
		f := &fields[i]
		if f.unset(m) {
			continue
		}
		to = append(append(append(to, indent...), f.TextName()...), ':')
		if to, err = e.appendField(to, f, m, indent); err != nil {
			return to, err
		}
	}
	return to, nil
}

// appendField appends the value of a field, behind its name.
func (e *yamlDocuments) appendField(to []byte, f *jsonField, m protoreflect.Message, indent string) ([]byte, error) {
	value := m.Get(f.FieldDescriptor)
	switch {
	case !f.nested() || f.absent && !m.Has(f.FieldDescriptor):
		return appendLine(to, f, m)
	case !f.list:
		return e.appendMessage(append(to, '\n'), value.Message(), indent+"  ")
	case value.List().Len() == 0:
		return append(to, " []\n"...), nil
	}
	to = append(to, '\n')
	for i := range value.List().Len() {
		item, err := e.appendMessage(nil, value.List().Get(i).Message(), indent+"  ")
		if err != nil {
			return to, err
		}
		if len(item) == 0 {
			to = append(to, indent+"- {}\n"...)
			continue
		}
		to = append(append(to, indent+"- "...), strings.TrimPrefix(string(item), indent+"  ")...)
	}
	return to, nil
}

// appendLine appends a value that stands in one line. YAML has all of JSON.
func appendLine(to []byte, f *jsonField, m protoreflect.Message) ([]byte, error) {
	to, err := f.appendValue(append(to, ' '), m)
	return append(to, '\n'), err
}
