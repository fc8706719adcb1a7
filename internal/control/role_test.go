package control_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
	"github.com/sessiond/sessiond/internal/control"
	"github.com/sessiond/sessiond/internal/control/controltest"
	"github.com/sessiond/sessiond/internal/testenv"
)

const nobody = 65534

// dialAs connects as another user: a socket belongs to the user of the thread
// that makes it.
func dialAs(t *testing.T, user int, address string, creds credentials.TransportCredentials) *grpc.ClientConn {
	t.Helper()
	return dial(t, address, grpc.WithTransportCredentials(creds),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			network := "tcp"
			if path, ok := strings.CutPrefix(address, "unix:"); ok {
				network, address = "unix", path
			}
			type dialed struct {
				conn net.Conn
				err  error
			}
			done := make(chan dialed, 1)
			go func() {
				runtime.LockOSThread() // and never unlock: the thread ends with the goroutine
				if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(user), uintptr(user), uintptr(user)); e != 0 {
					done <- dialed{nil, e}
					return
				}
				if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(user), uintptr(user), uintptr(user)); e != 0 {
					done <- dialed{nil, e}
					return
				}
				var d net.Dialer
				c, err := d.DialContext(ctx, network, address)
				done <- dialed{c, err}
			}()
			d := <-done
			return d.conn, d.err
		}))
}

// everyChange calls each method that changes something, with arguments that a
// server either accepts or rejects as invalid.
func everyChange(ctx context.Context, conn *grpc.ClientConn) map[string]error {
	subscribers, removals := pb.NewSubscriberServiceClient(conn), pb.NewRemovalServiceClient(conn)
	controls, sessions := pb.NewControlServiceClient(conn), pb.NewSessionServiceClient(conn)
	pools := pb.NewNatServiceClient(conn)
	errs := map[string]error{}
	_, errs["AddPool"] = pools.AddPool(ctx, &pb.AddPoolRequest{})
	_, errs["DrainPool"] = pools.DrainPool(ctx, &pb.DrainPoolRequest{})
	_, errs["RemovePool"] = pools.RemovePool(ctx, &pb.RemovePoolRequest{})
	mappings := pb.NewMappingServiceClient(conn)
	_, errs["CreateMapping"] = mappings.CreateMapping(ctx, &pb.CreateMappingRequest{})
	_, errs["DeleteMapping"] = mappings.DeleteMapping(ctx, &pb.DeleteMappingRequest{})
	_, errs["PutSubscriber"] = subscribers.PutSubscriber(ctx, &pb.PutSubscriberRequest{})
	_, errs["DeleteSubscribers"] = subscribers.DeleteSubscribers(ctx, &pb.DeleteSubscribersRequest{Nas: "nowhere"})
	_, errs["TerminateSessions"] = sessions.TerminateSessions(ctx, &pb.TerminateSessionsRequest{})
	_, errs["UpdateSettings"] = controls.UpdateSettings(ctx, &pb.UpdateSettingsRequest{})
	_, errs["Reconcile"] = controls.Reconcile(ctx, &pb.ReconcileRequest{})
	_, errs["ConfirmRemovals"] = removals.ConfirmRemovals(ctx, &pb.ConfirmRemovalsRequest{})
	_, errs["RefuseRemovals"] = removals.RefuseRemovals(ctx, &pb.RefuseRemovalsRequest{})
	return errs
}

// everyRead calls methods that change nothing.
func everyRead(ctx context.Context, conn *grpc.ClientConn) map[string]error {
	errs := map[string]error{}
	_, errs["GetSubscriber"] = pb.NewSubscriberServiceClient(conn).GetSubscriber(ctx, &pb.GetSubscriberRequest{InsideAddress: "100.64.0.7"})
	_, errs["ListBindings"] = pb.NewNatServiceClient(conn).ListBindings(ctx, &pb.ListBindingsRequest{})
	_, errs["Reconcile, dry run"] = pb.NewControlServiceClient(conn).Reconcile(ctx, &pb.ReconcileRequest{DryRun: true})
	_, errs["ListNases"] = pb.NewNasServiceClient(conn).ListNases(ctx, &pb.ListNasesRequest{})
	_, errs["ListMappings"] = pb.NewMappingServiceClient(conn).ListMappings(ctx, &pb.ListMappingsRequest{})
	_, errs["WatchSubscribers"] = watch(ctx, conn)
	return errs
}

