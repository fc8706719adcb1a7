package control_test

import (
	"context"
	"crypto/x509"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
	"github.com/sessiond/sessiond/internal/access"
	"github.com/sessiond/sessiond/internal/control"
	"github.com/sessiond/sessiond/internal/control/controltest"
	"github.com/sessiond/sessiond/internal/testenv"
)

const nobody = 65534

// dialAs connects as another user, with a supplementary group: a socket belongs to the
// user of the thread that makes it.
func dialAs(t *testing.T, user, group int, address string, creds credentials.TransportCredentials) *grpc.ClientConn {
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
				groups := []uint32{uint32(group)}
				if _, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, 1, uintptr(unsafe.Pointer(&groups[0])), 0); e != 0 {
					done <- dialed{nil, e}
					return
				}
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

// TestEveryMethodHasARole: the one table has each method of the API, and no
// other. A new method fails here until it has a role.
func TestEveryMethodHasARole(t *testing.T) {
	t.Parallel()
	var names []string
	for _, m := range controltest.Methods() {
		names = append(names, controltest.FullName(m))
	}
	listed := access.Methods()
	slices.Sort(names)
	slices.Sort(listed)
	for _, name := range names {
		if !slices.Contains(listed, name) {
			t.Errorf("%s has no role; give it one in internal/access/methods.go", name)
		}
	}
	for _, name := range listed {
		if !slices.Contains(names, name) {
			t.Errorf("%s has a role, and is no method", name)
		}
	}
	if len(names) < 30 {
		t.Errorf("only %d methods were found", len(names))
	}
}

// TestViewersReadOnly: a viewer may call the methods whose verb reads, and no
// other.
func TestViewersReadOnly(t *testing.T) {
	t.Parallel()
	for _, m := range controltest.Methods() {
		if needed, _ := access.Needed(controltest.FullName(m), nil); controltest.Reads(m, nil) != (needed <= access.Viewer) {
			t.Errorf("%s needs role %v", m.Name(), needed)
		}
	}
}

// bearing is a context whose calls show a token.
func bearing(ctx context.Context, token string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
}

// tokenFile makes a file with a token.
func tokenFile(t *testing.T, token string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "token")
	writeFile(t, file, token+"\n")
	return file
}

