package control

import (
	"context"
	"net/netip"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
	"github.com/sessiond/sessiond/internal/inspect"
)

// sessionsPerMessage keeps a message of ListSessions near 16 kB: large enough
// that framing costs little, small enough to reach the reader soon.
const sessionsPerMessage = 128

type sessionService struct {
	pb.UnimplementedSessionServiceServer
	backend Sessions
}

func (s *sessionService) ListSessions(req *pb.ListSessionsRequest, stream pb.SessionService_ListSessionsServer) error {
	filter, err := fromSessionFilter(req.GetFilter())
	if err != nil {
		return err
	}
	var batch []*pb.Session
	send := func() error {
		if len(batch) == 0 {
			return nil
		}
		err := stream.Send(&pb.ListSessionsResponse{Sessions: batch})
		batch = nil // gRPC may still hold the message
		return err
	}
	err = s.backend.Sessions(stream.Context(), filter, func(session inspect.Session) error {
		batch = append(batch, toSession(&session))
		if len(batch) < sessionsPerMessage {
			return nil
		}
		return send()
	})
	if err != nil {
		return err
	}
	return send()
}

func (s *sessionService) CountSessions(ctx context.Context, req *pb.CountSessionsRequest) (*pb.CountSessionsResponse, error) {
	filter, err := fromSessionFilter(req.GetFilter())
	if err != nil {
		return nil, err
	}
	n, err := s.backend.CountSessions(ctx, filter)
	if err != nil {
		return nil, err
	}
	return &pb.CountSessionsResponse{Count: count(n)}, nil
}

func (s *sessionService) TerminateSessions(ctx context.Context, req *pb.TerminateSessionsRequest) (*pb.TerminateSessionsResponse, error) {
	filter, err := fromSessionFilter(req.GetFilter())
	if err != nil {
		return nil, err
	}
	if filter == (inspect.SessionFilter{}) {
		return nil, invalid("filter", "is required; inside \"0.0.0.0/0\" stands for all sessions")
	}
	if req.GetValidateOnly() {
		return s.previewTerminate(ctx, filter)
	}
	n, err := s.backend.TerminateSessions(ctx, filter)
	if err != nil {
		return nil, err
	}
	return &pb.TerminateSessionsResponse{Terminated: count(n)}, nil
}

func (s *sessionService) previewTerminate(ctx context.Context, filter inspect.SessionFilter) (*pb.TerminateSessionsResponse, error) {
	sessions, subscribers := 0, map[netip.Addr]struct{}{}
	err := s.backend.Sessions(ctx, filter, func(session inspect.Session) error {
		sessions++
		subscribers[session.Inside.Addr()] = struct{}{}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &pb.TerminateSessionsResponse{Terminated: count(sessions), Subscribers: count(len(subscribers))}, nil
}
