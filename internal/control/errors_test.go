package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
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

// TestReasonsAreDocumented: the table of errors in the reference has each code and reason, and "begun".
func TestReasonsAreDocumented(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../api/proto/sessiond/v1/subscriber.proto")
	if err != nil {
		t.Fatal(err)
	}
	want := [][2]string{
		{"INVALID_ARGUMENT", "INVALID_FIELD"}, {"UNAUTHENTICATED", "TOKEN_REFUSED"}, {"RESOURCE_EXHAUSTED", "LIMIT_REACHED"},
		{"FAILED_PRECONDITION", "LIVE_BINDINGS"}, {"RESOURCE_EXHAUSTED", "AUDIT_UNAVAILABLE"}, {"INTERNAL", "INTERNAL"},
	}
	for _, c := range codings {
		want = append(want, [2]string{codeName(c.code), c.reason})
	}
	for _, reason := range denialReasons {
		want = append(want, [2]string{"PERMISSION_DENIED", reason})
	}
	for _, w := range want {
		if !regexp.MustCompile(`(?m)^//     ` + w[0] + ` +` + w[1] + ` `).Match(text) {
			t.Errorf("the table has no %s %s", w[0], w[1])
		}
	}
	if !bytes.Contains(text, []byte(`"begun": "true"`)) {
		t.Error("begun is not explained")
	}
}

// codeName returns the name of a code as in google.rpc.Code.
func codeName(c codes.Code) string {
	if c == codes.Canceled {
		return "CANCELED"
	}
	return strings.ToUpper(regexp.MustCompile(`([a-z])([A-Z])`).ReplaceAllString(c.String(), "${1}_$2"))
}
