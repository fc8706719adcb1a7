package main

import (
	"bytes"
	"context"
	"net"
	"strings"
	"testing"
	"unicode/utf8"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
)

// impostor answers in place of a sessiond that is down.
type impostor struct {
	pb.UnimplementedSubscriberServiceServer
	pb.UnimplementedControlServiceServer
}

const evil = "eve\r\n\x1b[2J\u009b31m\u202e\u2028\u0000"

func (impostor) ListSubscribers(context.Context, *pb.ListSubscribersRequest) (*pb.ListSubscribersResponse, error) {
	return &pb.ListSubscribersResponse{Subscribers: []*pb.Subscriber{{Group: evil, InsideAddress: evil, UserName: evil, Nas: evil, AcctSessionId: evil}}}, nil
}

func (impostor) GetStatus(context.Context, *pb.GetStatusRequest) (*pb.GetStatusResponse, error) {
	return nil, status.Error(codes.Unavailable, evil)
}

// TestImpostorCannotDisturbTheTerminal: any user of the machine can take the address of a
// sessiond that is down, and wait for root to look.
func TestImpostorCannotDisturbTheTerminal(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	pb.RegisterSubscriberServiceServer(server, impostor{})
	pb.RegisterControlServiceServer(server, impostor{})
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	for _, line := range [][]string{{"subscriber", "list"}, {"subscriber", "list", "-o", "json"}, {"status"}} {
		r := ctl(t, l.Addr().String(), "", line...)
		if !strings.Contains(r.stdout+r.stderr, "eve") || strings.ContainsAny(r.stdout+r.stderr, "\r\x1b\x00\u009b\u202e\u2028") {
			t.Errorf("%q printed %q and %q", line, r.stdout, r.stderr)
		}
	}
}

func TestPrinted(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"a\tb\n": "a\tb\n", "Zoë €\n": "Zoë €\n", "\x1b]0;x\x07": "%1B]0;x%07", "\u009b\u202e": "%C2%9B%E2%80%AE", "\xff": "%FF", "\ufffd": "\ufffd",
	} {
		var out bytes.Buffer
		n, err := (&printed{to: &out}).Write([]byte(text))
		if n != len(text) || err != nil || out.String() != want || !utf8.Valid(out.Bytes()) {
			t.Errorf("%q is printed as %q (%d, %v)", text, out.String(), n, err)
		}
	}
}
