package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// jsonEncoder writes messages as JSON. The zero jsonEncoder is ready.
type jsonEncoder struct {
	plans map[protoreflect.FullName]*jsonPlan // by type of message
}

// appendJSON appends one message as JSON without white space. The result equals
// protojson's, in a tenth of its time (BenchmarkFormats), which is most of the
// time of a list of all subscribers.
func (e *jsonEncoder) appendJSON(to []byte, m proto.Message) ([]byte, error) {
	reflected := m.ProtoReflect()
	if line, ok := e.planOf(reflected.Descriptor()).append(to, reflected); ok {
		return line, nil
	}
	return appendSlowJSON(to, m)
}

// appendSlowJSON is appendJSON for every kind of message, with an error for one
// that cannot be encoded. protojson varies its white space on purpose; here it
// is removed.
func appendSlowJSON(to []byte, m proto.Message) ([]byte, error) {
	raw, err := protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true}.Marshal(m)
	if err != nil {
		return to, fmt.Errorf("encode answer: %w", err)
	}
	line := bytes.NewBuffer(to)
	if err := json.Compact(line, raw); err != nil {
		return to, fmt.Errorf("encode answer: %w", err)
	}
	return line.Bytes(), nil
}

// jsonPlan is the way to encode messages of one type.
type jsonPlan struct {
	slow   bool // needs protojson
	fields []jsonField
}

type jsonField struct {
	protoreflect.FieldDescriptor
	name   string // with the punctuation before its value
	list   bool
	absent bool // may be null
	kind   protoreflect.Kind
	values protoreflect.EnumValueDescriptors
	plan   *jsonPlan // of a message
}

// planOf returns the plan of a type, and makes it on first use.
func (e *jsonEncoder) planOf(d protoreflect.MessageDescriptor) *jsonPlan {
	if p := e.plans[d.FullName()]; p != nil {
		return p
	}
	p := &jsonPlan{slow: d.Oneofs().Len() > 0 || d.FullName().Parent() == "google.protobuf"}
	if e.plans == nil {
		e.plans = map[protoreflect.FullName]*jsonPlan{}
	}
	e.plans[d.FullName()] = p // before its fields, because a type may contain itself
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		p.slow = p.slow || f.IsMap()
		p.fields = append(p.fields, e.fieldOf(f, i))
	}
	return p
}

func (e *jsonEncoder) fieldOf(d protoreflect.FieldDescriptor, place int) jsonField {
	f := jsonField{
		FieldDescriptor: d, name: `,"` + d.TextName() + `":`, kind: d.Kind(), list: d.IsList(), absent: d.HasPresence(),
	}
	if place == 0 {
		f.name = f.name[1:]
	}
	switch f.kind {
	case protoreflect.EnumKind:
		f.values = d.Enum().Values()
	case protoreflect.MessageKind:
		f.plan = e.planOf(d.Message())
	}
	return f
}

// nested reports whether the field has messages with fields of their own, and not a time or
// duration.
func (f *jsonField) nested() bool {
	return f.plan != nil && !f.IsMap() && f.Message().FullName().Parent() != "google.protobuf"
}

// unset reports whether the field is left out, as another one of its oneof may be set.
func (f *jsonField) unset(m protoreflect.Message) bool {
	one := f.ContainingOneof()
	return one != nil && !one.IsSynthetic() && !m.Has(f.FieldDescriptor)
}

// appendValue appends a field's value as JSON, of every kind.
func (f *jsonField) appendValue(to []byte, m protoreflect.Message) ([]byte, error) {
	value, ok := to, false
	switch {
	case f.IsMap():
	case f.list:
		value, ok = f.appendList(to, m.Get(f.FieldDescriptor).List())
	case f.absent && !m.Has(f.FieldDescriptor):
		value, ok = append(to, "null"...), true
	default:
		value, ok = f.append(to, m.Get(f.FieldDescriptor))
	}
	if ok {
		return value, nil
	}
	alone := m.New() // a message with this field only
	if m.Has(f.FieldDescriptor) {
		alone.Set(f.FieldDescriptor, m.Get(f.FieldDescriptor))
	}
	object, err := appendSlowJSON(nil, alone.Interface())
	if err != nil {
		return to, err
	}
	var values map[string]json.RawMessage
	if err := json.Unmarshal(object, &values); err != nil {
		return to, fmt.Errorf("encode answer: %w", err)
	}
	return append(to, values[f.TextName()]...), nil
}