func writeFile(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// certified returns credentials with a certificate for a URI.
func certified(t *testing.T, certs controltest.Certs, uri string) credentials.TransportCredentials {
	t.Helper()
	u, err := url.Parse(uri)
	if err != nil {
		t.Fatal(err)
	}
	certs.Client, certs.ClientKey = certs.Issue(t, x509.Certificate{URIs: []*url.URL{u}})
	return clientTLS(t, certs)
}

const (
	viewerToken   = "viewer-token-viewer-token"
	operatorToken = "operator-token-operator-token"
	adminToken    = "admin-token-admin-token-admin"
)

// granting are grants for each role and each way to be known.
func granting(t *testing.T) []control.Grant {
	t.Helper()
	return []control.Grant{
		{Role: access.Viewer, SAN: "spiffe://isp/viewer"},
		{Role: access.Operator, SAN: "spiffe://isp/operator"},
		{Role: access.Admin, SAN: "spiffe://isp/admin"},
		{Role: access.Viewer, UnixGroup: "65101"},
		{Role: access.Operator, UnixGroup: "65102"},
		{Role: access.Viewer, Name: "v", TokenFile: tokenFile(t, viewerToken)},
		{Role: access.Operator, Name: "o", TokenFile: tokenFile(t, operatorToken)},
		{Role: access.Admin, Name: "a", TokenFile: tokenFile(t, adminToken)},
	}
}

// openFolder makes a folder that other users can enter.
func openFolder(t *testing.T) string {
	t.Helper()
	folder, err := os.MkdirTemp("", "sessiond-rights-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	if err := os.Chmod(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	return folder
}

// TestEveryMethodByRole: by each way to be known, a caller may call the methods
// of its role, of all that there are, and no other. A refusal has the role that
// is needed, and advice.
func TestEveryMethodByRole(t *testing.T) {
	testenv.Require(t, testenv.Root)
	t.Parallel()
	certs := controltest.MakeCerts(t)
	serve := func(t *testing.T, local access.Role, secured bool) (address, socket string) {
		socket = filepath.Join(openFolder(t), "s")
		server := controltest.Serve(t, controltest.Scene(), func(o *control.Options) {
			o.Socket, o.SocketGroup, o.LocalRole, o.Grants = socket, "65534", local, granting(t)
			if secured {
				o.TLS = control.TLS{CertFile: certs.Server, KeyFile: certs.ServerKey, ClientCAFile: certs.CA}
			}
		})
		return server.Address, "passthrough:///unix:" + socket
	}
	overTCP := func(t *testing.T, local access.Role) *grpc.ClientConn {
		address, _ := serve(t, local, false)
		return dialAs(t, nobody, nobody, address, insecure.NewCredentials())
	}
	overSocket := func(t *testing.T, user, group int) *grpc.ClientConn {
		_, socket := serve(t, access.None, false)
		return dialAs(t, user, group, socket, insecure.NewCredentials())
	}
	shows := func(t *testing.T, uri string) *grpc.ClientConn {
		address, _ := serve(t, access.Admin, true)
		return dial(t, address, grpc.WithTransportCredentials(certified(t, certs, uri)))
	}
	for name, tt := range map[string]struct {
		conn   func(*testing.T) *grpc.ClientConn
		token  string
		role   access.Role
		advice string
	}{
		"loopback, none":        {conn: func(t *testing.T) *grpc.ClientConn { return overTCP(t, access.None) }, role: access.None, advice: "call over unix:"},
		"loopback, viewer":      {conn: func(t *testing.T) *grpc.ClientConn { return overTCP(t, access.Viewer) }, role: access.Viewer, advice: "or set grpc.local_role: "},
		"loopback, operator":    {conn: func(t *testing.T) *grpc.ClientConn { return overTCP(t, access.Operator) }, role: access.Operator, advice: "grpc.local_role: admin"},
		"loopback, admin":       {conn: func(t *testing.T) *grpc.ClientConn { return overTCP(t, access.Admin) }, role: access.Admin},
		"socket, of no group":   {conn: func(t *testing.T) *grpc.ClientConn { return overSocket(t, nobody, nobody) }, role: access.None, advice: "give a group of the user that role"},
		"socket, viewers":       {conn: func(t *testing.T) *grpc.ClientConn { return overSocket(t, nobody, 65101) }, role: access.Viewer, advice: "call as root"},
		"socket, operators":     {conn: func(t *testing.T) *grpc.ClientConn { return overSocket(t, nobody, 65102) }, role: access.Operator, advice: "call as root"},
		"socket, root":          {conn: func(t *testing.T) *grpc.ClientConn { return overSocket(t, 0, 0) }, role: access.Admin},
		"certificate, unknown":  {conn: func(t *testing.T) *grpc.ClientConn { return shows(t, "spiffe://isp/viewer/x") }, role: access.None, advice: "give one of spiffe://isp/viewer/x that role"},
		"certificate, viewer":   {conn: func(t *testing.T) *grpc.ClientConn { return shows(t, "spiffe://isp/viewer") }, role: access.Viewer, advice: "give one of spiffe://isp/viewer that role"},
		"certificate, operator": {conn: func(t *testing.T) *grpc.ClientConn { return shows(t, "spiffe://isp/operator") }, role: access.Operator, advice: "give one of "},
		"certificate, admin":    {conn: func(t *testing.T) *grpc.ClientConn { return shows(t, "spiffe://isp/admin") }, role: access.Admin},
		"token, viewer":         {conn: func(t *testing.T) *grpc.ClientConn { return overTCP(t, access.Admin) }, token: viewerToken, role: access.Viewer, advice: "give the token that role"},
		"token, operator":       {conn: func(t *testing.T) *grpc.ClientConn { return overTCP(t, access.None) }, token: operatorToken, role: access.Operator, advice: "give the token that role"},
		"token, admin":          {conn: func(t *testing.T) *grpc.ClientConn { return shows(t, "spiffe://isp/viewer") }, token: adminToken, role: access.Admin},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn, ctx := tt.conn(t), t.Context()
			if tt.token != "" {
				ctx = bearing(ctx, tt.token)
			}
			for _, m := range controltest.Methods() {
				err := controltest.Call(ctx, conn, m, controltest.NewMessage(m.Input()))
				s := status.Convert(err)
				needed, _ := access.Needed(controltest.FullName(m), nil)
				if s.Code() == codes.Unauthenticated || (s.Code() == codes.PermissionDenied) != (tt.role < needed) {
					t.Errorf("%s, which needs %v: %v", m.Name(), needed, err)
				}
				if s.Code() != codes.PermissionDenied {
					continue
				}
				info := detail[*errdetails.ErrorInfo](s)
				if d := info.GetMetadata(); d["method"] != controltest.FullName(m) || d["role"] != tt.role.String() || d["needed"] != needed.String() {
					t.Errorf("%s: details %v", m.Name(), info)
				}
				if want := map[access.Role]string{access.None: "NO_ROLE", access.Viewer: "READ_ONLY", access.Operator: "ROLE_TOO_LOW"}[tt.role]; info.GetReason() != want {
					t.Errorf("%s: reason %s, want %s", m.Name(), info.GetReason(), want)
				}
				if !strings.Contains(s.Message(), tt.advice) || !strings.Contains(s.Message(), "needs role "+needed.String()) {
					t.Errorf("%s does not say what to do: %s", m.Name(), s.Message())
				}
			}
			_, err := pb.NewControlServiceClient(conn).Reconcile(ctx, &pb.ReconcileRequest{DryRun: true})
			if (status.Code(err) == codes.PermissionDenied) != (tt.role == access.None) {
				t.Errorf("a dry run: %v", err)
			}
		})
	}
}

