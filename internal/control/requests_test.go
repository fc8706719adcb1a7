package control_test

import (
	"context"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
	"github.com/sessiond/sessiond/internal/access"
	"github.com/sessiond/sessiond/internal/control"
	"github.com/sessiond/sessiond/internal/control/controltest"
	"github.com/sessiond/sessiond/internal/inspect"
)

// inspected checks the answer to one call of anything: a viewer changes
// nothing, and no request is a fault of the server's.
type inspected struct {
	viewed, served *controltest.Backend
	viewer, admin  *grpc.ClientConn
	before         string
}

func serveAnything(t testing.TB) *inspected {
	t.Helper()
	a := &inspected{viewed: controltest.Scene(), served: controltest.Scene()}
	a.before = a.viewed.State()
	connect := func(b *controltest.Backend, r access.Role) *grpc.ClientConn {
		server := controltest.Serve(t, b, func(o *control.Options) { o.LocalRole = r })
		return dial(t, server.Address)
	}
	a.viewer, a.admin = connect(a.viewed, access.Viewer), connect(a.served, access.Admin)
	return a
}

func (a *inspected) call(t *testing.T, m protoreflect.MethodDescriptor, request any, mayRead bool, options ...grpc.CallOption) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	name := controltest.FullName(m)
	err := controltest.Call(ctx, a.viewer, m, request, options...)
	needed, _ := access.Needed(name, nil)
	if needed > access.Viewer && !mayRead && status.Code(err) != codes.PermissionDenied {
		t.Errorf("%s of a viewer: %v, with %v", name, err, request)
	}
	if a.viewed.State() != a.before {
		t.Fatalf("%s of a viewer changed something, with %v", name, request)
	}
	err = controltest.Call(ctx, a.admin, m, request, options...)
	if bad := []codes.Code{codes.Internal, codes.Unknown, codes.Unavailable, codes.DeadlineExceeded}; slices.Contains(bad, status.Code(err)) {
		t.Errorf("%s of an admin: %v, with %v", name, err, request)
	}
}

// TestRandomRequests: random fields in the requests of every method crash
// nothing, and a viewer's change nothing.
func TestRandomRequests(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r, a := rand.New(rand.NewPCG(seed, 0)), serveAnything(t)
	for range 25 {
		for _, m := range controltest.Methods() {
			request := controltest.Random(r, m.Input())
			dry, ok := request.(interface{ GetDryRun() bool })
			a.call(t, m, request, ok && dry.GetDryRun())
		}
	}
}

// octetCodec sends octets as they are.
type octetCodec struct{}

// Name implements encoding.Codec.
func (octetCodec) Name() string { return "proto" }

// Marshal implements encoding.Codec.
func (octetCodec) Marshal(v any) ([]byte, error) { return v.([]byte), nil }

// Unmarshal implements encoding.Codec.
func (octetCodec) Unmarshal([]byte, any) error { return nil }

// FuzzRequests: the same for requests of any octets.
func FuzzRequests(f *testing.F) {
	methods := controltest.Methods()
	for i := range methods {
		f.Add(uint8(i), []byte{})
		f.Add(uint8(i), []byte("\x0a\x0a100.64.0.7\x12\x05alice"))
		f.Add(uint8(i), []byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f})
	}
	a := serveAnything(f)
	f.Fuzz(func(t *testing.T, method uint8, request []byte) {
		a.call(t, methods[int(method)%len(methods)], request, true, grpc.ForceCodec(octetCodec{}))
	})
}

// slowControls ends no call before its context.
type slowControls struct{ *controltest.Backend }

// Status implements control.Controls.
func (s slowControls) Status(ctx context.Context) (inspect.Status, error) {
	<-ctx.Done()
	return inspect.Status{}, ctx.Err()
}

// TestCallsEnd_I10: a call that has no deadline of its caller's has one of the
// server's.
func TestCallsEnd_I10(t *testing.T) {
	t.Parallel()
	server := controltest.Serve(t, controltest.Scene(), func(o *control.Options) {
		o.Controls, o.Limits = slowControls{controltest.Scene()}, control.Limits{CallTimeout: 100 * time.Millisecond}
	})
	_, err := pb.NewControlServiceClient(dial(t, server.Address)).GetStatus(context.Background(), &pb.GetStatusRequest{})
	if status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("the call ended with %v", err)
	}
}

// TestLargeRequestsAreRefused_I10: requests, and their headers, have bounds far
// below those of gRPC.
func TestLargeRequestsAreRefused_I10(t *testing.T) {
	t.Parallel()
	client := pb.NewSubscriberServiceClient(dial(t, controltest.Serve(t, controltest.Scene(), nil).Address))
	list := func(ctx context.Context, octets int) error {
		_, err := client.ListSubscribers(ctx, &pb.ListSubscribersRequest{UserName: strings.Repeat("u", octets)})
		return err
	}
	if err := list(t.Context(), 300<<10); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a request of 300 KiB: %v", err)
	}
	large := metadata.AppendToOutgoingContext(t.Context(), "x-large", strings.Repeat("h", 20<<10))
	if err := list(large, 1); err == nil {
		t.Error("a header of 20 KiB is taken")
	}
	if err := list(t.Context(), 100); err != nil {
		t.Errorf("a small request afterwards: %v", err)
	}
}

// TestPingsAreBounded_I10: a client that sends keepalives without end loses its
// connection.
func TestPingsAreBounded_I10(t *testing.T) {
	t.Parallel()
	frames, _ := rawCall(t, controltest.Serve(t, controltest.Scene(), nil).Address, "/sessiond.v1.ControlService/GetStatus")
	if err := frames.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	for range 8 {
		if err := frames.WritePing(false, [8]byte{}); err != nil {
			break // it is closed already
		}
	}
	for {
		f, err := frames.ReadFrame()
		if err != nil {
			t.Fatalf("the connection ended without a reason: %v", err)
		}
		if away, ok := f.(*http2.GoAwayFrame); ok {
			if away.ErrCode != http2.ErrCodeEnhanceYourCalm {
				t.Errorf("it ended with %v", away.ErrCode)
			}
			return
		}
	}
}