// append appends a message, and reports whether that was possible.
func (p *jsonPlan) append(to []byte, m protoreflect.Message) (line []byte, ok bool) {
	if p.slow {
		return to, false
	}
	line = append(to, '{')
	for i := range p.fields {
		f := &p.fields[i]
		line = append(line, f.name...)
		switch {
		case f.list:
			line, ok = f.appendList(line, m.Get(f.FieldDescriptor).List())
		case f.absent && !m.Has(f.FieldDescriptor):
			line, ok = append(line, "null"...), true
		default:
			line, ok = f.append(line, m.Get(f.FieldDescriptor))
		}
		if !ok {
			return to, false
		}
	}
	return append(line, '}'), true
}

func (f *jsonField) appendList(to []byte, list protoreflect.List) (line []byte, ok bool) {
	line = append(to, '[')
	for i := range list.Len() {
		if i > 0 {
			line = append(line, ',')
		}
		if line, ok = f.append(line, list.Get(i)); !ok {
			return to, false
		}
	}
	return append(line, ']'), true
}

func (f *jsonField) append(to []byte, v protoreflect.Value) ([]byte, bool) {
	switch f.kind {
	case protoreflect.BoolKind:
		return strconv.AppendBool(to, v.Bool()), true
	case protoreflect.StringKind:
		return appendJSONString(to, v.String())
	case protoreflect.Int32Kind:
		return strconv.AppendInt(to, v.Int(), 10), true
	case protoreflect.Uint32Kind:
		return strconv.AppendUint(to, v.Uint(), 10), true
	case protoreflect.Uint64Kind: // as a string, because JavaScript's numbers are not exact
		return append(strconv.AppendUint(append(to, '"'), v.Uint(), 10), '"'), true
	case protoreflect.EnumKind:
		if value := f.values.ByNumber(v.Enum()); value != nil {
			return append(append(append(to, '"'), value.Name()...), '"'), true
		}
		return strconv.AppendInt(to, int64(v.Enum()), 10), true
	case protoreflect.MessageKind:
		if !f.plan.slow {
			return f.plan.append(to, v.Message())
		}
		switch m := v.Message().Interface().(type) {
		case *timestamppb.Timestamp:
			return appendMoment(to, m)
		case *durationpb.Duration:
			return appendDuration(to, m)
		}
	}
	return to, false
}

// appendMoment appends a time in UTC, with 0, 3, 6 or 9 decimals of its second.
func appendMoment(to []byte, t *timestamppb.Timestamp) ([]byte, bool) {
	if !t.IsValid() {
		return to, false
	}
	layout := `"2006-01-02T15:04:05.000000000Z"`
	switch n := t.GetNanos(); {
	case n == 0:
		layout = `"2006-01-02T15:04:05Z"`
	case n%1_000_000 == 0:
		layout = `"2006-01-02T15:04:05.000Z"`
	case n%1_000 == 0:
		layout = `"2006-01-02T15:04:05.000000Z"`
	}
	return time.Unix(t.GetSeconds(), int64(t.GetNanos())).UTC().AppendFormat(to, layout), true
}

// appendDuration appends a duration in seconds, with 0, 3, 6 or 9 decimals.
func appendDuration(to []byte, d *durationpb.Duration) ([]byte, bool) {
	if !d.IsValid() {
		return to, false
	}
	seconds, nanos := d.GetSeconds(), int64(d.GetNanos())
	to = append(to, '"')
	if seconds < 0 || nanos < 0 {
		to, seconds, nanos = append(to, '-'), -seconds, -nanos
	}
	to = strconv.AppendInt(to, seconds, 10)
	if nanos > 0 {
		digits := fmt.Sprintf(".%09d", nanos)
		digits = strings.TrimSuffix(strings.TrimSuffix(digits, "000"), "000")
		to = append(to, digits...)
	}
	return append(to, 's', '"'), true
}

// appendJSONString appends a text, and reports whether it is UTF-8.
func appendJSONString(to []byte, s string) ([]byte, bool) {
	to = append(to, '"')
	told := 0 // octets of s appended so far
	for i := 0; i < len(s); {
		switch c := s[i]; {
		case c >= utf8.RuneSelf:
			r, n := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && n == 1 {
				return to, false
			}
			i += n
		case c >= ' ' && c != '"' && c != '\\':
			i++
		default:
			to = appendEscape(append(to, s[told:i]...), c)
			i++
			told = i
		}
	}
	return append(append(to, s[told:]...), '"'), true
}

func appendEscape(to []byte, c byte) []byte {
	const short = "\"\"\\\\\bb\ff\nn\rr\tt"
	for i := 0; i < len(short); i += 2 {
		if short[i] == c {
			return append(to, '\\', short[i+1])
		}
	}
	to = append(to, `\u`...)
	to = append(to, "0000"[1+(bits.Len8(c)-1)/4:]...)
	return strconv.AppendUint(to, uint64(c), 16)
}