// detail returns a status's detail of a type; nil if there is none.
func detail[T proto.Message](s *status.Status) (found T) {
	for _, d := range s.Details() {
		if one, ok := d.(T); ok {
			found = one
		}
	}
	return found
}

// TestWithoutGrants: who can open the socket or shows a certificate may do
// everything, a local user over TCP may not.
func TestWithoutGrants(t *testing.T) {
	testenv.Require(t, testenv.Root)
	t.Parallel()
	certs := controltest.MakeCerts(t)
	socket := filepath.Join(openFolder(t), "s")
	change := func(o *control.Options) {
		o.LocalRole = access.Viewer
		o.Socket, o.SocketGroup = socket, "65534"
	}
	secured := func(o *control.Options) {
		o.LocalRole = access.Viewer
		o.TLS = control.TLS{CertFile: certs.Server, KeyFile: certs.ServerKey, ClientCAFile: certs.CA}
	}
	half := func(o *control.Options) {
		o.LocalRole = access.Viewer
		o.TLS = control.TLS{CertFile: certs.Server, KeyFile: certs.ServerKey}
	}
	for name, tt := range map[string]struct {
		conn *grpc.ClientConn
		want codes.Code
	}{
		"root over TCP":        {dial(t, controltest.Serve(t, controltest.Scene(), change).Address), codes.PermissionDenied},
		"nobody at the socket": {dialAs(t, nobody, nobody, "passthrough:///unix:"+socket, insecure.NewCredentials()), codes.OK},
		"a certificate":        {dial(t, controltest.Serve(t, controltest.Scene(), secured).Address, grpc.WithTransportCredentials(clientTLS(t, certs))), codes.OK},
		"TLS alone":            {dial(t, controltest.Serve(t, controltest.Scene(), half).Address, grpc.WithTransportCredentials(credentials.NewTLS(trusting(t, certs)))), codes.PermissionDenied},
	} {
		if _, err := pb.NewControlServiceClient(tt.conn).Reconcile(t.Context(), &pb.ReconcileRequest{}); status.Code(err) != tt.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestTokenIsAllOrNothing: a call that shows a token that is not known, or
// something else in its place, has no rights, whoever makes it.
func TestTokenIsAllOrNothing(t *testing.T) {
	t.Parallel()
	server := controltest.Serve(t, controltest.Scene(), func(o *control.Options) { o.Grants = granting(t) })
	conn := dial(t, server.Address)
	for header, want := range map[string]codes.Code{
		"Bearer " + viewerToken: codes.OK, "bearer " + viewerToken: codes.OK,
		"Bearer " + viewerToken + "x": codes.Unauthenticated, "Bearer": codes.Unauthenticated, "Basic " + viewerToken: codes.Unauthenticated, viewerToken: codes.Unauthenticated,
	} {
		ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", header)
		_, err := pb.NewControlServiceClient(conn).GetStatus(ctx, &pb.GetStatusRequest{})
		if s := status.Convert(err); s.Code() != want || want != codes.OK && detail[*errdetails.ErrorInfo](s).GetReason() != "TOKEN_REFUSED" {
			t.Errorf("%q: %v", header, err)
		}
		if err != nil && strings.Contains(err.Error(), viewerToken) {
			t.Errorf("the error has the token: %v", err)
		}
	}
	two := metadata.AppendToOutgoingContext(bearing(t.Context(), viewerToken), "authorization", "Bearer "+adminToken)
	if _, err := pb.NewControlServiceClient(conn).GetStatus(two, &pb.GetStatusRequest{}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("two tokens: %v", err)
	}
}

// await repeats a call until it ends with the code. It gives up after the time
// within which a change of a file is to have its effect.
func await(t *testing.T, within time.Duration, want codes.Code, call func() error) {
	t.Helper()
	deadline := time.Now().Add(within)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for ; ; <-tick.C {
		err := call()
		if status.Code(err) == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %v: %v, want %v", within, err, want)
		}
	}
}

// TestRightsAreTaken: a token that is withdrawn, and roles that are reloaded,
// count for the next call, and end the streams of those who lost theirs.
func TestRightsAreTaken(t *testing.T) {
	t.Parallel()
	file := tokenFile(t, viewerToken)
	granted := []control.Grant{{Role: access.Viewer, Name: "v", TokenFile: file}, {Role: access.Viewer, Name: "o", TokenFile: tokenFile(t, operatorToken)}}
	told := newLedger()
	server := controltest.Serve(t, controltest.Scene(), func(o *control.Options) { o.Grants, o.Observer = granted, told })
	conn := dial(t, server.Address)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	withdrawn, kept := bearing(ctx, viewerToken), bearing(ctx, operatorToken)
	first, err := watch(withdrawn, conn)
	if err != nil {
		t.Fatal(err)
	}
	second, err := watch(kept, conn)
	if err != nil {
		t.Fatal(err)
	}
	status1 := func(ctx context.Context) func() error {
		return func() error {
			_, err := pb.NewControlServiceClient(conn).GetStatus(ctx, &pb.GetStatusRequest{})
			return err
		}
	}
	writeFile(t, file, "") // as a program that writes the file leaves it for a moment
	writeFile(t, file, viewerToken+"\n"+adminToken+"\n")
	await(t, 5*time.Second, codes.OK, status1(bearing(ctx, adminToken)))
	if err := status1(withdrawn)(); err != nil {
		t.Errorf("while another token comes: %v", err)
	}
	writeFile(t, file, "too short")
	told.await(t, "tokens false", 1)
	if err := status1(withdrawn)(); err != nil {
		t.Errorf("while the file cannot be used: %v", err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	told.await(t, "tokens true", 2) // the first time at the start
	await(t, 5*time.Second, codes.Unauthenticated, status1(withdrawn))
	if _, err := first.Recv(); status.Code(err) != codes.Unauthenticated {
		t.Errorf("the stream of a withdrawn token: %v", err)
	}
	if err := status1(kept)(); err != nil {
		t.Errorf("another token: %v", err)
	}
	use, err := server.Roles([]control.Grant{{Role: access.Viewer, SAN: "noc.example"}})
	if err != nil {
		t.Fatal(err)
	}
	use()
	if _, err := second.Recv(); status.Code(err) != codes.Unauthenticated {
		t.Errorf("the stream of a token that lost its role: %v", err)
	}
	if err := status1(kept)(); status.Code(err) != codes.Unauthenticated {
		t.Errorf("a token that lost its role: %v", err)
	}
	for name, bad := range map[string]control.Grant{
		"no SAN": {Role: access.Viewer, SAN: "*.example"}, "no group": {Role: access.Viewer, UnixGroup: "no such group"},
		"no name": {Role: access.Viewer, TokenFile: file}, "nobody": {Role: access.Viewer},
	} {
		if _, err := server.Roles([]control.Grant{bad}); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}
