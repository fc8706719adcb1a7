package control_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
	"github.com/sessiond/sessiond/internal/access"
	"github.com/sessiond/sessiond/internal/control"
	"github.com/sessiond/sessiond/internal/control/controltest"
	"github.com/sessiond/sessiond/internal/testenv"
)

// TestTokenActor: those who come by another way than gRPC have the same roles, where nobody else can
// read the connection.
func TestTokenActor(t *testing.T) {
	t.Parallel()
	server := controltest.Serve(t, controltest.Scene(), func(o *control.Options) { o.Grants = granting(t) })
	caller := &access.Caller{Source: "192.0.2.1:5", Private: true}
	token, err := access.ParseToken(operatorToken)
	if err != nil {
		t.Fatal(err)
	}
	want := access.Actor{Name: "token:o", Role: access.Operator, Source: "192.0.2.1:5"}
	if got, err := server.TokenActor(token, caller); got != want || err != nil {
		t.Errorf("the actor is %v, %v", got, err)
	}
	if got, err := server.TokenActor(token, &access.Caller{Source: "192.0.2.1:5"}); err == nil {
		t.Errorf("in plain text the actor is %v", got)
	}
	for _, text := range []string{operatorToken + "x", strings.ToUpper(operatorToken)} {
		token, err := access.ParseToken(text)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := server.TokenActor(token, caller); err == nil {
			t.Errorf("%q is of %v", text, got)
		}
	}
}

// TestCallsFromWithin: each method that changes something passes the same table of roles, and becomes
// an order of the actor in the context; one without an actor has no role.
func TestCallsFromWithin(t *testing.T) {
	t.Parallel()
	for method, req := range changeCalls() {
		_, name, _ := strings.Cut(method, "/")
		full := "/sessiond.v1." + method
		needed, err := access.Needed(full, req)
		if err != nil {
			t.Fatal(err)
		}
		for role := access.None; role <= access.Admin; role++ {
			b := controltest.Scene()
			before := b.State()
			var log bytes.Buffer
			conn := controltest.Serve(t, b, func(o *control.Options) { o.Logger = slog.New(slog.NewTextHandler(&log, nil)) }).Within()
			ctx := t.Context()
			if role > access.None {
				ctx = access.With(ctx, access.Actor{Name: "token:x", Role: role, Source: "192.0.2.1:5"})
			}
			q := proto.Clone(req)
			set(t, q, "reason", "ticket 7")
			set(t, q, "request_id", "r1")
			res := answerOf(t, method)
			err := conn.Invoke(ctx, full, q, res)
			if role < needed {
				if status.Code(err) != codes.PermissionDenied || b.State() != before || len(b.Orders) > 0 {
					t.Errorf("%s as %s: %v, orders %v", method, role, err, b.Orders)
				}
				continue
			}
			if err != nil || len(b.Orders) != 1 || b.Orders[0] == nil {
				t.Errorf("%s as %s: %v, orders %v", method, role, err, b.Orders)
				continue
			}
			o := b.Orders[0]
			if o.Method != name || o.Name != "token:x" || o.Role != role.String() || o.Source != "192.0.2.1:5" || o.Reason != "ticket 7" || o.RequestID != "r1" {
				t.Errorf("%s: order %+v", method, o)
			}
			if !strings.Contains(log.String(), "peer=192.0.2.1:5") || !strings.Contains(log.String(), "actor=token:x") {
				t.Errorf("%s: the log has %s", method, log.String())
			}
			again := answerOf(t, method)
			if err := conn.Invoke(ctx, full, q, again); err != nil || !proto.Equal(res, again) || len(b.Orders) != 1 {
				t.Errorf("%s again: %v, %v, %d orders", method, again, err, len(b.Orders))
			}
		}
	}
}

