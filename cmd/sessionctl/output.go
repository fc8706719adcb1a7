package main

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// outputFormat is a value of --output.
type outputFormat string

const (
	formatTable outputFormat = "table" // at a narrow terminal without the least important columns
	formatWide  outputFormat = "wide"  // a table with all columns
	formatJSON  outputFormat = "json"
	formatYAML  outputFormat = "yaml"
	formatCSV   outputFormat = "csv"
)

var outputFormats = []string{string(formatTable), string(formatWide), string(formatJSON), string(formatYAML), string(formatCSV)}

// A messageEncoder writes messages in a format for programs, one after the other in constant
// memory. What it appends is clean.
type messageEncoder interface {
	// appendHead appends the line in front of the messages of a type.
	appendHead(to []byte, d protoreflect.MessageDescriptor) []byte
	// append appends one message, with the end of its last line.
	append(to []byte, m proto.Message) ([]byte, error)
}

// encoderOf returns the encoder of a format; nil of those for people.
func encoderOf(f outputFormat) messageEncoder {
	switch f {
	case formatJSON:
		return &jsonLines{}
	case formatYAML:
		return &yamlDocuments{}
	case formatCSV:
		return &csvRecords{}
	}
	return nil
}

// jsonLines writes each message as one line of JSON.
type jsonLines struct{ jsonEncoder }

func (*jsonLines) appendHead(to []byte, _ protoreflect.MessageDescriptor) []byte { return to }

func (e *jsonLines) append(to []byte, m proto.Message) ([]byte, error) {
	begin := len(to)
	to, err := e.appendJSON(to, m)
	if err != nil {
		return to[:begin], err
	}
	if !harmless(to[begin:]) {
		to = append(to[:begin], cleaned(to[begin:])...)
	}
	return append(to, '\n'), nil
}

// printer prints answers of the daemon: as tables and lines for people, or as messages for
// programs.
type printer struct {
	stdout, stderr *printed
	now            func() time.Time // for ages
	zone           *time.Location   // of times for people
	format         outputFormat
	encoder        messageEncoder // of the format, once the flags are read
	headed         protoreflect.FullName
	order          rowOrder
	progress       *progressLine
}

// forPeople reports whether answers are tables and lines of text.
func (p *printer) forPeople() bool { return p.encoder == nil }

// message prints one message for programs.
func (p *printer) message(m proto.Message) error {
	text, err := p.encoder.append(p.head(m.ProtoReflect().Descriptor()), m)
	if err != nil {
		return err
	}
	return p.stdout.writeClean(text)
}

// head returns the line in front of messages of a type, if they are the first ones.
func (p *printer) head(d protoreflect.MessageDescriptor) []byte {
	if p.headed == d.FullName() {
		return nil
	}
	p.headed = d.FullName()
	return p.encoder.appendHead(nil, d)
}

// answer prints one message for programs, or the line for people.
func (p *printer) answer(m proto.Message, line string) error {
	if !p.forPeople() {
		return p.message(m)
	}
	_, err := fmt.Fprintln(p.stdout, line)
	return err
}

// details prints one message for programs, or the names and values for people, one a line and
// aligned.
func (p *printer) details(m proto.Message, pairs [][2]string) error {
	if !p.forPeople() {
		return p.message(m)
	}
	return p.fields(pairs)
}

func (p *printer) fields(pairs [][2]string) error {
	width := 0
	for _, f := range pairs {
		width = max(width, len(f[0]))
	}
	var text []byte
	for _, f := range pairs {
		text = fmt.Appendf(text, "%-*s  ", width, f[0])
		value := cleanCell(f[1])
		text = append(p.stdout.appendStyled(text, styleOf(f[0], value), value), '\n')
	}
	return p.stdout.writeClean(text)
}
