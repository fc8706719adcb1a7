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

// LocalRole decides the rights of callers over loopback TCP without
// certificates, where any user of the machine can call.
type LocalRole string

// The roles of local callers.
const (
	LocalByUser LocalRole = ""       // root and the daemon's user may change, others read
	LocalViewer LocalRole = "viewer" // all may only read
	LocalAdmin  LocalRole = "admin"  // all may change
)

func (r LocalRole) check() error {
	if !slices.Contains([]LocalRole{LocalByUser, LocalViewer, LocalAdmin}, r) {
		return fmt.Errorf("control: LocalRole %q is not known", r)
	}
	return nil
}

// viewerError refuses a change by a caller that may only read.
type viewerError struct{ who, how string }

func (e *viewerError) Error() string {
	return e.who + " may only read here; " + e.how
}

// restrict returns the error for a caller that may only read; nil for one that
// may change. A listener for other machines trusts all callers, or their
// certificates.
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

// reading lists the methods that change nothing. Any other method counts as a
// change.
var reading = []string{
	"GetSubscriber", "ListSubscribers", "WatchSubscribers", "ListBindings", "LookupOutside", "ListPools", "ListDrops", "AdviseBlockSize",
	"ListSessions", "CountSessions", "GetSettings", "GetStatus", "ListRemovals", "GetNas", "ListNases", "ListMappings", "ListAudit", "VerifyAudit",
	"Check", "List", "Watch", "ServerReflectionInfo", // of gRPC health and reflection
}

// Changes reports whether a call changes something.
func Changes(method string, req any) bool {
	if r, ok := req.(*pb.ReconcileRequest); ok && r.GetDryRun() {
		return false
	}
	return !slices.Contains(reading, path.Base(method))
}

// permit refuses changes by callers that may only read.
func permit(ctx context.Context, method string, req any) error {
	c, known := callerIn(ctx)
	if !known || c.connection.viewer == nil || !Changes(method, req) {
		return nil
	}
	return c.connection.viewer
}
