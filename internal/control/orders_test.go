package control_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
	"github.com/sessiond/sessiond/internal/access"
	"github.com/sessiond/sessiond/internal/audit"
	"github.com/sessiond/sessiond/internal/control"
	"github.com/sessiond/sessiond/internal/control/controltest"
	"github.com/sessiond/sessiond/internal/inspect"
)

// changeCalls has, for each method that changes something, a request that changes the scene.
func changeCalls() map[string]proto.Message {
	const prefix = "198.51.100.0/28"
	return map[string]proto.Message{
		"SubscriberService/PutSubscriber":     &pb.PutSubscriberRequest{Subscriber: &pb.Subscriber{InsideAddress: "100.64.0.7", UserName: "dave"}},
		"SubscriberService/DeleteSubscribers": &pb.DeleteSubscribersRequest{Inside: "100.64.0.0/10"},
		"SessionService/TerminateSessions":    &pb.TerminateSessionsRequest{Filter: &pb.SessionFilter{Inside: "0.0.0.0/0"}},
		"ControlService/UpdateSettings": &pb.UpdateSettingsRequest{
			Settings: &pb.Settings{}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"subscriber_session_removal"}},
		},
		"ControlService/Reconcile":       &pb.ReconcileRequest{},
		"RemovalService/ConfirmRemovals": &pb.ConfirmRemovalsRequest{Filter: &pb.RemovalFilter{Inside: "0.0.0.0/0"}},
		"RemovalService/RefuseRemovals":  &pb.RefuseRemovalsRequest{Filter: &pb.RemovalFilter{Inside: "0.0.0.0/0"}},
		"NatService/AddPool":             &pb.AddPoolRequest{OutsidePrefix: "203.0.113.0/28"},
		"NatService/DrainPool":           &pb.DrainPoolRequest{OutsidePrefix: prefix},
		"NatService/RemovePool":          &pb.RemovePoolRequest{OutsidePrefix: prefix, AllowDisruption: true},
		"MappingService/CreateMapping":   &pb.CreateMappingRequest{Protocol: pb.Protocol_PROTOCOL_TCP, UserName: "alice", InsidePort: 22},
		"MappingService/DeleteMapping":   &pb.DeleteMappingRequest{Protocol: pb.Protocol_PROTOCOL_TCP, OutsideAddress: "198.51.100.1", OutsidePort: 60022},
	}
}

// set sets a field of a request.
func set(t *testing.T, m proto.Message, field string, value any) {
	t.Helper()
	f := m.ProtoReflect().Descriptor().Fields().ByName(protoreflect.Name(field))
	if f == nil {
		t.Fatalf("%s has no field %s", m.ProtoReflect().Descriptor().Name(), field)
	}
	m.ProtoReflect().Set(f, protoreflect.ValueOf(value))
}

// callUnary calls a method, and returns its answer.
func callUnary(ctx context.Context, t *testing.T, conn *grpc.ClientConn, method string, req proto.Message) (proto.Message, error) {
	t.Helper()
	res := answerOf(t, method)
	err := conn.Invoke(ctx, "/sessiond.v1."+method, req, res)
	return res, err
}

// answerOf returns an empty answer of a method.
func answerOf(t *testing.T, method string) proto.Message {
	t.Helper()
	name := protoreflect.FullName("sessiond.v1." + strings.ReplaceAll(method, "/", "."))
	for _, m := range []proto.Message{
		&pb.PutSubscriberResponse{}, &pb.DeleteSubscribersResponse{}, &pb.TerminateSessionsResponse{}, &pb.UpdateSettingsResponse{},
		&pb.ReconcileResponse{}, &pb.ConfirmRemovalsResponse{}, &pb.RefuseRemovalsResponse{}, &pb.AddPoolResponse{}, &pb.DrainPoolResponse{},
		&pb.RemovePoolResponse{}, &pb.CreateMappingResponse{}, &pb.DeleteMappingResponse{},
	} {
		if string(m.ProtoReflect().Descriptor().Name()) == string(name.Name())+"Response" {
			return m
		}
	}
	t.Fatalf("no answer of %s is known", method)
	return nil
}

