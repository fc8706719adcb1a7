package control

import (
	"context"
	"errors"
	"log/slog"
	"path"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// unary converts handlers' errors into statuses, and logs the calls.
func (s *Server) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	began := s.now()
	if c, known := callerIn(ctx); known {
		c.connection.debt.begin()
		defer c.connection.debt.end()
	}
	var res any
	err := permit(ctx, info.FullMethod, req)
	if err == nil {
		res, err = s.orders.handle(ctx, info.FullMethod, req, handler)
	}
	err = toStatus(err)
	s.log(ctx, info.FullMethod, req, err, s.now().Sub(began))
	return res, err
}

// stream does the same for streams, and ends them when the server stops, or
// when their reader takes nothing.
func (s *Server) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	began := s.now()
	method := path.Base(info.FullMethod)
	caller, known := callerIn(ss.Context())
	if known {
		caller.connection.debt.begin()
		defer caller.connection.debt.end()
		if refused := caller.connection.door.streams.enter(caller.connection.peer); refused != nil {
			return s.refuseStream(ss.Context(), method, refused)
		}
	}
	s.observer.StreamOpened(method)
	st := newServed(ss, s.limits.StallTimeout)
	if err := permit(ss.Context(), info.FullMethod, nil); err != nil {
		handler = func(any, grpc.ServerStream) error { return err }
	}
	defer st.cancel(nil)
	defer context.AfterFunc(s.stopping, func() { st.cancel(errStopping) })()
	err := st.serve(func() error { return handler(srv, st) }, s.handlers.Go)
	if err != nil && errors.Is(context.Cause(st.ctx), errStopping) {
		err = errStopping
	}
	end := streamEnd(err)
	if end == StreamFailed && ss.Context().Err() != nil {
		end = StreamCanceled
	}
	s.observer.StreamEnded(method, end)
	if known {
		caller.connection.leaveStream()
	}
	err = toStatus(err)
	s.log(ss.Context(), info.FullMethod, nil, err, s.now().Sub(began))
	return err
}

// refuseStream counts and logs a stream beyond a limit.
func (s *Server) refuseStream(ctx context.Context, method string, refused *limitError) error {
	s.observer.StreamRefused(method, refused.cause)
	if suppressed, ok := s.refusals.Allow(s.now()); ok {
		s.logger.WarnContext(ctx, "gRPC stream refused", "method", method, "peer", peerName(ctx),
			"cause", refused.cause, "error", refused, "suppressed", suppressed)
	}
	return toStatus(refused)
}

// maxLogged bounds the logged octets of a request.
const maxLogged = 2 << 10

// log records changes with their peer; calls that only read are logged at debug
// level. Failed changes, which any caller can cause, are throttled.
func (s *Server) log(ctx context.Context, method string, req any, err error, took time.Duration) {
	level, attrs := slog.LevelDebug, []slog.Attr{
		slog.String("method", method),
		slog.String("peer", peerName(ctx)),
		slog.String("code", status.Code(err).String()),
		slog.Duration("took", took),
	}
	if change, ok := req.(proto.Message); ok && Changes(method, req) {
		level = slog.LevelInfo
		if err != nil {
			suppressed, ok := s.failures.Allow(s.now())
			if !ok {
				return
			}
			attrs = append(attrs, slog.Int("suppressed", suppressed))
		}
		request := protojson.Format(change)
		attrs = append(attrs, slog.String("request", request[:min(len(request), maxLogged)]))
	}
	if err != nil {
		attrs = append(attrs, slog.String("error", status.Convert(err).Message()))
	}
	s.logger.LogAttrs(ctx, level, "grpc call", attrs...)
}

func peerName(ctx context.Context) string {
	if p, ok := peer.FromContext(ctx); ok {
		return p.Addr.String()
	}
	return ""
}
