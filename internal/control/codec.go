package control

import (
	"context"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // registers the codec that this one begins with
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
	"github.com/sessiond/sessiond/internal/inspect"
)

// encodedMessage is a message that was encoded before. It can be sent on any number
// of streams at once, which share its octets.
type encodedMessage []byte

// messageCodec is the codec "proto", and takes an encodedMessage as it is.
// grpc.PreparedMsg would not do: one of more than 1 kB goes back to a pool with the
// first stream that sent it (grpc 1.85).
type messageCodec struct{ encoding.CodecV2 }

func newCodec() messageCodec { return messageCodec{encoding.GetCodecV2("proto")} }

// decodedRequest is a request to decode, and why it could not be.
//
// A request that cannot be decoded, such as one whose text is not UTF-8, is its caller's
// fault. gRPC answers INTERNAL before anybody can say so. A decodedRequest always counts as
// decoded, and whoever handed it to gRPC looks at its fault. The fault belongs to the call:
// a table of faults would keep those for which nobody asks, with their requests.
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

// serviceRegistrar registers services on whose calls a request that cannot be decoded is
// answered as its caller's fault. Streams see to that in RecvMsg.
type serviceRegistrar struct{ *grpc.Server }

// RegisterService implements grpc.ServiceRegistrar.
func (r serviceRegistrar) RegisterService(desc *grpc.ServiceDesc, service any) {
	own := *desc
	own.Methods = slices.Clone(desc.Methods)
	for i := range own.Methods {
		own.Methods[i].Handler = answerFaults(own.Methods[i].Handler)
	}
	r.Server.RegisterService(&own, service)
}

// answerFaults lets the interceptor see a call whose request cannot be decoded, and
// answers it in place of the service.
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
	if m, ok := v.(encodedMessage); ok {
		return mem.BufferSlice{mem.SliceBuffer(m)}, nil
	}
	return c.CodecV2.Marshal(v)
}

// encodeEvent returns the message that tells watchers of the event.
func encodeEvent(e *inspect.Event) ([]byte, error) {
	return proto.Marshal(&pb.WatchSubscribersResponse{Event: toEvent(e)})
}
