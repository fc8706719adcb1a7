package control

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
)

// StreamMethods returns the short names of all streaming methods.
func StreamMethods() []string {
	var names []string
	for _, service := range []*grpc.ServiceDesc{
		&pb.SubscriberService_ServiceDesc, &pb.SessionService_ServiceDesc, &pb.HistoryService_ServiceDesc, &healthpb.Health_ServiceDesc,
		&reflectionpb.ServerReflection_ServiceDesc,
	} {
		for _, s := range service.Streams {
			names = append(names, s.StreamName)
		}
	}
	return names
}

// Ends of a stream.
const (
	StreamDone     = "done"     // all was sent
	StreamCanceled = "canceled" // by its reader, or with its connection
	StreamLagged   = "lagged"   // events were lost, mostly because its reader was too far behind
	StreamStalled  = "stalled"  // its reader took nothing
	StreamStopping = "stopping" // the daemon ends
	StreamFailed   = "failed"
)

// StreamEnds returns all ends of a stream.
func StreamEnds() []string {
	return []string{StreamDone, StreamCanceled, StreamLagged, StreamStalled, StreamStopping, StreamFailed}
}

func streamEnd(err error) string {
	switch {
	case err == nil:
		return StreamDone
	case errors.Is(err, errStalled):
		return StreamStalled
	case errors.Is(err, errStopping):
		return StreamStopping
	case isLost(err):
		return StreamLagged
	}
	return StreamFailed
}

// served is a stream whose context ends with the server, or when its reader
// takes nothing for too long.
type served struct {
	grpc.ServerStream
	ctx    context.Context
	cancel context.CancelCauseFunc
	limit  time.Duration
	stall  *time.Timer // runs while a message waits to be taken
}

func newServed(ctx context.Context, ss grpc.ServerStream, limit time.Duration) *served {
	s := &served{ServerStream: ss, limit: limit}
	s.ctx, s.cancel = context.WithCancelCause(ctx)
	s.stall = time.AfterFunc(limit, func() { s.cancel(errStalled) })
	s.stall.Stop()
	return s
}

// Context implements grpc.ServerStream.
func (s *served) Context() context.Context { return s.ctx }

// SendMsg implements grpc.ServerStream.
func (s *served) SendMsg(m any) error {
	s.stall.Reset(s.limit)
	defer s.stall.Stop()
	return s.ServerStream.SendMsg(m)
}

// RecvMsg implements grpc.ServerStream.
func (s *served) RecvMsg(m any) error {
	request := decodedRequest{message: m}
	if err := s.ServerStream.RecvMsg(&request); err != nil {
		return err
	}
	return request.fault
}

// stalled reports whether the reader took nothing for too long.
func (s *served) stalled() bool { return errors.Is(context.Cause(s.ctx), errStalled) }

// serve runs the handler and returns when it does, or when the stream has
// stalled. A handler that waits for a stalled reader waits until gRPC knows
// that the stream has ended, and gRPC knows it when serve returns.
func (s *served) serve(handle func() error, start func(func())) error {
	done := make(chan error, 1)
	start(func() { done <- handle() })
	select {
	case err := <-done:
		if s.stalled() {
			return errStalled
		}
		return err
	case <-s.ctx.Done():
	}
	if s.stalled() {
		return errStalled
	}
	return <-done
}
