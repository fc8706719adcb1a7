package control

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sessiond/sessiond/internal/inspect"
)

func TestCodes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err    error
		code   codes.Code
		reason string
	}{
		{invalid("f", "bad"), codes.InvalidArgument, "INVALID_FIELD"},
		{inspect.ErrNotFound, codes.NotFound, "NOT_FOUND"},
		{inspect.ErrNotCovered, codes.NotFound, "NOT_COVERED"},
		{inspect.ErrNoHistory, codes.FailedPrecondition, "NO_HISTORY"},
		{inspect.ErrHistoryDown, codes.Unavailable, "HISTORY_DOWN"},
		{inspect.ErrNoGroup, codes.FailedPrecondition, "NO_GROUP"},
		{inspect.ErrConflict, codes.Aborted, "CONFLICT"},
		{inspect.ErrLagging, codes.Aborted, "WATCHER_LAGGED"},
		{inspect.ErrNotReady, codes.Unavailable, "NOT_READY"},
		{inspect.ErrFull, codes.ResourceExhausted, "DATABASE_FULL"},
		{inspect.ErrUnavailable, codes.Unavailable, "DATABASE_DOWN"},
		{errStopping, codes.Unavailable, "STOPPING"},
		{context.Canceled, codes.Canceled, "CANCELED"},
		{context.DeadlineExceeded, codes.DeadlineExceeded, "DEADLINE_EXCEEDED"},
		{errors.New("anything"), codes.Internal, "INTERNAL"},
	} {
		s := status.Convert(toStatus(about("thing", "x", fmt.Errorf("context: %w", c.err))))
		if s.Code() != c.code {
			t.Errorf("%v: code %v, want %v", c.err, s.Code(), c.code)
		}
		if info := detail[*errdetails.ErrorInfo](s); info.GetReason() != c.reason || info.GetDomain() != "sessiond" {
			t.Errorf("%v: ErrorInfo %v, want reason %s", c.err, info, c.reason)
		}
		if r := detail[*errdetails.ResourceInfo](s); r.GetResourceType() != "thing" || r.GetResourceName() != "x" {
			t.Errorf("%v: ResourceInfo %v", c.err, r)
		}
		if retry := detail[*errdetails.RetryInfo](s); (retry != nil) != (c.code == codes.Unavailable) {
			t.Errorf("%v: RetryInfo %v", c.err, retry)
		}
	}
}

func TestFieldViolation(t *testing.T) {
	t.Parallel()
	s := status.Convert(toStatus(invalid("filter.inside", "%q is odd", "x")))
	v := detail[*errdetails.BadRequest](s).GetFieldViolations()
	if len(v) != 1 || v[0].GetField() != "filter.inside" || v[0].GetDescription() != `"x" is odd` {
		t.Errorf("field violations: %v", v)
	}
}

func TestStatusPassesUnchanged(t *testing.T) {
	t.Parallel()
	if toStatus(nil) != nil || about("a", "b", nil) != nil {
		t.Error("no error became one")
	}
	if got := status.Code(toStatus(status.Error(codes.Unimplemented, "x"))); got != codes.Unimplemented {
		t.Errorf("code %v", got)
	}
}

func detail[M any](s *status.Status) M {
	for _, d := range s.Details() {
		if m, ok := d.(M); ok {
			return m
		}
	}
	var none M
	return none
}

// TestMethodWithoutRole: the server does not start with one.
func TestMethodWithoutRole(t *testing.T) {
	t.Parallel()
	info := func(name string) map[string]grpc.ServiceInfo {
		return map[string]grpc.ServiceInfo{"sessiond.v1.NasService": {Methods: []grpc.MethodInfo{{Name: "ListNases"}, {Name: name}}}}
	}
	if err := checkRoles(info("EndNases")); err == nil || !strings.Contains(err.Error(), "/sessiond.v1.NasService/EndNases has no role") {
		t.Errorf("a method without role: %v", err)
	}
	if err := checkRoles(info("GetNas")); err != nil {
		t.Error(err)
	}
}
