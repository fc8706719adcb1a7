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

	"github.com/sessiond/sessiond/internal/access"
)

// unary checks the rights of callers, bounds the time of their calls, converts
// handlers' errors into statuses, and logs the calls.
func (s *Server) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if c, known := callerIn(ctx); known {
		c.connection.debt.begin()
		defer c.connection.debt.end()
	}
	actor, refused := s.authorize(ctx, info.FullMethod, req)
	if refused != nil {
		return nil, s.refuseCall(ctx, info.FullMethod, actor, refused)
	}
	return s.carryOut(ctx, actor, info.FullMethod, req, handler)
}

// carryOut carries out a call that its actor may make.
func (s *Server) carryOut(ctx context.Context, actor access.Actor, method string, req any, handler grpc.UnaryHandler) (any, error) {
	began := s.now()
	ctx, cancel := context.WithTimeout(access.With(ctx, actor), s.limits.CallTimeout)
	defer cancel()
	res, err := s.orders.handle(ctx, method, req, handler)
	err = toStatus(err)
	s.log(ctx, method, req, err, s.now().Sub(began))
	return res, err
}

// stream does the same for streams, and ends them when the server stops, or
// when their reader takes nothing.
func (s *Server) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	began := s.now()
	method := path.Base(info.FullMethod)
	actor, refused := s.authorize(ss.Context(), info.FullMethod, nil)
	if refused != nil {
		return s.refuseCall(ss.Context(), info.FullMethod, actor, refused)
	}
	caller, known := callerIn(ss.Context())
	if known {
		caller.connection.debt.begin()
		defer caller.connection.debt.end()
		if refused := caller.connection.door.streams.enter(caller.connection.peer); refused != nil {
			return s.refuseStream(ss.Context(), method, refused)
		}
	}
	s.observer.StreamOpened(method)
	st := newServed(access.With(ss.Context(), actor), ss, s.limits.StallTimeout)
	defer st.cancel(nil)
	defer s.open.remove(st)
	err := s.open.add(st, func() error {
		_, refused := s.authorize(ss.Context(), info.FullMethod, nil)
		return refused
	})
	defer context.AfterFunc(s.stopping, func() { st.cancel(errStopping) })()
	if err == nil {
		err = st.serve(func() error { return handler(srv, st) }, s.handlers.Go)
	}
	if cause := context.Cause(st.ctx); err != nil && (errors.Is(cause, errStopping) || errors.As(cause, new(*refusedError))) {
		err = cause
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

// refuseCall logs a call that its caller may not make. Any caller can provoke
// these lines.
func (s *Server) refuseCall(ctx context.Context, method string, actor access.Actor, refused error) error {
	if suppressed, ok := s.denials.Allow(s.now()); ok {
		s.logger.WarnContext(ctx, "gRPC call refused", "method", method, "peer", peerName(ctx),
			"actor", actor.Name, "error", refused, "suppressed", suppressed)
	}
	return toStatus(refused)
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
	if actor, ok := access.From(ctx); ok {
		attrs = append(attrs, slog.String("actor", actor.Name))
	}
	if change, ok := req.(proto.Message); ok && access.Changes(method, req) {
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