// TestEveryChangeIsAnOrder: every method that changes something has the three fields, and
// its backend an order with the caller, the reason and the request's name.
func TestEveryChangeIsAnOrder(t *testing.T) {
	t.Parallel()
	for _, method := range access.Methods() {
		if short, ours := strings.CutPrefix(method, "/sessiond.v1."); ours && access.Changes(method, nil) && changeCalls()[short] == nil && !strings.HasPrefix(short, "HistoryService/") { // see TestHistoryOrders
			t.Errorf("changeCalls has no request of %s", short)
		}
	}
	for method, req := range changeCalls() {
		b := controltest.Scene()
		set(t, req, "reason", "ticket 7")
		set(t, req, "request_id", "r1")
		conn := dial(t, controltest.Serve(t, b, nil).Address)
		if _, err := callUnary(t.Context(), t, conn, method, req); err != nil {
			t.Errorf("%s: %v", method, err)
			continue
		}
		_, name, _ := strings.Cut(method, "/")
		if len(b.Orders) != 1 || b.Orders[0] == nil {
			t.Errorf("%s: orders %v", method, b.Orders)
			continue
		}
		if o := b.Orders[0]; o.Method != name || o.Reason != "ticket 7" || o.RequestID != "r1" || o.Name != "user:0" || !strings.HasPrefix(o.Source, "127.0.0.1:") || o.Role == "" {
			t.Errorf("%s: order %+v", method, o)
		}
	}
}

// TestValidateOnlyChangesNothing: with validate_only no change reaches the backend, and the
// answer tells what it would be.
func TestValidateOnlyChangesNothing(t *testing.T) {
	t.Parallel()
	want := map[string]string{
		"PutSubscriber": "subscribers_ended:1 sessions_ended:2", "DeleteSubscribers": "deleted:2 sessions_ended:4",
		"TerminateSessions": "terminated:2 subscribers:1", "UpdateSettings": "", "Reconcile": "total:1", "AddPool": "",
		"ConfirmRemovals": "confirmed:1 sessions_ended:2", "RefuseRemovals": "refused:1", "DrainPool": "", "RemovePool": "bindings_cut:1 sessions_ended:2",
		"CreateMapping": "", "DeleteMapping": "sessions_ended:2",
	}
	for method, req := range changeCalls() {
		b := controltest.Scene()
		set(t, req, "validate_only", true)
		set(t, req, "request_id", "r1")
		conn := dial(t, controltest.Serve(t, b, nil).Address)
		res, err := callUnary(t.Context(), t, conn, method, req)
		if err != nil {
			t.Errorf("%s: %v", method, err)
			continue
		}
		if len(b.Orders) != 0 {
			t.Errorf("%s changed something", method)
		}
		if len(b.Audits.Requests) != 0 {
			t.Errorf("%s is remembered as a request", method)
		}
		var counts []string
		fields := res.ProtoReflect().Descriptor().Fields()
		for i := range fields.Len() {
			if f := fields.Get(i); f.Kind() == protoreflect.Uint32Kind && res.ProtoReflect().Has(f) {
				counts = append(counts, fmt.Sprintf("%s:%d", f.Name(), res.ProtoReflect().Get(f).Uint()))
			}
		}
		_, name, _ := strings.Cut(method, "/")
		if got := strings.Join(counts, " "); got != want[name] {
			t.Errorf("%s: %s, want %s", method, got, want[name])
		}
		set(t, req, "validate_only", false)
		if _, err := callUnary(t.Context(), t, conn, method, req); err != nil || len(b.Orders) != 1 {
			t.Errorf("%s, then in earnest: %d orders, %v", method, len(b.Orders), err)
		}
	}
}

// TestValidateOnlyComparesVersions: with an etag a request that only validates is refused as the
// change would be, and changes nothing.
func TestValidateOnlyComparesVersions(t *testing.T) {
	t.Parallel()
	const put, del = "SubscriberService/PutSubscriber", "SubscriberService/DeleteSubscribers"
	b := controltest.Scene()
	b.Online[0].Version = "5-1"
	conn := dial(t, controltest.Serve(t, b, nil).Address)
	for etag, want := range map[string]codes.Code{"5-1": codes.OK, "4-1": codes.Aborted} {
		for method, req := range map[string]proto.Message{
			put: &pb.PutSubscriberRequest{Subscriber: &pb.Subscriber{InsideAddress: "100.64.0.7", UserName: "dave", Etag: etag}, ValidateOnly: true},
			del: &pb.DeleteSubscribersRequest{Inside: "100.64.0.7", Etag: etag, ValidateOnly: true},
		} {
			res, err := callUnary(t.Context(), t, conn, method, req)
			if status.Code(err) != want {
				t.Errorf("%s with etag %s: %v", method, etag, err)
			}
			if d, ok := res.(*pb.DeleteSubscribersResponse); ok && err == nil && d.GetDeleted() != 1 {
				t.Errorf("%s with etag %s would delete %d", method, etag, d.GetDeleted())
			}
		}
	}
	if len(b.Orders) != 0 || len(b.Online) != 2 {
		t.Errorf("%d changes, %d online", len(b.Orders), len(b.Online))
	}
}

