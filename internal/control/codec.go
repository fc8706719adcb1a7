package control

import (
	"sync"

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
//
// A request that cannot be decoded, such as one whose text is not UTF-8, is its caller's
// fault. gRPC answers INTERNAL before anybody can say so. Here it counts as decoded, and
// whoever takes it asks for its fault.
type messageCodec struct {
	encoding.CodecV2
	faults sync.Map // of requests, until they are asked for
}

func newCodec() *messageCodec { return &messageCodec{CodecV2: encoding.GetCodecV2("proto")} }

// Unmarshal implements encoding.CodecV2.
func (c *messageCodec) Unmarshal(data mem.BufferSlice, v any) error {
	if err := c.CodecV2.Unmarshal(data, v); err != nil {
		c.faults.Store(v, err)
	}
	return nil
}

// fault returns why a request could not be decoded. Each is to be asked once.
func (c *messageCodec) fault(request any) error {
	if err, found := c.faults.LoadAndDelete(request); found {
		return invalid("request", "%v", err)
	}
	return nil
}

// Marshal implements encoding.CodecV2.
func (c *messageCodec) Marshal(v any) (mem.BufferSlice, error) {
	if m, ok := v.(encodedMessage); ok {
		return mem.BufferSlice{mem.SliceBuffer(m)}, nil
	}
	return c.CodecV2.Marshal(v)
}

// encodeEvent returns the message that tells watchers of the event.
func encodeEvent(e *inspect.Event) ([]byte, error) {
	return proto.Marshal(&pb.WatchSubscribersResponse{Event: toEvent(e)})
}
