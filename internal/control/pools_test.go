package control_test

import (
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
	"github.com/sessiond/sessiond/internal/control/controltest"
)

// TestPoolWithLiveBindings_NAT27: the refusal has the number of live bindings and says what
// to do; with allow_disruption the same request is carried out.
func TestPoolWithLiveBindings_NAT27(t *testing.T) {
	t.Parallel()
	c := serve(t, controltest.Scene())
	req := &pb.RemovePoolRequest{OutsidePrefix: "198.51.100.0/28"}
	_, err := c.RemovePool(t.Context(), req)
	if s := status.Convert(err); s.Code() != codes.FailedPrecondition {
		t.Fatalf("removal: %v", err)
	}
	var bindings, advice, subject string
	for _, d := range status.Convert(err).Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			bindings = d.GetReason() + " " + d.GetMetadata()["bindings"]
		case *errdetails.PreconditionFailure:
			advice, subject = d.GetViolations()[0].GetDescription(), d.GetViolations()[0].GetSubject()
		}
	}
	if bindings != "LIVE_BINDINGS 1" || subject != "198.51.100.0/28" || advice == "" {
		t.Errorf("details: %q, %q, %q", bindings, subject, advice)
	}
	req.AllowDisruption = true
	if res, err := c.RemovePool(t.Context(), req); err != nil || res.GetBindingsCut() != 1 {
		t.Errorf("with allow_disruption: %v, %v", res, err)
	}
}
