package control_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
	"github.com/sessiond/sessiond/internal/control"
	"github.com/sessiond/sessiond/internal/control/controltest"
	"github.com/sessiond/sessiond/internal/inspect"
)

var (
	_ control.Subscribers = (*controltest.Backend)(nil)
	_ control.Nat         = (*controltest.Backend)(nil)
	_ control.Sessions    = (*controltest.Backend)(nil)
	_ control.Controls    = (*controltest.Backend)(nil)
	_ control.Removals    = (*controltest.Backend)(nil)
	_ control.NASes       = (*controltest.Backend)(nil)
	_ control.Mappings    = (*controltest.Backend)(nil)
	_ control.Desk        = (*controltest.Backend)(nil)
	_ control.Audits      = (*controltest.Audits)(nil)
	_ control.Previews    = controltest.Previews{}
)

// options are valid options, which a test may change.
func options(listen string) control.Options {
	b := controltest.Scene()
	return control.Options{
		Listen: listen, Subscribers: b, Nat: b, Sessions: b, Controls: b, Removals: b, NASes: b, Mappings: b, Desk: b,
		Audits: &b.Audits, Previews: controltest.Previews{Of: b},
		Logger: slog.New(slog.DiscardHandler),
	}
}

type clients struct {
	pb.SubscriberServiceClient
	pb.NatServiceClient
	pb.SessionServiceClient
	pb.ControlServiceClient
	pb.RemovalServiceClient
	pb.NasServiceClient
	pb.MappingServiceClient
	pb.DeskServiceClient
	pb.AuditServiceClient
}

func serve(t *testing.T, b *controltest.Backend) clients {
	t.Helper()
	conn := dial(t, controltest.Serve(t, b, nil).Address)
	return clients{
		pb.NewSubscriberServiceClient(conn), pb.NewNatServiceClient(conn),
		pb.NewSessionServiceClient(conn), pb.NewControlServiceClient(conn),
		pb.NewRemovalServiceClient(conn), pb.NewNasServiceClient(conn), pb.NewMappingServiceClient(conn), pb.NewDeskServiceClient(conn),
		pb.NewAuditServiceClient(conn),
	}
}