// TestRepeatedRequest: a request that comes again gets the first answer, and changes nothing
// again; another one with its name is refused.
func TestRepeatedRequest(t *testing.T) {
	t.Parallel()
	b := controltest.Scene()
	c := serve(t, b)
	req := &pb.CreateMappingRequest{Protocol: pb.Protocol_PROTOCOL_TCP, UserName: "alice", InsidePort: 22, RequestId: "r1"}
	first, err := c.CreateMapping(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	again, err := c.CreateMapping(t.Context(), req)
	if err != nil || !proto.Equal(first, again) || len(b.Orders) != 1 {
		t.Errorf("again: %v, %v, %d orders", again, err, len(b.Orders))
	}
	req.InsidePort = 23
	_, err = c.CreateMapping(t.Context(), req)
	if field := violation(err); status.Code(err) != codes.InvalidArgument || field != "request_id" {
		t.Errorf("another request with its name: %v, field %q", err, field)
	}
	_, err = c.DeleteMapping(t.Context(), &pb.DeleteMappingRequest{Protocol: pb.Protocol_PROTOCOL_TCP, OutsideAddress: "198.51.100.1", OutsidePort: 60100, RequestId: "r1"})
	if status.Code(err) != codes.InvalidArgument || len(b.Orders) != 1 {
		t.Errorf("another method with its name: %v, %d orders", err, len(b.Orders))
	}
}

// TestRepeatedAfterFailure: a request that failed for certain begins anew; after an uncertain
// end the next attempt is told that there was one.
func TestRepeatedAfterFailure(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		err   error
		again bool
	}{{inspect.ErrPoolConflict, false}, {inspect.ErrUnavailable, true}} {
		b := controltest.Scene()
		c := serve(t, b)
		req := &pb.AddPoolRequest{OutsidePrefix: "203.0.113.0/28", RequestId: "r1"}
		b.Err = tt.err
		if _, err := c.AddPool(t.Context(), req); err == nil {
			t.Fatal("no error")
		}
		b.Err = nil
		if _, err := c.AddPool(t.Context(), req); err != nil {
			t.Errorf("after %v: %v", tt.err, err)
		}
		if len(b.Orders) != 2 || b.Orders[0].Again || b.Orders[1].Again != tt.again {
			t.Errorf("after %v: %d orders, again %v", tt.err, len(b.Orders), b.Orders[len(b.Orders)-1].Again)
		}
	}
}

// heldPools is a backend that keeps AddPool from returning.
type heldPools struct {
	*controltest.Backend
	entered chan struct{}
	release chan struct{}
}

func (b *heldPools) AddPool(ctx context.Context, group string, outside netip.Prefix) ([]inspect.Pool, error) {
	b.entered <- struct{}{}
	<-b.release
	return b.Backend.AddPool(ctx, group, outside)
}

