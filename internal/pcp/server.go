package pcp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/sessiond/sessiond/internal/clock"
	"github.com/sessiond/sessiond/internal/netns"
	"github.com/sessiond/sessiond/internal/pcp/wire"
	"github.com/sessiond/sessiond/internal/throttle"
)

// Options configures a Server.
type Options struct {
	Mappings Mappings // required
	// NetNS is the network namespace of the NAT, as netns.Open names it.
	NetNS string
	// InsideInterfaces lead to the subscribers: names, or beginnings of names and "*". Required.
	// The server answers at their addresses.
	InsideInterfaces []string
	// OutsideInterfaces lead to others: what comes from there gets no answer.
	OutsideInterfaces []string
	Listen            []netip.Addr // further addresses of the machine to answer at
	Anycast           bool         // answer at 192.0.0.9 (RFC 7723), by a local route while the server is open
	Observer          Observer     // required
	Logger            *slog.Logger // required
}

func (o *Options) validate() error {
	switch {
	case o.Mappings == nil:
		return errors.New("pcp: Options.Mappings is missing")
	case len(o.InsideInterfaces) == 0:
		return errors.New("pcp: Options.InsideInterfaces is empty")
	case o.Observer == nil, o.Logger == nil:
		return errors.New("pcp: Options.Observer or Options.Logger is missing")
	}
	return nil
}

// Workers and queues: a mapping waits for Redis and the kernel, so many wait at once.
const (
	workers     = 64
	queueLength = 64 // requests that wait for one worker
	// receiveLength exceeds the longest request, so that a longer one is seen.
	receiveLength = 2048
	receiveBuffer = 4 << 20 // octets, of the socket
	// announceRate bounds announcements, a second.
	announceRate = 5000
	grace        = 2 * time.Second // for requests in progress, when the server ends
	forgetEvery  = 10 * time.Minute
)

// A Server answers requests of PCP and NAT-PMP at UDP port 5351.
type Server struct {
	options   Options
	socket    *net.UDPConn
	place     *place
	responder *Responder
	announcer *announcer
	queues    []chan job
	began     time.Time // by both clocks
	unsent    throttle.Throttle
	unread    throttle.Throttle
}

// A job is a datagram for a worker.
type job struct {
	Datagram
	now Moment
}

// New binds the socket. Requests wait in the kernel until Run.
func New(o Options) (_ *Server, err error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	ns, err := netns.Open(o.NetNS)
	if err != nil {
		return nil, fmt.Errorf("pcp: %w", err)
	}
	defer ns.Close()
	s := &Server{
		options: o, responder: NewResponder(o.Mappings, o.Observer, o.Logger), announcer: newAnnouncer(), began: time.Now(),
	}
	for range workers {
		s.queues = append(s.queues, make(chan job, queueLength))
	}
	if s.place, err = openPlace(ns, &o); err != nil {
		return nil, fmt.Errorf("pcp: %w", err)
	}
	if err := s.place.setAnycast(o.Anycast); err != nil {
		s.place.close()
		return nil, fmt.Errorf("pcp: %w", err)
	}
	if err := ns.Do(s.listen); err != nil {
		return nil, errors.Join(fmt.Errorf("pcp: listen on UDP port %d: %w", wire.ServerPort, err), s.Close())
	}
	return s, nil
}

// listen opens a socket of all addresses: those of interfaces come and go. It tells by which
// interface a datagram came, and where it was sent.
func (s *Server) listen() (err error) {
	if s.socket, err = net.ListenUDP("udp4", &net.UDPAddr{Port: wire.ServerPort}); err != nil {
		return err
	}
	_ = s.socket.SetReadBuffer(receiveBuffer) // as much as net.core.rmem_max grants
	return ipv4.NewPacketConn(s.socket).SetControlMessage(ipv4.FlagDst|ipv4.FlagInterface, true)
}

