package controltest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// packages are the proto packages of the services that sessiond serves.
var packages = []protoreflect.FullName{"sessiond.v1", "grpc.health.v1", "grpc.reflection.v1", "grpc.reflection.v1alpha"}

// Methods returns all methods of the services that sessiond serves, from the
// registry of all protos in the program.
func Methods() (methods []protoreflect.MethodDescriptor) {
	protoregistry.GlobalFiles.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		served := slices.Contains(packages, f.Package())
		for i := 0; served && i < f.Services().Len(); i++ {
			all := f.Services().Get(i).Methods()
			for j := range all.Len() {
				methods = append(methods, all.Get(j))
			}
		}
		return true
	})
	slices.SortFunc(methods, func(a, b protoreflect.MethodDescriptor) int { return cmp.Compare(FullName(a), FullName(b)) })
	return methods
}

// FullName returns the name of a method as gRPC has it.
func FullName(m protoreflect.MethodDescriptor) string {
	return fmt.Sprintf("/%s/%s", m.Parent().FullName(), m.Name())
}

// reading are the verbs of methods that change nothing.
var reading = []string{"Get", "List", "Watch", "Count", "Lookup", "Advise", "Verify", "Explain", "Check", "ServerReflectionInfo"}

// Reads reports whether a call changes nothing, by the verb of its method, or as
// a dry run. It knows nothing of roles, so that tests can compare these with it.
func Reads(m protoreflect.MethodDescriptor, request any) bool {
	dry, ok := request.(interface{ GetDryRun() bool })
	return ok && dry.GetDryRun() || slices.ContainsFunc(reading, func(verb string) bool { return strings.HasPrefix(string(m.Name()), verb) })
}

// NewMessage returns an empty message.
func NewMessage(d protoreflect.MessageDescriptor) proto.Message {
	kind, err := protoregistry.GlobalTypes.FindMessageByName(d.FullName())
	if err != nil {
		panic("controltest: " + err.Error())
	}
	return kind.New().Interface()
}

// Call makes a call, and returns the error of its answer; nil as soon as a
// stream is open, or has ended well.
func Call(ctx context.Context, conn *grpc.ClientConn, m protoreflect.MethodDescriptor, request any, options ...grpc.CallOption) error {
	answer := NewMessage(m.Output())
	if !m.IsStreamingServer() {
		return conn.Invoke(ctx, FullName(m), request, answer, options...)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: m.IsStreamingClient()}, FullName(m), options...)
	if err != nil {
		return err
	}
	if err := errors.Join(stream.SendMsg(request), stream.CloseSend()); err != nil {
		return err
	}
	if header, err := stream.Header(); err != nil || header != nil {
		return err
	}
	if err := stream.RecvMsg(answer); !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// Random returns a message with random values in some of its fields: what is
// likely to be meant, and what nobody means.
func Random(r *rand.Rand, d protoreflect.MessageDescriptor) proto.Message {
	m := NewMessage(d)
	fill(r, m.ProtoReflect(), 1+r.IntN(4), 4)
	return m
}

// fill sets so many quarters of the fields, of messages within to a depth.
func fill(r *rand.Rand, m protoreflect.Message, quarters, depth int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if r.IntN(4) >= quarters || depth == 0 && f.Message() != nil {
			continue
		}
		switch {
		case f.IsList():
			list := m.Mutable(f).List()
			for range r.IntN(4) {
				if f.Message() != nil {
					fill(r, list.AppendMutable().Message(), quarters, depth-1)
				} else {
					list.Append(value(r, f))
				}
			}
		case f.IsMap(): // none of the API has one
		case f.Message() != nil:
			fill(r, m.Mutable(f).Message(), quarters, depth-1)
		default:
			m.Set(f, value(r, f))
		}
	}
}

var (
	texts = []string{
		"", "default", "100.64.0.7", "100.64.0.10", "user-100.64.0.10", "100.64.0.0/10", "198.51.100.1:1024", "alice", "bng1", "::1", "::ffff:100.64.0.7", "0.0.0.0/0",
		"*", "\x00", "../../etc/passwd", "%00%ff", "<script>", "idle_timeouts.udp", "subscriber_session_removal",
	}
	numbers = []int64{0, 1, -1, 2, 6, 17, 512, 1024, 65535, 65536, math.MaxInt32, math.MinInt32, math.MaxInt64, math.MinInt64}
)

// value returns a random value of a field that is no message.
func value(r *rand.Rand, f protoreflect.FieldDescriptor) protoreflect.Value {
	n := numbers[r.IntN(len(numbers))]
	switch f.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(r.IntN(2) == 0)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(r.IntN(12) - 1))
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(text(r))
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte(text(r)))
	case protoreflect.FloatKind:
		return protoreflect.ValueOfFloat32(float32(n))
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(float64(n))
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		return protoreflect.ValueOfInt32(int32(n))
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return protoreflect.ValueOfUint32(uint32(n))
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return protoreflect.ValueOfUint64(uint64(n))
	}
	return protoreflect.ValueOfInt64(n)
}

func text(r *rand.Rand) string {
	one := texts[r.IntN(len(texts))]
	switch r.IntN(8) {
	case 0:
		return one + texts[r.IntN(len(texts))]
	case 1:
		return one + string(make([]byte, r.IntN(5000)))
	}
	return one
}
