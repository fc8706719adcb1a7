package control

import (
	"context"
	"net"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/sessiond/sessiond/internal/access"
	"github.com/sessiond/sessiond/internal/quota"
)

// Within makes calls from within the program, as the console does for its users. Each call is of
// the actor in its context (access.With), without which it has no role, and passes what one over gRPC
// passes: the check of the role, orders with their audit entries, repeated requests, the bounds on
// time and on calls at once, the log. It implements grpc.ClientConnInterface.
type Within struct{ server *Server }

// Within returns the way to make calls from within the program.
func (s *Server) Within() Within { return Within{s} }

// TokenActor returns the holder of a token, for a caller that came by another way than gRPC, by
// the rights in force. Its errors are those of access.Policy.
func (s *Server) TokenActor(t access.Token, c *access.Caller) (access.Actor, error) {
	return s.rights.Load().policy.Load().TokenActor(t, c)
}

// Bounds of calls from within that are under way, in all and of one actor. A person waits for one
// before the next; the end of a million subscribers takes a minute.
const (
	maxInnerCalls         = 64
	maxInnerCallsPerActor = 16
)

// innerCalls are the calls from within that are under way.
type innerCalls struct {
	quota   *quota.Quota
	mu      sync.Mutex
	stopped bool
	calls   sync.WaitGroup
	ended   context.Context // ends the calls
	end     context.CancelFunc
}

func newInnerCalls() *innerCalls {
	c := &innerCalls{quota: quota.New(maxInnerCalls, maxInnerCallsPerActor)}
	c.ended, c.end = context.WithCancel(context.Background())
	return c
}

// enter counts a call of an actor until it leaves. Beyond a bound it returns a *limitError, and at a
// stop errStopping.
func (c *innerCalls) enter(ctx context.Context, actor string) (_ context.Context, leave func(), err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		return nil, nil, errStopping
	}
	if cause := c.quota.Enter(actor); cause != "" {
		return nil, nil, &limitError{cause, "too many changes and previews are under way; wait for their outcome, then try again"}
	}
	c.calls.Add(1)
	ctx, cancel := context.WithCancel(ctx)
	unlink := context.AfterFunc(c.ended, cancel)
	return ctx, func() {
		unlink()
		cancel()
		c.quota.Leave(actor)
		c.calls.Done()
	}, nil
}

// stop refuses further calls.
func (c *innerCalls) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopped = true
}

// servedMethod is a method that is no stream, with its service.
type servedMethod struct {
	service any
	handler grpc.MethodHandler
}

// Invoke implements grpc.ClientConnInterface. Request and answer are encoded on their way, so that
// the request is checked as one that comes in, and neither side has the other's.
func (w Within) Invoke(ctx context.Context, method string, args, reply any, _ ...grpc.CallOption) error {
	m, ok := w.server.methods[method]
	if !ok {
		return status.Errorf(codes.Unimplemented, "%s is no method that can be called from within", method)
	}
	text, err := proto.Marshal(args.(proto.Message))
	if err != nil {
		return toStatus(invalid("request", "%v", err))
	}
	decode := func(request any) error { return proto.Unmarshal(text, request.(proto.Message)) }
	actor, _ := access.From(ctx)
	ctx, leave, err := w.server.inner.enter(ctx, actor.Name)
	if err != nil {
		return toStatus(err)
	}
	defer leave()
	answer, err := m.handler(m.service, ctx, decode, w.intercept)
	if err != nil {
		return err
	}
	proto.Merge(reply.(proto.Message), answer.(proto.Message))
	return nil
}

// intercept does for these calls as unary for those over gRPC.
func (w Within) intercept(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	actor, _ := access.From(ctx)
	ctx = peer.NewContext(ctx, &peer.Peer{Addr: sourceAddr(actor.Source)})
	if err := access.Authorize(actor, info.FullMethod, req); err != nil {
		refused := &refusedError{err: err, advice: "sign in with a token that has that role in grpc.roles"}
		return nil, w.server.refuseCall(ctx, info.FullMethod, actor, refused)
	}
	return w.server.carryOut(ctx, actor, info.FullMethod, req, handler)
}

// NewStream implements grpc.ClientConnInterface: there are no streams from within.
func (w Within) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, status.Error(codes.Unimplemented, "streams cannot be called from within")
}

// sourceAddr is the source of an actor, as the address of a peer.
type sourceAddr string

// Network implements net.Addr.
func (sourceAddr) Network() string { return "console" }

// String implements net.Addr.
func (a sourceAddr) String() string { return string(a) }

var _ net.Addr = sourceAddr("")
