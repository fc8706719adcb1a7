package control_test

import (
	"net/netip"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
	"github.com/sessiond/sessiond/internal/control/controltest"
)

func TestSessions(t *testing.T) {
	t.Parallel()
	b := controltest.Scene()
	template := b.Flows[0]
	for i := range 1000 {
		f := template
		f.Remote = netip.AddrPortFrom(f.Remote.Addr(), uint16(1000+i))
		b.Flows = append(b.Flows, f)
	}
	c := serve(t, b)
	tcp := &pb.SessionFilter{Protocol: pb.Protocol_PROTOCOL_TCP, Inside: "100.64.0.7"}
	if n := listed(t, c, tcp); n != 1001 {
		t.Errorf("listed %d sessions", n)
	}
	n, err := c.CountSessions(t.Context(), &pb.CountSessionsRequest{Filter: tcp})
	if err != nil || n.GetCount() != 1001 {
		t.Errorf("counted %v, %v", n, err)
	}
	killed, err := c.TerminateSessions(t.Context(), &pb.TerminateSessionsRequest{Filter: &pb.SessionFilter{Remote: "203.0.113.5", RemotePort: 443}})
	if err != nil || killed.GetTerminated() != 1 {
		t.Errorf("terminated %v, %v", killed, err)
	}
	if n := listed(t, c, nil); n != 1001 {
		t.Errorf("%d sessions are left", n)
	}
}

func listed(t *testing.T, c clients, f *pb.SessionFilter) int {
	t.Helper()
	stream, err := c.ListSessions(t.Context(), &pb.ListSessionsRequest{Filter: f})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for {
		res, err := stream.Recv()
		if err != nil {
			return n
		}
		n += len(res.GetSessions())
	}
}

func TestSessionsRefuse(t *testing.T) {
	t.Parallel()
	c := serve(t, controltest.Scene())
	if _, err := c.TerminateSessions(t.Context(), &pb.TerminateSessionsRequest{}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("everybody's sessions: %v", err)
	}
	for name, f := range map[string]*pb.SessionFilter{
		"protocol": {Protocol: 256}, "negative protocol": {Protocol: -1},
		"inside": {Inside: "x"}, "port": {RemotePort: 65536},
	} {
		if _, err := c.CountSessions(t.Context(), &pb.CountSessionsRequest{Filter: f}); status.Code(err) != codes.InvalidArgument {
			t.Errorf("bad %s: %v", name, err)
		}
		if _, err := c.TerminateSessions(t.Context(), &pb.TerminateSessionsRequest{Filter: f}); status.Code(err) != codes.InvalidArgument {
			t.Errorf("bad %s: %v", name, err)
		}
	}
}
