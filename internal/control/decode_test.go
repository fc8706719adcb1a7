package control_test

import (
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
	"github.com/sessiond/sessiond/internal/control/controltest"
)

// TestUndecodableRequestIsTheCallersFault: text that is not UTF-8, which a
// program may copy from RADIUS, is an invalid argument and not an internal
// error.
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

// TestUndecodableRequestIsNotKept_I10: such a request leaves nothing in memory
// after any end of its stream. A second message ends the stream before the
// first is read.
func TestUndecodableRequestIsNotKept_I10(t *testing.T) {
	conn := dial(t, controltest.Serve(t, controltest.Scene(), nil).Address)
	filter, err := proto.Marshal(&pb.WatchSubscribersRequest{UserName: strings.Repeat("u", 200_000)})
	if err != nil {
		t.Fatal(err)
	}
	garbage := append(filter, 0x0a, 2, 0xff, 0xfe) // field 1, of two octets
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	const streams = 200
	for range streams {
		stream, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true},
			"/sessiond.v1.SubscriberService/WatchSubscribers", grpc.ForceCodecV2(rawCodec{}))
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // the server may have ended the stream already
			if err := stream.SendMsg(garbage); err != nil && !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
		}
		if err := stream.RecvMsg(new([]byte)); err == nil {
			t.Fatal("a stream with two requests was answered")
		}
	}
	if after := heap(); after > before+streams*uint64(len(garbage))/4 {
		t.Errorf("after %d streams of %d octets each the heap grew from %d to %d octets", streams, len(garbage), before, after)
	}
}

// rawCodec sends octets unchanged.
type rawCodec struct{}

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.([]byte))}, nil
}
func (rawCodec) Unmarshal(mem.BufferSlice, any) error { return nil }
func (rawCodec) Name() string                         { return "proto" }