// Close closes a server that is not running, and removes the anycast route. Closing twice is no
// error.
func (s *Server) Close() error {
	var errs []error
	if s.options.Anycast {
		errs = append(errs, s.place.setAnycast(false))
		s.options.Anycast = false
	}
	if s.socket != nil {
		if err := s.socket.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	s.place.close()
	return errors.Join(errs...)
}

// now returns the present by both clocks.
func (s *Server) now() Moment {
	now := time.Now()
	return Moment{Wall: now.Round(0), Uptime: now.Sub(s.began)}
}

// MappingsLost tells a client that its mappings are lost (RFC 6887 section 14.1). Client of
// Mappings must tell the new epoch already.
func (s *Server) MappingsLost(inside netip.Addr) { s.announcer.add(inside, s.now().Uptime) }

// Run serves until ctx ends, finishes the requests in progress, closes the server and returns nil.
// It returns an error when the socket fails. Run can be called once.
func (s *Server) Run(ctx context.Context) error {
	defer s.Close()
	working, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var busy sync.WaitGroup
	for _, q := range s.queues {
		busy.Go(func() { s.work(working, q) })
	}
	tasks, taskCtx := errgroup.WithContext(ctx)
	tasks.Go(func() error {
		err := s.receive()
		if ctx.Err() != nil {
			return nil
		}
		return err
	})
	tasks.Go(func() error { return s.announce(taskCtx) })
	tasks.Go(func() error { return s.forgetIdle(taskCtx) })
	tasks.Go(func() error {
		<-taskCtx.Done()
		return s.socket.SetReadDeadline(time.Unix(1, 0)) // ends receive; answers can still be sent
	})
	err := tasks.Wait()
	for _, q := range s.queues {
		close(q)
	}
	defer time.AfterFunc(grace, stop).Stop()
	busy.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// receive reads datagrams, and gives each to the worker of its source: so the requests of a client
// keep their order.
func (s *Server) receive() error {
	buffer, control := make([]byte, receiveLength), make([]byte, 128)
	seed := maphash.MakeSeed()
	for {
		n, oob, _, source, err := s.socket.ReadMsgUDPAddrPort(buffer, control)
		if err != nil {
			return fmt.Errorf("pcp: receive: %w", err)
		}
		j := job{Datagram{Octets: buffer[:n], Source: source}, s.now()}
		if !s.admit(&j, control[:oob]) {
			s.options.Observer.Request(opcodeName(j.Octets), OutcomeStranger)
			continue
		}
		j.Octets = bytes.Clone(j.Octets)
		select {
		case s.queues[maphash.Comparable(seed, source.Addr())%workers] <- j:
		default:
			s.options.Observer.Request(opcodeName(j.Octets), OutcomeOverload)
		}
	}
}

// admit reports whether a datagram was sent to one of the server's addresses, and not by an
// outside interface.
func (s *Server) admit(j *job, control []byte) bool {
	var cm ipv4.ControlMessage
	if cm.Parse(control) != nil {
		return false
	}
	local, ok := netip.AddrFromSlice(cm.Dst.To4())
	if !ok {
		return false
	}
	side, ours, err := s.place.side(cm.IfIndex, local, j.now.Uptime)
	if err != nil {
		s.warn(&s.unread, "the interfaces of the PCP server cannot be read", err)
	}
	j.Local, j.Inside = local, side == insideLink
	return ours && side != outsideLink
}

func (s *Server) warn(t *throttle.Throttle, text string, err error) {
	if suppressed, ok := t.Allow(time.Now()); ok {
		s.options.Logger.Warn(text, "error", err, "suppressed", suppressed)
	}
}

// work answers the datagrams of a queue.
func (s *Server) work(ctx context.Context, q <-chan job) {
	for j := range q {
		if answer := s.responder.Answer(ctx, &j.Datagram, j.now); answer != nil {
			s.send(message{answer, j.Source, j.Local})
		}
	}
}

func (s *Server) send(m message) {
	var control []byte
	if m.local.IsValid() {
		control = (&ipv4.ControlMessage{Src: m.local.AsSlice()}).Marshal()
	}
	if _, _, err := s.socket.WriteMsgUDPAddrPort(m.octets, control, m.to); err != nil {
		s.warn(&s.unsent, "an answer of the PCP server could not be sent", err)
	}
}

// announce sends announcements as they become due.
func (s *Server) announce(ctx context.Context) error {
	pace := rate.NewLimiter(announceRate, 100)
	for {
		n, wait, ok := s.announcer.next(s.now().Uptime)
		if !ok {
			if _, err := clock.SleepOr(ctx, wait, s.announcer.wake); err != nil {
				return err
			}
			continue
		}
		m, kind, ok := s.responder.messageOf(n, s.now())
		if !ok {
			s.announcer.end(n)
			continue
		}
		if err := pace.Wait(ctx); err != nil {
			return err
		}
		s.options.Observer.Announced(kind)
		s.send(m)
	}
}

// forgetIdle forgets clients that have not asked for long.
func (s *Server) forgetIdle(ctx context.Context) error {
	for clock.Sleep(ctx, forgetEvery) == nil {
		s.responder.forget(s.now())
	}
	return ctx.Err()
}
