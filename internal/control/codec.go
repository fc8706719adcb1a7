package control

import (
	"context"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // registers the codec that this one extends
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
	"github.com/sessiond/sessiond/internal/inspect"
)

// encodedMessage is a message in encoded form. It can be sent on any number of
// streams at once, which share its octets.
type encodedMessage []byte

// pooledMessage is a message in encoded form that is sent on one stream. Its octets return to their
// pool then.
type pooledMessage struct{ mem.Buffer }

// messageCodec is the codec "proto", extended for encodedMessage.
// grpc.PreparedMsg is not suitable: a message above 1 kB returns to a pool
// after the first stream has sent it (grpc 1.85).
type messageCodec struct{ encoding.CodecV2 }

func newCodec() messageCodec { return messageCodec{encoding.GetCodecV2("proto")} }

// decodedRequest is a request to decode, with the error of decoding it.
//
// A request that cannot be decoded, such as one with text that is not UTF-8, is
// the caller's fault. gRPC would answer INTERNAL before our code runs. So
// decoding a decodedRequest always succeeds, and the code that handed it to
// gRPC checks its fault. The fault is in the request itself: a separate table
// would keep faults, with their requests, that are never checked.
type decodedRequest struct {
	message any
	fault   error // optional
}

// Unmarshal implements encoding.CodecV2.
func (c messageCodec) Unmarshal(data mem.BufferSlice, v any) error {
	request, ok := v.(*decodedRequest)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	if err := c.CodecV2.Unmarshal(data, request.message); err != nil {
		request.fault = invalid("request", "%v", err)
	}
	return nil
}

// serviceRegistrar registers services so that a request that cannot be decoded
// is answered with InvalidArgument. For streams, RecvMsg does the same. It notes the methods,
// for calls from within the program.
type serviceRegistrar struct {
	*grpc.Server
	methods map[string]servedMethod // by full name
}

// RegisterService implements grpc.ServiceRegistrar.
func (r serviceRegistrar) RegisterService(desc *grpc.ServiceDesc, service any) {
	own := *desc
	own.Methods = slices.Clone(desc.Methods)
	for i := range own.Methods {
		r.methods["/"+desc.ServiceName+"/"+own.Methods[i].MethodName] = servedMethod{service, own.Methods[i].Handler}
		own.Methods[i].Handler = answerFaults(own.Methods[i].Handler)
	}
	r.Server.RegisterService(&own, service)
}

// answerFaults passes a call with an undecodable request through the
// interceptor, and answers it in place of the service.
func answerFaults(method grpc.MethodHandler) grpc.MethodHandler {
	return func(service any, ctx context.Context, decode func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) {
		var request decodedRequest
		return method(service, ctx, func(m any) error {
			request.message = m
			return decode(&request)
		}, func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			if request.fault != nil {
				handler = func(context.Context, any) (any, error) { return nil, request.fault }
			}
			return intercept(ctx, req, info, handler)
		})
	}
}

// Marshal implements encoding.CodecV2.
func (c messageCodec) Marshal(v any) (mem.BufferSlice, error) {
	switch m := v.(type) {
	case encodedMessage:
		return mem.BufferSlice{mem.SliceBuffer(m)}, nil
	case pooledMessage:
		return mem.BufferSlice{m.Buffer}, nil
	}
	return c.CodecV2.Marshal(v)
}

// encodeNotice returns the encoded message with the event, for watchers.
func encodeNotice(n *inspect.Notice) ([]byte, error) {
	e := toEvent(&n.Event)
	e.ResumeToken = resumeToken(n.Position())
	return proto.Marshal(&pb.WatchSubscribersResponse{Event: e})
}

// togetherOctets bounds a message with several events.
const togetherOctets = 32 << 10

// eventsTag begins a message in the field "events" of WatchSubscribersResponse: field number and
// wire type (Protocol Buffers, "Encoding", "Message Structure"). "event" has as many octets.
const eventsTag = 2<<3 | 2

// encodeTogether returns a message with the first of the notices in "events", and how many it has. It
// is made of their messages, each of which is the field "event" alone.
func encodeTogether(notices []*inspect.Notice) (message pooledMessage, n int, err error) {
	size := 0
	for ; n < len(notices); n++ {
		octets, err := notices[n].Encoded(encodeNotice)
		if err != nil {
			return message, 0, err
		}
		if n > 0 && size+len(octets) > togetherOctets {
			break
		}
		size += len(octets)
	}
	pool := mem.DefaultBufferPool()
	buffer := pool.Get(size)
	rest := *buffer
	for _, notice := range notices[:n] {
		octets, _ := notice.Encoded(encodeNotice) // as before
		copy(rest, octets)
		rest[0] = eventsTag
		rest = rest[len(octets):]
	}
	return pooledMessage{mem.NewBuffer(buffer, pool)}, n, nil
}
