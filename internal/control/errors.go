package control

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sessiond/sessiond/internal/access"
	"github.com/sessiond/sessiond/internal/audit"
	"github.com/sessiond/sessiond/internal/inspect"
)

// errorDomain is the domain of every google.rpc.ErrorInfo.
const errorDomain = "sessiond"

// retryAfter is the delay that clients are told if the cause is temporary.
const retryAfter = time.Second

// errStopping ends the streams when the daemon stops.
var errStopping = errors.New("the daemon is stopping")

// errStalled ends a stream whose reader takes nothing.
var errStalled = errors.New("nothing of this stream was taken for longer than grpc.stall_timeout; read faster, or ask for less by a filter")

// codings assigns a code and an ErrorInfo reason to each domain error; the
// first match counts.
var codings = []struct {
	err    error
	code   codes.Code
	reason string
}{
	{inspect.ErrNotFound, codes.NotFound, "NOT_FOUND"},
	{inspect.ErrNotCovered, codes.NotFound, "NOT_COVERED"},
	{inspect.ErrNoHistory, codes.FailedPrecondition, "NO_HISTORY"},
	{inspect.ErrHistoryDown, codes.Unavailable, "HISTORY_DOWN"},
	{inspect.ErrNoGroup, codes.FailedPrecondition, "NO_GROUP"},
	{inspect.ErrMappingExists, codes.AlreadyExists, "MAPPING_EXISTS"},
	{inspect.ErrMappingFull, codes.ResourceExhausted, "NO_ROOM"},
	{inspect.ErrMappingOutside, codes.InvalidArgument, "NOT_OF_GROUP"},
	{inspect.ErrMappingConfigured, codes.FailedPrecondition, "MAPPING_CONFIGURED"},
	{inspect.ErrNoStaticPorts, codes.FailedPrecondition, "NO_STATIC_PORTS"},
	{inspect.ErrPoolConflict, codes.FailedPrecondition, "POOL_CONFLICT"},
	{inspect.ErrConflict, codes.Aborted, "CONFLICT"},
	{inspect.ErrLagging, codes.Aborted, "WATCHER_LAGGED"},
	{inspect.ErrListAgain, codes.Aborted, "LIST_AGAIN"},
	{errStalled, codes.Aborted, "READER_STALLED"},
	{inspect.ErrNotReady, codes.Unavailable, "NOT_READY"},
	{audit.ErrUnwritten, codes.Unavailable, "AUDIT_UNAVAILABLE"},
	{inspect.ErrFull, codes.ResourceExhausted, "DATABASE_FULL"},
	{inspect.ErrUnavailable, codes.Unavailable, "DATABASE_DOWN"},
	{errStopping, codes.Unavailable, "STOPPING"},
	{context.Canceled, codes.Canceled, "CANCELED"},
	{context.DeadlineExceeded, codes.DeadlineExceeded, "DEADLINE_EXCEEDED"},
}

// denialReasons has the ErrorInfo reasons of calls for which the caller's role
// is too low.
var denialReasons = map[access.Role]string{access.None: "NO_ROLE", access.Viewer: "READ_ONLY", access.Operator: "ROLE_TOO_LOW"}

// fieldError is an error in one field of a request.
type fieldError struct {
	field   string // path with proto names, "filter.inside"
	problem string
}

func (e *fieldError) Error() string { return e.field + ": " + e.problem }

// invalid returns the error of an invalid field.
func invalid(field, format string, args ...any) error {
	return &fieldError{field: field, problem: fmt.Sprintf(format, args...)}
}

// resourceError is an error with the resource that it is about.
type resourceError struct {
	kind, name string
	err        error
}

func (e *resourceError) Error() string { return e.kind + " " + e.name + ": " + e.err.Error() }
func (e *resourceError) Unwrap() error { return e.err }

// begunError is the error of an order of which a part was carried out, or may have been by an
// earlier attempt.
type begunError struct{ err error }

func (e *begunError) Error() string { return e.err.Error() }
func (e *begunError) Unwrap() error { return e.err }

// about adds a resource to an error; nil stays nil.
func about(kind, name string, err error) error {
	if err == nil {
		return nil
	}
	return &resourceError{kind: kind, name: name, err: err}
}

// toStatus converts a handler's error into the status for the client.
func toStatus(err error) error {
	if err == nil {
		return nil
	}
	if s, ok := status.FromError(err); ok {
		return s.Err()
	}
	code, reason := coding(err)
	s, detailErr := status.New(code, err.Error()).WithDetails(details(err, code, reason)...)
	if detailErr != nil {
		return status.Error(code, err.Error())
	}
	return s.Err()
}

func coding(err error) (codes.Code, string) {
	if field := (*fieldError)(nil); errors.As(err, &field) {
		return codes.InvalidArgument, "INVALID_FIELD"
	}
	if denied := (*access.DeniedError)(nil); errors.As(err, &denied) {
		return codes.PermissionDenied, denialReasons[denied.Actor.Role]
	}
	if refused := (*refusedError)(nil); errors.As(err, &refused) {
		return codes.Unauthenticated, "TOKEN_REFUSED"
	}
	if limit := (*limitError)(nil); errors.As(err, &limit) {
		return codes.ResourceExhausted, "LIMIT_REACHED"
	}
	if live := (*inspect.LiveBindingsError)(nil); errors.As(err, &live) {
		return codes.FailedPrecondition, "LIVE_BINDINGS"
	}
	if errors.Is(err, audit.ErrUnwritten) && errors.Is(err, inspect.ErrFull) {
		return codes.ResourceExhausted, "AUDIT_UNAVAILABLE"
	}
	for _, c := range codings {
		if errors.Is(err, c.err) {
			return c.code, c.reason
		}
	}
	return codes.Internal, "INTERNAL"
}

func details(err error, code codes.Code, reason string) []protoadapt.MessageV1 {
	info := &errdetails.ErrorInfo{Reason: reason, Domain: errorDomain}
	all := []protoadapt.MessageV1{info}
	if e := (*fieldError)(nil); errors.As(err, &e) {
		all = append(all, &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
			{Field: e.field, Description: e.problem},
		}})
	}
	if e := (*access.DeniedError)(nil); errors.As(err, &e) {
		info.Metadata = map[string]string{"method": e.Method, "role": e.Actor.Role.String(), "needed": e.Needed.String()}
	}
	if e := (*inspect.LiveBindingsError)(nil); errors.As(err, &e) {
		info.Metadata = map[string]string{"bindings": strconv.Itoa(e.Bindings), "mappings": strconv.Itoa(e.Mappings)}
		all = append(all, &errdetails.PreconditionFailure{Violations: []*errdetails.PreconditionFailure_Violation{
			{Type: reason, Subject: e.Outside.String(), Description: e.Advice()},
		}})
	}
	if e := (*resourceError)(nil); errors.As(err, &e) {
		all = append(all, &errdetails.ResourceInfo{
			ResourceType: e.kind, ResourceName: e.name, Description: e.err.Error(),
		})
	}
	if errors.As(err, new(*begunError)) {
		if info.Metadata == nil {
			info.Metadata = map[string]string{}
		}
		info.Metadata["begun"] = "true"
	}
	if code == codes.Unavailable {
		all = append(all, &errdetails.RetryInfo{RetryDelay: durationpb.New(retryAfter)})
	}
	return all
}