// TestStopDuringACallFromWithin: a stop waits for a change from within that is under way, as for one over
// gRPC, and refuses further calls.
func TestStopDuringACallFromWithin(t *testing.T) {
	t.Parallel()
	b := &heldPools{controltest.Scene(), make(chan struct{}, 1), make(chan struct{})}
	server := controltest.Serve(t, b.Backend, func(o *control.Options) { o.Nat = b })
	ctx := access.With(t.Context(), access.Actor{Name: "token:x", Role: access.Admin})
	pools, controls := pb.NewNatServiceClient(server.Within()), pb.NewControlServiceClient(server.Within())
	changed := make(chan error, 1)
	go func() {
		_, err := pools.AddPool(ctx, &pb.AddPoolRequest{OutsidePrefix: "203.0.113.0/28", RequestId: "r1"})
		changed <- err
	}()
	<-b.entered
	release := sync.OnceFunc(func() { close(b.release) })
	defer release()
	stopped := make(chan struct{})
	go func() {
		server.Stop(t)
		close(stopped)
	}()
	testenv.Eventually(t, "calls are refused", func() bool {
		_, err := controls.GetSettings(ctx, &pb.GetSettingsRequest{})
		return status.Code(err) == codes.Unavailable && reason(err) == "STOPPING"
	})
	select {
	case <-stopped:
		t.Error("the stop does not wait for the change")
	default:
	}
	release()
	if err := <-changed; err != nil {
		t.Errorf("the change that was under way: %v", err)
	}
	<-stopped
}

// TestWithinChecksRequests: what cannot be encoded, and what is no method, is refused.
func TestWithinChecksRequests(t *testing.T) {
	t.Parallel()
	conn := controltest.Serve(t, controltest.Scene(), nil).Within()
	ctx := access.With(t.Context(), access.Actor{Name: "token:x", Role: access.Admin})
	err := conn.Invoke(ctx, pb.SubscriberService_DeleteSubscribers_FullMethodName, &pb.DeleteSubscribersRequest{UserName: "\xff"}, &pb.DeleteSubscribersResponse{})
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("text that is not UTF-8: %v", err)
	}
	if err := conn.Invoke(ctx, "/sessiond.v1.X/Y", &pb.GetStatusRequest{}, &pb.GetStatusResponse{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("an unknown method: %v", err)
	}
	if _, err := pb.NewSubscriberServiceClient(conn).WatchSubscribers(ctx, &pb.WatchSubscribersRequest{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("a stream: %v", err)
	}
}

// TestCallsFromWithinAreBounded_I10: of the calls of one actor some are under way at once, and others
// still have theirs.
func TestCallsFromWithinAreBounded_I10(t *testing.T) {
	t.Parallel()
	const many = 100
	b := &heldPools{controltest.Scene(), make(chan struct{}, many+1), make(chan struct{})}
	server := controltest.Serve(t, b.Backend, func(o *control.Options) { o.Nat = b })
	release := sync.OnceFunc(func() { close(b.release) })
	defer release()
	pools := pb.NewNatServiceClient(server.Within())
	call := func(actor, id string) error {
		ctx := access.With(t.Context(), access.Actor{Name: actor, Role: access.Admin})
		_, err := pools.AddPool(ctx, &pb.AddPoolRequest{OutsidePrefix: "203.0.113.0/28", RequestId: id})
		return err
	}
	ended := make(chan error, many+1)
	for i := range many {
		go func() { ended <- call("token:x", fmt.Sprint(i)) }()
	}
	testenv.Eventually(t, "all calls are made or refused", func() bool { return len(ended)+len(b.entered) == many })
	refused := len(ended)
	for range refused {
		if err := <-ended; status.Code(err) != codes.ResourceExhausted || reason(err) != "LIMIT_REACHED" {
			t.Fatalf("a call beyond the bound: %v", err)
		}
	}
	if made := many - refused; made < 8 || made > 32 {
		t.Errorf("%d calls are under way", made)
	}
	go func() { ended <- call("token:y", "1") }()
	testenv.Eventually(t, "another actor's call is made", func() bool { return len(b.entered) == many-refused+1 })
	release()
	for range many - refused + 1 {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	if err := call("token:x", "later"); err != nil {
		t.Errorf("behind them: %v", err)
	}
}
