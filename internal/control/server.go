package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
	"github.com/sessiond/sessiond/internal/access"
	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/throttle"
)

// graceOnStop bounds the time of calls in progress when the server stops.
const graceOnStop = 5 * time.Second

// rememberWithin bounds the wait for the outcome of a request to be remembered.
const rememberWithin = 2 * time.Second

// keepaliveMinimum is the least time between the pings of a client, which ask whether the daemon
// is still there: a watch can be silent for hours.
const keepaliveMinimum = 10 * time.Second

// Bounds of one connection. Requests are small; gRPC's own bounds are 4 MiB for
// one and 16 MiB for its headers.
const (
	idleConnection     = 15 * time.Minute // without a call; clients reconnect by themselves
	handshakeTimeout   = 10 * time.Second
	callsPerConnection = 32        // at once, beyond the streams: so that a refused one gets its reason
	maxRequest         = 256 << 10 // octets
	maxHeaders         = 16 << 10  // octets
	readBuffer         = 4 << 10   // octets, of each connection
)

// Options configure a Server.
type Options struct {
	Listen   string       // "host:port" or "unix:PATH"; required unless Listener is set
	Listener net.Listener // used instead of Listen; closed by the server
	TLS      TLS          // optional

	// Socket is the path of a unix socket beside Listen, without TLS. Optional.
	Socket string
	// SocketGroup is the group, by name or number, that may open unix sockets; the
	// default is the daemon's own.
	SocketGroup string
	// LocalRole is the role of callers over loopback without a certificate, where
	// any user of the machine can call. Optional; none.
	LocalRole access.Role
	// Grants give roles to others, beside root and the daemon's user at the unix
	// sockets. Optional; without them whoever can open a unix socket, shows a
	// certificate, or reaches a listener off loopback may do everything.
	Grants []Grant

	Limits   Limits   // optional
	Observer Observer // optional

	Subscribers Subscribers // required
	Nat         Nat         // required
	Sessions    Sessions    // required
	Controls    Controls    // required
	Removals    Removals    // required
	NASes       NASes       // required
	Mappings    Mappings    // required
	Desk        Desk        // required
	Audits      Audits      // required
	Previews    Previews    // required

	// History returns the history of the NAT; inspect.ErrNoHistory, inspect.ErrHistoryDown.
	History func() (History, error) // optional; none

	Logger *slog.Logger     // required
	Now    func() time.Time // optional; time.Now
}

func (o *Options) check() error {
	switch {
	case o.Listen == "" && o.Listener == nil:
		return errors.New("control: Listen is required")
	case o.Subscribers == nil:
		return errors.New("control: Subscribers is required")
	case o.Nat == nil:
		return errors.New("control: Nat is required")
	case o.Sessions == nil:
		return errors.New("control: Sessions is required")
	case o.Controls == nil:
		return errors.New("control: Controls is required")
	case o.Removals == nil:
		return errors.New("control: Removals is required")
	case o.NASes == nil:
		return errors.New("control: NASes is required")
	case o.Mappings == nil:
		return errors.New("control: Mappings is required")
	case o.Desk == nil:
		return errors.New("control: Desk is required")
	case o.Audits == nil:
		return errors.New("control: Audits is required")
	case o.Previews == nil:
		return errors.New("control: Previews is required")
	case o.Logger == nil:
		return errors.New("control: Logger is required")
	}
	return o.Limits.check()
}

// ErrSocket is the error of New if it cannot open Socket.
var ErrSocket = errors.New("listen on the unix socket")

// Server serves the gRPC API.
type Server struct {
	doors    []*door
	limits   Limits
	grpc     *grpc.Server
	health   *health.Server
	logger   *slog.Logger
	observer Observer
	now      func() time.Time
	tls      *tlsFiles // nil without TLS
	local    access.Role
	socket   string // path of the unix socket beside Listen
	rights   atomic.Pointer[callerRights]
	open     openStreams
	failures throttle.Throttle // log lines about changes that failed
	denials  throttle.Throttle // log lines about calls that were refused for a role
	refusals throttle.Throttle // log lines about streams that were refused
	handlers sync.WaitGroup    // of streams
	stopping context.Context   // ends the streams
	stop     context.CancelFunc
	orders   *changeOrders
	inner    *innerCalls
	methods  map[string]servedMethod // those that are no streams, by full name
}

// New opens the listeners, so that Addr is known; Run serves them. Health is
// NOT_SERVING until SetReady.
func New(o Options) (*Server, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	files, err := o.TLS.open()
	if err != nil {
		return nil, fmt.Errorf("control: %w", err)
	}
	rights, err := newRights(o.LocalRole, o.Grants)
	if err != nil {
		return nil, fmt.Errorf("control: %w", err)
	}
	s := &Server{
		health: health.NewServer(), logger: o.Logger, observer: o.Observer, now: o.Now, limits: o.Limits.withDefaults(),
		tls: files, local: o.LocalRole, socket: o.Socket, inner: newInnerCalls(), methods: map[string]servedMethod{},
	}
	s.rights.Store(rights)
	s.orders = &changeOrders{audits: o.Audits, logger: o.Logger, running: map[requestName]chan struct{}{}}
	if s.now == nil {
		s.now = time.Now
	}
	if s.observer == nil {
		s.observer = unobserved{}
	}
	for _, kind := range []string{certificateFiles, caFiles, tokenFiles} { // an alarm rests on them
		s.observer.FilesUsable(kind, true)
	}
	s.stopping, s.stop = context.WithCancel(context.Background())
	s.grpc = grpc.NewServer(
		grpc.Creds(files.credentials()),
		grpc.UnaryInterceptor(s.unary),
		grpc.StreamInterceptor(s.stream),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			Time: s.limits.SilenceTimeout, Timeout: s.limits.SilenceTimeout / 3, MaxConnectionIdle: idleConnection,
		}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepaliveMinimum, PermitWithoutStream: true}),
		grpc.WaitForHandlers(true),
		grpc.ForceServerCodecV2(newCodec()),
		grpc.ConnectionTimeout(handshakeTimeout),
		grpc.MaxConcurrentStreams(uint32(s.limits.StreamsPerPeer)+callsPerConnection),
		grpc.MaxRecvMsgSize(maxRequest),
		grpc.MaxHeaderListSize(maxHeaders),
		grpc.ReadBufferSize(readBuffer),
	)
	s.register(&o)
	if err := checkRoles(s.grpc.GetServiceInfo()); err != nil {
		return nil, err
	}
	s.SetReady(false)
	if err := s.openDoors(&o); err != nil {
		return nil, err
	}
	return s, nil
}

