package control

import (
	"context"
	"fmt"
	"net"
	"os"
	"path"
	"slices"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
)

// LocalRole says what callers over TCP within this machine may do, where they show no
// certificate: any user of the machine can call there.
type LocalRole string

// The roles of local callers.
const (
	LocalByUser LocalRole = ""       // root and the user of the daemon may do all, others read
	LocalViewer LocalRole = "viewer" // all of them may read alone
	LocalAdmin  LocalRole = "admin"  // all of them may do all
)

func (r LocalRole) check() error {
	if !slices.Contains([]LocalRole{LocalByUser, LocalViewer, LocalAdmin}, r) {
		return fmt.Errorf("control: LocalRole %q is not known", r)
	}
	return nil
}

// viewerError refuses a change to who may only read.
type viewerError struct{ who, how string }

func (e *viewerError) Error() string {
	return e.who + " may only read here; " + e.how
}

// restrict returns what to tell a caller who may only read; nil for one who may
// change things. Who listens for other machines trusts everybody, or their certificates.
func (d *door) restrict(c net.Conn) *viewerError {
	address, tcp := d.Addr().(*net.TCPAddr)
	if !tcp || !address.IP.IsLoopback() || d.certified || d.role == LocalAdmin {
		return nil
	}
	if d.role == LocalViewer {
		return &viewerError{"who calls over TCP", d.advice}
	}
	user, err := callingUser(c)
	switch {
	case err != nil:
		return &viewerError{fmt.Sprintf("who calls over TCP as a user that the system does not tell (%v)", err), d.advice}
	case user == 0 || int64(user) == int64(os.Geteuid()):
		return nil
	}
	return &viewerError{fmt.Sprintf("user %d", user), d.advice}
}

// reading are the methods that change nothing. A method that is not here is a change.
var reading = []string{
	"GetSubscriber", "ListSubscribers", "WatchSubscribers", "ListBindings", "LookupOutside", "ListPools",
	"ListSessions", "CountSessions", "GetSettings", "GetStatus", "ListRemovals", "GetNas", "ListNases",
	"Check", "List", "Watch", "ServerReflectionInfo", // of gRPC health and reflection
}

// Changes reports whether a call changes something.
func Changes(method string, req any) bool {
	if r, ok := req.(*pb.ReconcileRequest); ok && r.GetDryRun() {
		return false
	}
	return !slices.Contains(reading, path.Base(method))
}

// permit refuses changes to who may not make them.
func permit(ctx context.Context, method string, req any) error {
	c, known := callerIn(ctx)
	if !known || c.connection.viewer == nil || !Changes(method, req) {
		return nil
	}
	return c.connection.viewer
}