// TestWhoMayChange: over loopback TCP, root and the daemon's user may change,
// or the callers that the configuration admits; over the unix socket, every
// user who may open it.
func TestWhoMayChange(t *testing.T) {
	testenv.Require(t, testenv.Root)
	t.Parallel()
	certs := controltest.MakeCerts(t)
	for name, tt := range map[string]struct {
		role      control.LocalRole
		user      int
		tls       control.TLS
		overUnix  bool
		mayChange bool
	}{
		"root":                  {user: 0, mayChange: true},
		"another user":          {user: nobody},
		"another user by TLS":   {user: nobody, tls: control.TLS{CertFile: certs.Server, KeyFile: certs.ServerKey}},
		"root where all read":   {role: control.LocalViewer, user: 0},
		"another as admin":      {role: control.LocalAdmin, user: nobody, mayChange: true},
		"another as certified":  {user: nobody, tls: control.TLS{CertFile: certs.Server, KeyFile: certs.ServerKey, ClientCAFile: certs.CA}, mayChange: true},
		"in the socket's group": {role: control.LocalViewer, user: nobody, overUnix: true, mayChange: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			folder, err := os.MkdirTemp("", "sessiond-role-")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = os.RemoveAll(folder) })
			if err := os.Chmod(folder, 0o755); err != nil {
				t.Fatal(err)
			}
			socket := filepath.Join(folder, "s")
			server := controltest.Serve(t, controltest.Scene(), func(o *control.Options) {
				o.LocalRole, o.TLS, o.Socket, o.SocketGroup = tt.role, tt.tls, socket, "65534"
			})
			creds := insecure.NewCredentials()
			if tt.tls != (control.TLS{}) {
				creds = clientTLS(t, certs)
			}
			address := server.Address
			if tt.overUnix {
				address = "passthrough:///unix:" + socket
			}
			conn := dialAs(t, tt.user, address, creds)
			for method, err := range everyChange(t.Context(), conn) {
				refused := status.Code(err) == codes.PermissionDenied
				if refused == tt.mayChange {
					t.Errorf("%s: %v", method, err)
				}
				if refused && (!strings.Contains(err.Error(), "may only read here; call over unix:"+socket)) {
					t.Errorf("%s does not say what to do: %v", method, err)
				}
			}
			for method, err := range everyRead(t.Context(), conn) {
				if err != nil {
					t.Errorf("%s: %v", method, err)
				}
			}
		})
	}
}

// TestEveryMethodIsReadOrChange: a new method of the API counts as a change
// until it is listed as reading.
func TestEveryMethodIsReadOrChange(t *testing.T) {
	t.Parallel()
	var changes []string
	for _, service := range []grpc.ServiceDesc{
		pb.SubscriberService_ServiceDesc, pb.NatService_ServiceDesc, pb.SessionService_ServiceDesc,
		pb.ControlService_ServiceDesc, pb.RemovalService_ServiceDesc, pb.NasService_ServiceDesc, pb.MappingService_ServiceDesc, pb.AuditService_ServiceDesc,
	} {
		for _, m := range service.Methods {
			if control.Changes("/"+service.ServiceName+"/"+m.MethodName, nil) {
				changes = append(changes, m.MethodName)
			}
		}
		for _, s := range service.Streams {
			if control.Changes("/"+service.ServiceName+"/"+s.StreamName, nil) {
				t.Errorf("the stream %s counts as a change", s.StreamName)
			}
		}
	}
	slices.Sort(changes)
	want := "AddPool ConfirmRemovals CreateMapping DeleteMapping DeleteSubscribers DrainPool PutSubscriber Reconcile RefuseRemovals RemovePool TerminateSessions UpdateSettings"
	if got := strings.Join(changes, " "); got != want {
		t.Errorf("changes are %s, want %s", got, want)
	}
	for method := range changeCalls() {
		_, name, _ := strings.Cut(method, "/")
		changes = slices.DeleteFunc(changes, func(change string) bool { return change == name })
	}
	if len(changes) > 0 {
		t.Errorf("changeCalls has no request of %v", changes)
	}
}

// TestSocketBesideAddress: both serve, the socket without TLS, and each has its
// own limits.
func TestSocketBesideAddress(t *testing.T) {
	t.Parallel()
	certs := controltest.MakeCerts(t)
	socket := filepath.Join(t.TempDir(), "s")
	leaveStaleSocket(t, socket)
	server := controltest.Serve(t, controltest.Scene(), func(o *control.Options) {
		o.Socket, o.TLS = socket, control.TLS{CertFile: certs.Server, KeyFile: certs.ServerKey}
		o.Limits = control.Limits{Connections: 1, Streams: 1}
	})
	remote := dial(t, server.Address, grpc.WithTransportCredentials(clientTLS(t, certs)))
	for _, conn := range []*grpc.ClientConn{remote, dial(t, "unix:"+socket)} {
		if _, err := watch(t.Context(), conn); err != nil {
			t.Errorf("%s: %v", conn.Target(), err)
		}
	}
	if addrs := server.Addrs(); len(addrs) != 2 || addrs[1].String() != socket {
		t.Errorf("listens on %v", addrs)
	}
	o := options("127.0.0.1:0")
	o.Socket = socket
	if _, err := control.New(o); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("the socket of a live server: %v", err)
	}
}