// openDoors opens Listen, or uses Listener in its place, and opens Socket.
func (s *Server) openDoors(o *Options) (err error) {
	l := o.Listener
	if l == nil {
		if l, err = listen(o.Listen, o.SocketGroup); err != nil {
			return fmt.Errorf("control: listen on %s: %w", o.Listen, err)
		}
	}
	s.doors = append(s.doors, s.newDoor(l, o.TLS != (TLS{}), o))
	if o.Socket == "" {
		return nil
	}
	beside, err := listen(unixPrefix+o.Socket, o.SocketGroup)
	if err != nil {
		return errors.Join(fmt.Errorf("control: %w: %w", ErrSocket, err), l.Close())
	}
	s.doors = append(s.doors, s.newDoor(beside, false, o))
	return nil
}

func (s *Server) register(o *Options) {
	services := serviceRegistrar{s.grpc, s.methods}
	pb.RegisterSubscriberServiceServer(services, &subscriberService{backend: o.Subscribers, previews: o.Previews, now: s.now})
	past := o.History
	if past == nil {
		past = func() (History, error) { return nil, inspect.ErrNoHistory }
	}
	pb.RegisterNatServiceServer(services, &natService{backend: o.Nat, mappings: o.Mappings, previews: o.Previews, past: past, now: s.now})
	pb.RegisterHistoryServiceServer(services, &historyService{past: past, audits: o.Audits, now: s.now})
	pb.RegisterSessionServiceServer(services, &sessionService{backend: o.Sessions})
	pb.RegisterControlServiceServer(services, &controlService{backend: o.Controls, previews: o.Previews})
	pb.RegisterRemovalServiceServer(services, &removalService{backend: o.Removals, previews: o.Previews})
	pb.RegisterNasServiceServer(services, &nasService{backend: o.NASes})
	pb.RegisterMappingServiceServer(services, &mappingService{backend: o.Mappings, previews: o.Previews})
	pb.RegisterAuditServiceServer(services, &auditService{backend: o.Audits})
	pb.RegisterDeskServiceServer(services, &deskService{backend: o.Desk, now: s.now})
	healthpb.RegisterHealthServer(services, s.health)
	reflection.Register(services)
}

// Addr is the address of Listen.
func (s *Server) Addr() net.Addr { return s.doors[0].Addr() }

// Addrs returns all listening addresses, that of Listen first.
func (s *Server) Addrs() []net.Addr {
	var all []net.Addr
	for _, d := range s.doors {
		all = append(all, d.Addr())
	}
	return all
}

// SetReady sets the state of the health service, for the server ("") and for
// each service of sessiond.v1.
func (s *Server) SetReady(ready bool) {
	state := healthpb.HealthCheckResponse_NOT_SERVING
	if ready {
		state = healthpb.HealthCheckResponse_SERVING
	}
	for _, service := range []string{
		"",
		pb.SubscriberService_ServiceDesc.ServiceName,
		pb.NatService_ServiceDesc.ServiceName,
		pb.SessionService_ServiceDesc.ServiceName,
		pb.ControlService_ServiceDesc.ServiceName,
		pb.RemovalService_ServiceDesc.ServiceName,
		pb.NasService_ServiceDesc.ServiceName,
		pb.MappingService_ServiceDesc.ServiceName,
		pb.DeskService_ServiceDesc.ServiceName,
		pb.AuditService_ServiceDesc.ServiceName,
		pb.HistoryService_ServiceDesc.ServiceName,
	} {
		s.health.SetServingStatus(service, state)
	}
}

// Run serves until ctx ends, then lets calls in progress finish for a few
// seconds, those from within too. Watchers get an error that the daemon stops.
func (s *Server) Run(ctx context.Context) error {
	defer s.stop()
	defer s.inner.calls.Wait()
	defer s.inner.end()
	defer s.inner.stop()
	ctx, cancel := context.WithCancel(ctx)
	var beside sync.WaitGroup
	beside.Go(func() { s.watchFiles(ctx) })
	defer beside.Wait()
	defer cancel()
	served := make(chan error, len(s.doors))
	for _, d := range s.doors {
		go func() { served <- s.grpc.Serve(d) }()
	}
	select {
	case err := <-served:
		s.grpc.Stop()
		return fmt.Errorf("control: serve: %w", err)
	case <-ctx.Done():
	}
	s.health.Shutdown()
	s.stop()
	s.inner.stop()
	force := time.AfterFunc(graceOnStop, func() {
		s.inner.end()
		s.grpc.Stop()
	})
	defer force.Stop()
	s.grpc.GracefulStop()
	s.inner.calls.Wait()
	for range s.doors {
		<-served
	}
	s.handlers.Wait()
	return nil
}