// TestRequestsAtOnce: of many attempts at once one changes something, and the others get its
// answer.
func TestRequestsAtOnce(t *testing.T) {
	t.Parallel()
	const attempts = 16
	b := &heldPools{controltest.Scene(), make(chan struct{}, attempts), make(chan struct{})}
	conn := dial(t, controltest.Serve(t, b.Backend, func(o *control.Options) { o.Nat = b }).Address)
	pools, controls := pb.NewNatServiceClient(conn), pb.NewControlServiceClient(conn)
	errs := make(chan error, attempts)
	for range attempts {
		go func() {
			res, err := pools.AddPool(t.Context(), &pb.AddPoolRequest{OutsidePrefix: "203.0.113.0/28", RequestId: "r1"})
			if err == nil && len(res.GetPools()) != 1 {
				err = fmt.Errorf("answer %v", res)
			}
			errs <- err
		}()
	}
	<-b.entered
	for range 50 { // calls of the same connection: the others have come meanwhile
		if _, err := controls.GetSettings(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
	}
	close(b.release)
	for range attempts {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if len(b.Orders) != 1 || len(b.entered) != 0 {
		t.Errorf("%d orders", len(b.Orders))
	}
}

// violation returns the field that an error is about.
func violation(err error) string {
	for _, d := range status.Convert(err).Details() {
		if bad, ok := d.(*errdetails.BadRequest); ok {
			return bad.GetFieldViolations()[0].GetField()
		}
	}
	return ""
}

// TestOrderFieldsAreBounded: a reason or a name that is too long is refused, with its field.
func TestOrderFieldsAreBounded(t *testing.T) {
	t.Parallel()
	b := controltest.Scene()
	c := serve(t, b)
	for field, req := range map[string]*pb.ReconcileRequest{
		"reason":     {Reason: strings.Repeat("x", audit.MaxReason+1)},
		"request_id": {RequestId: strings.Repeat("x", audit.MaxRequestID+1)},
	} {
		if _, err := c.Reconcile(t.Context(), req); status.Code(err) != codes.InvalidArgument || violation(err) != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	if _, err := c.Reconcile(t.Context(), &pb.ReconcileRequest{RequestId: "a\x00b"}); violation(err) != "request_id" {
		t.Errorf("with a NUL: %v", err)
	}
	if len(b.Orders) != 0 {
		t.Error("it was carried out")
	}
}

// TestUnwrittenAudit: a change whose entry cannot be written is refused, and says so.
func TestUnwrittenAudit(t *testing.T) {
	t.Parallel()
	b := controltest.Scene()
	c := serve(t, b)
	for err, code := range map[error]codes.Code{
		fmt.Errorf("key x: %w", audit.ErrUnwritten):                                 codes.Unavailable,
		fmt.Errorf("%w: %w", inspect.ErrFull, fmt.Errorf("%w", audit.ErrUnwritten)): codes.ResourceExhausted,
	} {
		b.Err = err
		_, got := c.DeleteSubscribers(t.Context(), &pb.DeleteSubscribersRequest{Nas: "n"})
		if status.Code(got) != code || reason(got) != "AUDIT_UNAVAILABLE" {
			t.Errorf("%v: %v, reason %s", err, got, reason(got))
		}
	}
}

// reason returns the reason in an error's ErrorInfo.
func reason(err error) string {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return ""
}

// TestListAudit: entries come by pages, and filters select.
func TestListAudit(t *testing.T) {
	t.Parallel()
	b := controltest.Scene()
	c := serve(t, b)
	var ids []string
	req := &pb.ListAuditRequest{PageSize: 2}
	for {
		page, err := c.ListAudit(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page.GetEntries() {
			ids = append(ids, e.GetId())
		}
		if req.PageToken = page.GetNextPageToken(); req.GetPageToken() == "" {
			break
		}
	}
	if want := []string{"_/2", "_/1", "default/1"}; !slices.Equal(ids, want) {
		t.Errorf("entries %v, want %v", ids, want)
	}
	page, err := c.ListAudit(t.Context(), &pb.ListAuditRequest{Method: "DeleteSubscribers"})
	if err != nil || len(page.GetEntries()) != 1 || page.GetEntries()[0].GetOutcome() != pb.AuditOutcome_AUDIT_OUTCOME_DONE || page.GetEntries()[0].GetReason() != "ticket 4711" {
		t.Errorf("by method: %v, %v", page, err)
	}
	if page, err := c.ListAudit(t.Context(), &pb.ListAuditRequest{Method: "TerminateSessions"}); err != nil || page.GetEntries()[0].GetOrderId() != "_/1" {
		t.Errorf("second entry of an order: %v, %v", page, err)
	}
	if _, err := c.ListAudit(t.Context(), &pb.ListAuditRequest{PageToken: "x"}); violation(err) != "page_token" {
		t.Errorf("forged token: %v", err)
	}
	b.Audits.Unread = []audit.Unread{{Trail: "east", Err: errors.New("connection refused")}}
	page, err = c.ListAudit(t.Context(), &pb.ListAuditRequest{})
	if err != nil || len(page.GetEntries()) != 3 || len(page.GetUnread()) != 1 || page.GetUnread()[0].GetTrail() != "east" || page.GetUnread()[0].GetProblem() != "connection refused" {
		t.Errorf("with a trail that cannot be read: %v, %v", page, err)
	}
	checked, err := c.VerifyAudit(t.Context(), &pb.VerifyAuditRequest{})
	if err != nil || len(checked.GetTrails()) != 2 || checked.GetTrails()[0].GetLastId() != "_/2" {
		t.Errorf("verify: %v, %v", checked, err)
	}
	b.Audits.Checks = append(b.Audits.Checks, audit.Verified{Trail: "east", Unread: "connection refused"})
	checked, err = c.VerifyAudit(t.Context(), &pb.VerifyAuditRequest{})
	if err != nil || len(checked.GetTrails()) != 3 || checked.GetTrails()[2].GetUnread() != "connection refused" || checked.GetTrails()[1].GetUnread() != "" {
		t.Errorf("verify with a trail that cannot be read: %v, %v", checked, err)
	}
	if _, err := c.VerifyAudit(t.Context(), &pb.VerifyAuditRequest{Trail: "nowhere"}); status.Code(err) != codes.NotFound {
		t.Errorf("verify an unknown trail: %v", err)
	}
}
