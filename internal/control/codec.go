package control

import (
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

// sharingCodec is the codec "proto", and takes an encodedMessage as it is.
// grpc.PreparedMsg would not do: one of more than 1 kB goes back to a pool with the
// first stream that sent it (grpc 1.85).
type sharingCodec struct{ encoding.CodecV2 }

func newCodec() encoding.CodecV2 { return sharingCodec{encoding.GetCodecV2("proto")} }

// Marshal implements encoding.CodecV2.
func (c sharingCodec) Marshal(v any) (mem.BufferSlice, error) {
	if m, ok := v.(encodedMessage); ok {
		return mem.BufferSlice{mem.SliceBuffer(m)}, nil
	}
	return c.CodecV2.Marshal(v)
}

// encodeEvent returns the message that tells watchers of the event.
func encodeEvent(e *inspect.Event) ([]byte, error) {
	return proto.Marshal(&pb.WatchSubscribersResponse{Event: toEvent(e)})
}
