package control_test

import (
	"fmt"
	"net/netip"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
	"github.com/sessiond/sessiond/internal/control/controltest"
)

func TestListRemovals_DEL13(t *testing.T) {
	t.Parallel()
	c := serve(t, controltest.Scene())
	for _, tt := range []struct {
		req  *pb.ListRemovalsRequest
		want string
	}{
		{&pb.ListRemovalsRequest{}, "[100.64.0.7 100.64.0.20 100.64.0.21]"},
		{&pb.ListRemovalsRequest{Kind: pb.RemovalKind_REMOVAL_KIND_GRACE}, "[100.64.0.20]"},
		{&pb.ListRemovalsRequest{Filter: &pb.RemovalFilter{Reason: pb.Reason_REASON_NAS_RESTART}}, "[100.64.0.21]"},
		{&pb.ListRemovalsRequest{Filter: &pb.RemovalFilter{Inside: "100.64.0.0/28"}}, "[100.64.0.7]"},
		{&pb.ListRemovalsRequest{Filter: &pb.RemovalFilter{Nas: "other"}}, "[]"},
	} {
		res, err := c.ListRemovals(t.Context(), tt.req)
		if err != nil {
			t.Fatal(err)
		}
		insides := []string{}
		for _, r := range res.GetRemovals() {
			insides = append(insides, r.GetInsideAddress())
		}
		if got := fmt.Sprint(insides); got != tt.want {
			t.Errorf("%v: %s, want %s", tt.req, got, tt.want)
		}
	}
	res, err := c.ListRemovals(t.Context(), &pb.ListRemovalsRequest{PageSize: 1, Kind: pb.RemovalKind_REMOVAL_KIND_HELD})
	if err != nil {
		t.Fatal(err)
	}
	r := res.GetRemovals()[0]
	if r.GetReason() != pb.Reason_REASON_EXPIRED || r.GetUserName() != "alice" || r.GetNas() != "bng1.example" ||
		r.GetAcctSessionId() != "0A01" || r.GetSessions() != 2 || r.GetSince() == nil || r.GetDueAt() != nil {
		t.Errorf("removal %v", r)
	}
}

func TestRemovalPages(t *testing.T) {
	t.Parallel()
	b := controltest.Scene()
	removal := b.Waiting[0]
	b.Waiting = nil
	for i := range 5 {
		removal.Record.Inside = netip.AddrFrom4([4]byte{100, 64, 0, byte(i)})
		removal.Since = removal.Since.Add(1) // finer than a second
		b.Waiting = append(b.Waiting, removal)
	}
	c := serve(t, b)
	req, seen := &pb.ListRemovalsRequest{PageSize: 2}, 0
	for {
		res, err := c.ListRemovals(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		seen += len(res.GetRemovals())
		if req.PageToken = res.GetNextPageToken(); req.PageToken == "" {
			break
		}
	}
	if seen != 5 {
		t.Errorf("saw %d removals, want 5", seen)
	}
}

// TestDecisionsNameWhom: a decision about all removals must say so.
func TestDecisionsNameWhom(t *testing.T) {
	t.Parallel()
	c := serve(t, controltest.Scene())
	for _, f := range []*pb.RemovalFilter{nil, {}, {Inside: "x"}, {Reason: 99}} {
		_, errConfirm := c.ConfirmRemovals(t.Context(), &pb.ConfirmRemovalsRequest{Filter: f})
		_, errRefuse := c.RefuseRemovals(t.Context(), &pb.RefuseRemovalsRequest{Filter: f})
		if status.Code(errConfirm) != codes.InvalidArgument || status.Code(errRefuse) != codes.InvalidArgument {
			t.Errorf("%v: confirm %v, refuse %v", f, errConfirm, errRefuse)
		}
	}
	if _, err := c.ListRemovals(t.Context(), &pb.ListRemovalsRequest{Kind: 99}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("unknown kind: %v", err)
	}
	res, err := c.ConfirmRemovals(t.Context(), &pb.ConfirmRemovalsRequest{Filter: &pb.RemovalFilter{Inside: "0.0.0.0/0"}})
	if err != nil || res.GetConfirmed() != 1 {
		t.Errorf("all: %v, %v", res, err)
	}
}
