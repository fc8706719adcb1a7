package control_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
	"github.com/sessiond/sessiond/internal/control"
	"github.com/sessiond/sessiond/internal/control/controltest"
)

func dial(t testing.TB, address string, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	if len(options) == 0 {
		options = []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
	}
	conn, err := grpc.NewClient(address, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func TestHealthFollowsReadiness(t *testing.T) {
	t.Parallel()
	server := controltest.Serve(t, controltest.Scene(), nil)
	client := healthpb.NewHealthClient(dial(t, server.Address))
	for _, ready := range []bool{false, true, false} {
		server.SetReady(ready)
		for _, service := range []string{"", "sessiond.v1.SubscriberService", "sessiond.v1.NatService", "sessiond.v1.SessionService", "sessiond.v1.ControlService", "sessiond.v1.RemovalService", "sessiond.v1.NasService", "sessiond.v1.MappingService"} {
			res, err := client.Check(t.Context(), &healthpb.HealthCheckRequest{Service: service})
			if err != nil || (res.GetStatus() == healthpb.HealthCheckResponse_SERVING) != ready {
				t.Errorf("ready %v: service %q is %v, %v", ready, service, res.GetStatus(), err)
			}
		}
	}
}

func TestReflectionListsServices(t *testing.T) {
	t.Parallel()
	server := controltest.Serve(t, controltest.Scene(), nil)
	stream, err := reflectionpb.NewServerReflectionClient(dial(t, server.Address)).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	err = stream.Send(&reflectionpb.ServerReflectionRequest{
		MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{},
	})
	if err != nil {
		t.Fatal(err)
	}
	res, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range res.GetListServicesResponse().GetService() {
		names = append(names, s.GetName())
	}
	all := strings.Join(names, " ")
	for _, want := range []string{"SubscriberService", "NatService", "SessionService", "ControlService", "RemovalService", "NasService", "MappingService"} {
		if !strings.Contains(all, "sessiond.v1."+want) {
			t.Errorf("reflection does not list %s: %s", want, all)
		}
	}
}

func TestUnixSocket(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s.sock")
	leaveStaleSocket(t, path)
	server := controltest.Serve(t, controltest.Scene(), func(o *control.Options) { o.Listen = "unix:" + path })
	status, err := pb.NewControlServiceClient(dial(t, server.Address)).GetStatus(t.Context(), &pb.GetStatusRequest{})
	if err != nil || status.GetStatus().GetNode() != "cgn1" {
		t.Errorf("status over %s: %v, %v", server.Address, status, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("mode of the socket: %v, %v", info.Mode(), err)
	}
	if _, err := control.New(options("unix:" + path)); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a second server on the same socket: %v", err)
	}
}

// leaveStaleSocket makes a socket file like that of a killed daemon.
func leaveStaleSocket(t *testing.T, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestUnixSocketKeepsForeignFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(path, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := control.New(options("unix:" + path)); err == nil {
		t.Error("a file that is no socket was taken over")
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != "data" {
		t.Errorf("the file is now %q, %v", data, err)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	t.Parallel()
	for field, spoil := range map[string]func(*control.Options){
		"Listen":      func(o *control.Options) { o.Listen = "" },
		"Subscribers": func(o *control.Options) { o.Subscribers = nil },
		"Nat":         func(o *control.Options) { o.Nat = nil },
		"NASes":       func(o *control.Options) { o.NASes = nil },
		"Mappings":    func(o *control.Options) { o.Mappings = nil },
		"Sessions":    func(o *control.Options) { o.Sessions = nil },
		"Controls":    func(o *control.Options) { o.Controls = nil },
		"Logger":      func(o *control.Options) { o.Logger = nil },
		"CertFile":    func(o *control.Options) { o.TLS.KeyFile = "key.pem" },
		"certificate": func(o *control.Options) { o.TLS = control.TLS{CertFile: "absent", KeyFile: "absent"} },
	} {
		o := options("127.0.0.1:0")
		spoil(&o)
		if _, err := control.New(o); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("without %s: %v", field, err)
		}
	}
}

func TestStopEndsWatches(t *testing.T) {
	t.Parallel()
	server := controltest.Serve(t, controltest.Scene(), nil)
	stream, err := pb.NewSubscriberServiceClient(dial(t, server.Address)).
		WatchSubscribers(t.Context(), &pb.WatchSubscribersRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Header(); err != nil {
		t.Fatal(err)
	}
	server.Stop(t)
	if _, err := stream.Recv(); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "stopping") {
		t.Errorf("the watch ended with %v", err)
	}
}

func TestRunFailsWithItsListener(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o := options("")
	o.Listener = l
	server, err := control.New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := server.Run(context.Background()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Run: %v", err)
	}
}
