package main

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/goccy/go-yaml"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
)

// TestJSONIsThatOfProtojson: the output for every message, with any content, equals
// protojson's octet for octet.
func TestJSONIsThatOfProtojson(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	var a jsonEncoder
	for _, kind := range []struct {
		message proto.Message
		slow    bool // rarely listed
	}{
		{message: &pb.Subscriber{}}, {message: &pb.Binding{}}, {message: &pb.Session{}}, {message: &pb.Removal{}},
		{message: &pb.SubscriberEvent{}}, {message: &pb.Pool{}}, {message: &pb.Drift{}}, {message: &pb.Status{}},
		{message: &pb.Settings{}}, {message: &pb.Nas{}, slow: true}, {message: &pb.DeleteSubscribersResponse{}},
	} {
		for i := range 2000 {
			m := kind.message.ProtoReflect().New()
			fill(r, m, i%4)
			want, wantErr := appendSlowJSON([]byte("x"), m.Interface())
			got, err := a.appendJSON([]byte("x"), m.Interface())
			if string(got) != string(want) || (err == nil) != (wantErr == nil) {
				t.Fatalf("%T:\n%s, %v, want\n%s, %v", m.Interface(), got, err, want, wantErr)
			}
		}
		if a.planOf(kind.message.ProtoReflect().Descriptor()).slow != kind.slow {
			t.Errorf("%T is slow: %t", kind.message, !kind.slow)
		}
	}
}

// fill sets most fields of a message to values of all kinds, and those of its
// messages down to the depth.
func fill(r *rand.Rand, m protoreflect.Message, depth int) {
	switch m := m.Interface().(type) {
	case *timestamppb.Timestamp:
		m.Seconds = []int64{0, -1, 1_700_000_000, 253402300799, -62135596800, math.MaxInt64}[r.IntN(24)%6]
		m.Nanos = []int32{0, 1, 120_000_000, 120_000, 999_999_999, -1}[r.IntN(40)%6]
		return
	case *durationpb.Duration:
		m.Seconds = []int64{0, 1, 86_400, 315576000000}[r.IntN(4)]
		m.Nanos = []int32{0, 5, 500_000_000, 500_000, 999_999_999}[r.IntN(5)]
		if r.IntN(2) == 0 {
			m.Seconds, m.Nanos = -m.Seconds, -m.Nanos
		}
		return
	}
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if r.IntN(4) == 0 {
			continue
		}
		switch {
		case f.IsMap():
			entries := m.Mutable(f).Map()
			for range r.IntN(3) {
				entries.Set(protoreflect.ValueOfString(text(r)).MapKey(), scalar(r, f.MapValue()))
			}
		case f.IsList():
			list := m.Mutable(f).List()
			for range r.IntN(3) {
				if f.Kind() != protoreflect.MessageKind {
					list.Append(scalar(r, f))
				} else if depth > 0 {
					fill(r, list.AppendMutable().Message(), depth-1)
				}
			}
		case f.Kind() != protoreflect.MessageKind:
			m.Set(f, scalar(r, f))
		case depth > 0:
			fill(r, m.Mutable(f).Message(), depth-1)
		}
	}
}

func scalar(r *rand.Rand, f protoreflect.FieldDescriptor) protoreflect.Value {
	n := []uint64{0, 1, 1 << 20, math.MaxUint32, math.MaxUint64}[r.IntN(5)]
	switch f.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(n > 0)
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(int32(n))
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(uint32(n))
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(n)
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(float64(n) / 1000)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(r.IntN(20) - 1))
	}
	return protoreflect.ValueOfString(text(r))
}

// text returns a text of ordinary and of awkward pieces; one of the pieces is not UTF-8.
func text(r *rand.Rand) string {
	pieces := []string{
		"alice@isp.example", "<a href='x'>&", `"`, `\`, "\b\f\n\r\t", "\x00\x01\x0f\x10\x1f\x7f", "ü€", "\u2028\ufffd", "😀", "\xff",
	}
	s := ""
	for range r.IntN(4) {
		if p := pieces[r.IntN(len(pieces))]; p != "\xff" || r.IntN(20) == 0 {
			s += p
		}
	}
	return s
}

// BenchmarkFormats writes one subscriber in each format for programs; JSON also by protojson, and
// YAML by a library.
func BenchmarkFormats(b *testing.B) {
	at := timestamppb.Now()
	m := &pb.Subscriber{
		Group: "default", InsideAddress: "100.64.3.7", UserName: "user-1000@example.net", Nas: "bng-1.example.net", Client: "bng1",
		AcctSessionId: "0000000012345678", CallingStationId: "02:00:00:00:00:01", StartedAt: at, UpdatedAt: at, ExpiresAt: at,
		InputOctets: 123456789, OutputOctets: 1234567890, Binding: &pb.Binding{
			Group: "default", InsideAddress: "100.64.3.7", OutsideAddress: "198.51.100.7", FirstPort: 1024, LastPort: 2047,
			State: pb.BindingState_BINDING_STATE_ACTIVE, UserName: "user-1000@example.net", AcctSessionId: "0000000012345678", AllocatedAt: at,
		},
	}
	for name, write := range map[string]func([]byte, proto.Message) ([]byte, error){
		"json": (&jsonLines{}).append, "yaml": (&yamlDocuments{}).append, "csv": (&csvRecords{}).append,
		"protojson": appendSlowJSON, "go-yaml": appendLibraryYAML,
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			var line []byte
			for b.Loop() {
				var err error
				if line, err = write(line[:0], m); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// appendLibraryYAML appends a message by goccy/go-yaml, from its JSON.
func appendLibraryYAML(to []byte, m proto.Message) ([]byte, error) {
	line, err := (&jsonLines{}).append(nil, m)
	if err != nil {
		return to, err
	}
	document, err := yaml.JSONToYAML(line)
	return append(to, document...), err
}
