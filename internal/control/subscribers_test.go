package control_test

import (
	"net/netip"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
	"github.com/sessiond/sessiond/internal/control/controltest"
	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/subscriber"
)

func TestGetSubscriber(t *testing.T) {
	t.Parallel()
	c := serve(t, controltest.Scene())
	res, err := c.GetSubscriber(t.Context(), &pb.GetSubscriberRequest{InsideAddress: "100.64.0.7"})
	if err != nil {
		t.Fatal(err)
	}
	s := res.GetSubscriber()
	if s.GetUserName() != "alice" || s.GetBinding().GetFirstPort() != 1024 || s.GetBinding().GetSessions() != 2 {
		t.Errorf("got %v", s)
	}
	for inside, want := range map[string]codes.Code{
		"100.64.0.99": codes.NotFound, "": codes.InvalidArgument, "x": codes.InvalidArgument, "2001:db8::1": codes.InvalidArgument,
	} {
		_, err := c.GetSubscriber(t.Context(), &pb.GetSubscriberRequest{InsideAddress: inside})
		if status.Code(err) != want {
			t.Errorf("%q: %v, want %v", inside, err, want)
		}
	}
}

func TestListSubscribersPages(t *testing.T) {
	t.Parallel()
	b := crowd(2500)
	c := serve(t, b)
	for _, size := range []int32{0, 7, 1000, 5000} {
		var got []string
		req := &pb.ListSubscribersRequest{PageSize: size, Nas: "even"}
		for {
			page, err := c.ListSubscribers(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range page.GetSubscribers() {
				got = append(got, s.GetInsideAddress())
			}
			if req.PageToken = page.GetNextPageToken(); req.PageToken == "" {
				break
			}
		}
		if len(got) != 1250 || got[0] != "100.64.0.0" || got[1249] != "100.64.9.194" {
			t.Errorf("page size %d: %d subscribers, %s to %s", size, len(got), got[0], got[len(got)-1])
		}
	}
}

func TestListRefusesBadPages(t *testing.T) {
	t.Parallel()
	c := serve(t, crowd(20))
	page, err := c.ListSubscribers(t.Context(), &pb.ListSubscribersRequest{PageSize: 3})
	if err != nil {
		t.Fatal(err)
	}
	for name, req := range map[string]*pb.ListSubscribersRequest{
		"negative size":  {PageSize: -1},
		"no token":       {PageToken: "?"},
		"other filter":   {PageToken: page.GetNextPageToken(), Nas: "even"},
		"mangled token":  {PageToken: "A" + page.GetNextPageToken()[1:] + "A"},
		"broken address": {Inside: "100.64.0"},
	} {
		if _, err := c.ListSubscribers(t.Context(), req); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func crowd(n int) *controltest.Backend {
	b := controltest.Scene()
	b.Online = nil
	addr := netip.MustParseAddr("100.64.0.0")
	for i := range n {
		b.Online = append(b.Online, inspect.Subscriber{Record: subscriber.Record{
			Key:       subscriber.Key{Group: "default", Inside: addr},
			SessionID: subscriber.SessionID{NAS: []string{"even", "odd"}[i%2]},
		}})
		addr = addr.Next()
	}
	return b
}

func TestPutSubscriber(t *testing.T) {
	t.Parallel()
	b := controltest.Scene()
	c := serve(t, b)
	put := func(s *pb.Subscriber, mask ...string) (*pb.Subscriber, error) {
		req := &pb.PutSubscriberRequest{Subscriber: s}
		if mask != nil {
			req.UpdateMask = &fieldmaskpb.FieldMask{Paths: mask}
		}
		res, err := c.PutSubscriber(t.Context(), req)
		return res.GetSubscriber(), err
	}
	expires := timestamppb.New(controltest.Now.Add(time.Hour))
	got, err := put(&pb.Subscriber{InsideAddress: "100.64.1.1", UserName: "dave%00", Nas: "n", ExpiresAt: expires})
	if err != nil || got.GetUserName() != "dave%00" || got.GetGroup() != "default" {
		t.Fatalf("put: %v, %v", got, err)
	}
	if stored, _ := b.Subscriber(t.Context(), subscriber.Key{Inside: netip.MustParseAddr("100.64.1.1")}); stored.UserName != "dave\x00" {
		t.Errorf("stored user name %q", stored.UserName)
	}
	got, err = put(&pb.Subscriber{InsideAddress: "100.64.1.1", UserName: "erin", Nas: "ignored"}, "user_name")
	if err != nil || got.GetUserName() != "erin" || got.GetNas() != "n" || got.GetExpiresAt() == nil {
		t.Errorf("with a mask: %v, %v", got, err)
	}
	got, err = put(&pb.Subscriber{InsideAddress: "100.64.1.1", UserName: "erin"}, "*")
	if err != nil || got.GetNas() != "" || got.GetExpiresAt() != nil {
		t.Errorf("replaced: %v, %v", got, err)
	}
}

func TestPutSubscriberRefuses(t *testing.T) {
	t.Parallel()
	c := serve(t, controltest.Scene())
	past := timestamppb.New(controltest.Now.Add(-time.Second))
	for name, one := range map[string]struct {
		sub  *pb.Subscriber
		mask []string
		want codes.Code
	}{
		"nothing":        {nil, nil, codes.InvalidArgument},
		"no user":        {&pb.Subscriber{InsideAddress: "100.64.1.1"}, nil, codes.InvalidArgument},
		"past":           {&pb.Subscriber{InsideAddress: "100.64.1.1", UserName: "x", ExpiresAt: past}, nil, codes.InvalidArgument},
		"read-only mask": {&pb.Subscriber{InsideAddress: "100.64.1.1", UserName: "x"}, []string{"started_at"}, codes.InvalidArgument},
		"no group":       {&pb.Subscriber{InsideAddress: "10.0.0.1", UserName: "x"}, nil, codes.FailedPrecondition},
	} {
		req := &pb.PutSubscriberRequest{Subscriber: one.sub, UpdateMask: &fieldmaskpb.FieldMask{Paths: one.mask}}
		if _, err := c.PutSubscriber(t.Context(), req); status.Code(err) != one.want {
			t.Errorf("%s: %v, want %v", name, err, one.want)
		}
	}
}

func TestDeleteSubscribers_DEL08(t *testing.T) {
	t.Parallel()
	c := serve(t, crowd(2500))
	for name, req := range map[string]*pb.DeleteSubscribersRequest{
		"everybody": {}, "a group": {Group: "default"},
	} {
		if _, err := c.DeleteSubscribers(t.Context(), req); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
	res, err := c.DeleteSubscribers(t.Context(), &pb.DeleteSubscribersRequest{Nas: "odd"})
	if err != nil || res.GetDeleted() != 1250 || len(res.GetSubscribers()) != 1000 {
		t.Errorf("deleted %d, showed %d, %v", res.GetDeleted(), len(res.GetSubscribers()), err)
	}
	res, err = c.DeleteSubscribers(t.Context(), &pb.DeleteSubscribersRequest{Nas: "odd"})
	if err != nil || res.GetDeleted() != 0 {
		t.Errorf("again: %d, %v", res.GetDeleted(), err)
	}
}