// TestBackendErrorsReachTheClient: every method passes on the backend's error.
func TestBackendErrorsReachTheClient(t *testing.T) {
	t.Parallel()
	b := controltest.Scene()
	b.Err, b.Audits.Err = inspect.ErrUnavailable, inspect.ErrUnavailable
	c := serve(t, b)
	ctx := t.Context()
	filter := &pb.SessionFilter{Group: "default"}
	for name, call := range map[string]func() error{
		"GetSubscriber": func() error {
			_, err := c.GetSubscriber(ctx, &pb.GetSubscriberRequest{InsideAddress: "100.64.0.1"})
			return err
		},
		"ListAudit":   func() error { _, err := c.ListAudit(ctx, nil); return err },
		"VerifyAudit": func() error { _, err := c.VerifyAudit(ctx, nil); return err },
		"a request that is to be remembered": func() error {
			_, err := c.Reconcile(ctx, &pb.ReconcileRequest{RequestId: "r1"})
			return err
		},
		"PutSubscriber, validated": func() error {
			_, err := c.PutSubscriber(ctx, &pb.PutSubscriberRequest{Subscriber: &pb.Subscriber{InsideAddress: "100.64.0.1", UserName: "x"}, ValidateOnly: true})
			return err
		},
		"DeleteSubscribers, validated": func() error {
			_, err := c.DeleteSubscribers(ctx, &pb.DeleteSubscribersRequest{Nas: "n", ValidateOnly: true})
			return err
		},
		"RemovePool, validated": func() error {
			_, err := c.RemovePool(ctx, &pb.RemovePoolRequest{OutsidePrefix: "203.0.113.0/28", ValidateOnly: true})
			return err
		},
		"ListSubscribers": func() error { _, err := c.ListSubscribers(ctx, nil); return err },
		"PutSubscriber": func() error {
			_, err := c.PutSubscriber(ctx, &pb.PutSubscriberRequest{Subscriber: &pb.Subscriber{InsideAddress: "100.64.0.1", UserName: "x"}})
			return err
		},
		"PutSubscriber with mask": func() error {
			_, err := c.PutSubscriber(ctx, &pb.PutSubscriberRequest{
				Subscriber: &pb.Subscriber{InsideAddress: "100.64.0.1"}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"nas"}},
			})
			return err
		},
		"DeleteSubscribers": func() error {
			_, err := c.DeleteSubscribers(ctx, &pb.DeleteSubscribersRequest{Nas: "n"})
			return err
		},
		"DeleteSubscribers by etag": func() error {
			_, err := c.DeleteSubscribers(ctx, &pb.DeleteSubscribersRequest{Inside: "100.64.0.7", Etag: "1-0"})
			return err
		},
		"ListSubscribers by name": func() error {
			_, err := c.ListSubscribers(ctx, &pb.ListSubscribersRequest{OrderBy: "user_name"})
			return err
		},
		"ExplainSubscriber": func() error {
			_, err := c.ExplainSubscriber(ctx, &pb.ExplainSubscriberRequest{UserName: "alice"})
			return err
		},
		"ListEndings":        func() error { _, err := c.ListEndings(ctx, nil); return err },
		"ListTopSubscribers": func() error { _, err := c.ListTopSubscribers(ctx, nil); return err },
		"ListMappings":       func() error { _, err := c.ListMappings(ctx, nil); return err },
		"CreateMapping": func() error {
			_, err := c.CreateMapping(ctx, &pb.CreateMappingRequest{Protocol: pb.Protocol_PROTOCOL_TCP, UserName: "alice", InsidePort: 22})
			return err
		},
		"DeleteMapping": func() error {
			_, err := c.DeleteMapping(ctx, &pb.DeleteMappingRequest{Protocol: pb.Protocol_PROTOCOL_TCP, OutsideAddress: "198.51.100.1", OutsidePort: 60022})
			return err
		},
		"ListBindings": func() error { _, err := c.ListBindings(ctx, nil); return err },
		"LookupOutside": func() error {
			_, err := c.LookupOutside(ctx, &pb.LookupOutsideRequest{OutsideAddress: "198.51.100.1", Port: 2})
			return err
		},
		"ListPools": func() error { _, err := c.ListPools(ctx, nil); return err },
		"AddPool": func() error {
			_, err := c.AddPool(ctx, &pb.AddPoolRequest{OutsidePrefix: "203.0.113.0/28"})
			return err
		},
		"DrainPool": func() error {
			_, err := c.DrainPool(ctx, &pb.DrainPoolRequest{OutsidePrefix: "203.0.113.0/28"})
			return err
		},
		"RemovePool": func() error {
			_, err := c.RemovePool(ctx, &pb.RemovePoolRequest{OutsidePrefix: "203.0.113.0/28"})
			return err
		},
		"ListDrops": func() error { _, err := c.ListDrops(ctx, nil); return err },
		"AdviseBlockSize": func() error {
			_, err := c.AdviseBlockSize(ctx, &pb.AdviseBlockSizeRequest{Group: "default"})
			return err
		},
		"ListSessions":  func() error { return streamError(c.ListSessions(ctx, nil)) },
		"CountSessions": func() error { _, err := c.CountSessions(ctx, nil); return err },
		"TerminateSessions": func() error {
			_, err := c.TerminateSessions(ctx, &pb.TerminateSessionsRequest{Filter: filter})
			return err
		},
		"GetSettings": func() error { _, err := c.GetSettings(ctx, nil); return err },
		"UpdateSettings": func() error {
			_, err := c.UpdateSettings(ctx, &pb.UpdateSettingsRequest{UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"subscriber_session_removal"}}})
			return err
		},
		"GetStatus":    func() error { _, err := c.GetStatus(ctx, nil); return err },
		"Reconcile":    func() error { _, err := c.Reconcile(ctx, nil); return err },
		"ListRemovals": func() error { _, err := c.ListRemovals(ctx, nil); return err },
		"ListNases":    func() error { _, err := c.ListNases(ctx, nil); return err },
		"GetNas":       func() error { _, err := c.GetNas(ctx, &pb.GetNasRequest{Name: "n"}); return err },
		"ConfirmRemovals": func() error {
			_, err := c.ConfirmRemovals(ctx, &pb.ConfirmRemovalsRequest{Filter: &pb.RemovalFilter{Group: "default"}})
			return err
		},
		"RefuseRemovals": func() error {
			_, err := c.RefuseRemovals(ctx, &pb.RefuseRemovalsRequest{Filter: &pb.RemovalFilter{Group: "default"}})
			return err
		},
	} {
		if err := call(); status.Code(err) != codes.Unavailable {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func streamError[M any](stream grpc.ServerStreamingClient[M], err error) error {
	for err == nil {
		_, err = stream.Recv()
	}
	return err
}

func TestChangesAreLogged(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	server := controltest.Serve(t, controltest.Scene(), func(o *control.Options) {
		o.Logger = slog.New(slog.NewTextHandler(&log, nil))
	})
	conn, err := grpc.NewClient(server.Address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	_, errRead := pb.NewControlServiceClient(conn).GetStatus(context.Background(), &pb.GetStatusRequest{})
	_, errChange := pb.NewSubscriberServiceClient(conn).DeleteSubscribers(context.Background(), &pb.DeleteSubscribersRequest{UserName: "alice"})
	if errRead != nil || errChange != nil {
		t.Fatal(errRead, errChange)
	}
	_ = conn.Close()
	server.Stop(t)
	text := log.String()
	if strings.Contains(text, "GetStatus") || !strings.Contains(text, "DeleteSubscribers") ||
		!strings.Contains(text, "alice") || !strings.Contains(text, "127.0.0.1:") {
		t.Errorf("the log says:\n%s", text)
	}
}
