package control

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
)

// unary turns the handlers' errors into statuses and logs the calls.
func (s *Server) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	began := s.now()
	res, err := handler(ctx, req)
	err = toStatus(err)
	s.log(ctx, info.FullMethod, req, err, s.now().Sub(began))
	return res, err
}

// stream does the same for streams, and ends them when the server stops.
func (s *Server) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	began := s.now()
	ctx, cancel := context.WithCancelCause(ss.Context())
	defer cancel(nil)
	defer context.AfterFunc(s.stopping, func() { cancel(errStopping) })()
	err := handler(srv, &stoppable{ServerStream: ss, ctx: ctx})
	if err != nil && errors.Is(context.Cause(ctx), errStopping) {
		err = errStopping
	}
	err = toStatus(err)
	s.log(ctx, info.FullMethod, nil, err, s.now().Sub(began))
	return err
}

// stoppable is a stream whose context ends with the server, too.
type stoppable struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *stoppable) Context() context.Context { return s.ctx }

// log records who changed what; calls that only read are for debugging.
func (s *Server) log(ctx context.Context, method string, req any, err error, took time.Duration) {
	level, attrs := slog.LevelDebug, []slog.Attr{
		slog.String("method", method),
		slog.String("peer", peerName(ctx)),
		slog.String("code", status.Code(err).String()),
		slog.Duration("took", took),
	}
	if change := changeIn(req); change != nil {
		level = slog.LevelInfo
		attrs = append(attrs, slog.String("request", protojson.Format(change)))
	}
	if err != nil {
		attrs = append(attrs, slog.String("error", status.Convert(err).Message()))
	}
	s.logger.LogAttrs(ctx, level, "grpc call", attrs...)
}

// changeIn returns the request if it is one that changes something.
func changeIn(req any) proto.Message {
	switch req := req.(type) {
	case *pb.PutSubscriberRequest:
		return req
	case *pb.DeleteSubscribersRequest:
		return req
	case *pb.TerminateSessionsRequest:
		return req
	case *pb.UpdateSettingsRequest:
		return req
	case *pb.ReconcileRequest:
		return req
	case *pb.ConfirmRemovalsRequest:
		return req
	case *pb.RefuseRemovalsRequest:
		return req
	}
	return nil
}

func peerName(ctx context.Context) string {
	if p, ok := peer.FromContext(ctx); ok {
		return p.Addr.String()
	}
	return ""
}
