package control_test

import (
	"errors"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"

	"github.com/sessiond/sessiond/internal/control/controltest"
)

// TestUndecodableRequestIsTheCallersFault: text that is not UTF-8, which a careless
// program takes from RADIUS, is an invalid argument and no failure of the daemon.
func TestUndecodableRequestIsTheCallersFault(t *testing.T) {
	t.Parallel()
	conn := dial(t, controltest.Serve(t, controltest.Scene(), nil).Address)
	raw := grpc.ForceCodecV2(rawCodec{})
	garbage := []byte{0x0a, 2, 0xff, 0xfe} // field 1, of two octets
	err := conn.Invoke(t.Context(), "/sessiond.v1.SubscriberService/GetSubscriber", garbage, new([]byte), raw)
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("a call: %v", err)
	}
	stream, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true}, "/sessiond.v1.SubscriberService/WatchSubscribers", raw)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(stream.SendMsg(garbage), stream.CloseSend()); err != nil {
		t.Fatal(err)
	}
	if err := stream.RecvMsg(new([]byte)); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a stream: %v", err)
	}
}

// rawCodec sends octets as they are.
type rawCodec struct{}

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.([]byte))}, nil
}
func (rawCodec) Unmarshal(mem.BufferSlice, any) error { return nil }
func (rawCodec) Name() string                         { return "proto" }
