package radiusacct

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/sessiond/sessiond/internal/radiusacct/radsec"
	"github.com/sessiond/sessiond/internal/throttle"
)

// sweepInterval is the time between removals of expired replies of silent clients.
const sweepInterval = 5 * time.Second

// A Server receives, records and answers accounting requests.
type Server struct {
	options  Options
	sockets  []*socket
	radsec   *radsec.Server // nil without
	queues   []*queue
	seed     maphash.Seed // of the choice of a queue
	fairness fairness

	reload  sync.Mutex // held by SetClients
	clients atomic.Pointer[clientTable]

	losses losses

	strangers throttle.Throttle // log lines about unknown clients
	failures  throttle.Throttle // log lines about refused records
	sendFails throttle.Throttle // log lines about replies that could not be sent
	accepts   throttle.Throttle // log lines about connections that could not be accepted
	refusals  throttle.Throttle // log lines about connections refused
}

// New binds the sockets and checks the clients. Requests wait in the kernel
// until Run. The error names the option at fault.
func New(options Options) (*Server, error) {
	if err := options.validate(); err != nil {
		return nil, fmt.Errorf("radiusacct: %w", err)
	}
	options.setDefaults()
	s := &Server{options: options, seed: maphash.MakeSeed()}
	for range options.Workers {
		s.queues = append(s.queues, newQueue(options.QueueLength))
	}
	if err := s.SetClients(options.Clients); err != nil {
		return nil, err
	}
	for i, listen := range options.Listen {
		sock, err := openSocket(&s.options, listen, i)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("radiusacct: listen on %q: %w", listen, err), s.Close())
		}
		s.sockets = append(s.sockets, sock)
	}
	if options.RadSec != nil {
		var err error
		if s.radsec, err = radsec.Open(connections{s}, *options.RadSec, listenTCP); err != nil {
			return nil, errors.Join(fmt.Errorf("radiusacct: radsec: %w", err), s.Close())
		}
	}
	return s, nil
}

// Addrs returns the bound addresses in the order of Options.Listen.
func (s *Server) Addrs() []netip.AddrPort {
	var addrs []netip.AddrPort
	for _, sock := range s.sockets {
		addrs = append(addrs, netip.MustParseAddrPort(sock.LocalAddr().String()))
	}
	return addrs
}

// RadSecAddrs returns the bound addresses in the order of Options.RadSec.Listen.
func (s *Server) RadSecAddrs() []netip.AddrPort {
	if s.radsec == nil {
		return nil
	}
	return s.radsec.Addrs()
}

// SetClients replaces the clients. The state of a client whose name stays, such as replies
// to its latest requests, is kept, and requests in progress are answered under the secret
// that authenticated them. Connections end whose certificates have no client any more. On
// error nothing changes.
func (s *Server) SetClients(clients []Client) error {
	s.reload.Lock()
	defer s.reload.Unlock()
	old := s.clients.Load()
	table, err := newClientTable(clients, func(name string) *clientState {
		if old != nil && old.peers[name] != nil {
			return old.peers[name]
		}
		perSecond := s.options.StatusRate
		return &clientState{
			name: name, duplicates: newReplyCache(s.options.CacheBytes, s.now()),
			statuses: rate.NewLimiter(rate.Limit(perSecond), perSecond),
		}
	}, func(name string) *realm {
		if old != nil && old.realms[name] != nil {
			return old.realms[name]
		}
		return newRealm(name, len(s.queues))
	})
	if err != nil {
		return fmt.Errorf("radiusacct: %w", err)
	}
	s.clients.Store(table)
	if s.radsec != nil {
		s.radsec.Revoke()
	}
	return nil
}

// Run serves until ctx ends, then stops reading, finishes the requests in progress within
// the grace period, closes the sockets and returns nil. It returns an error when a socket
// fails. Run can be called once.
func (s *Server) Run(ctx context.Context) error {
	defer s.Close()
	recording, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()

	var workers sync.WaitGroup
	for _, q := range s.queues {
		workers.Go(func() { newWorker(s, q).runCalm(recording) })
		workers.Go(func() { newWorker(s, q).runStorms(recording) })
	}
	err := s.receive(ctx)
	for _, q := range s.queues {
		q.close()
	}
	until := time.Now().Add(s.options.Grace)
	grace := time.AfterFunc(s.options.Grace, stop)
	defer grace.Stop()
	workers.Wait()
	if s.radsec != nil {
		s.radsec.Drain(max(time.Until(until), s.options.Grace/5)) // the answers of the last requests are on their way
	}
	return err
}

// receive reads all sockets and connections until ctx ends or a socket fails.
func (s *Server) receive(ctx context.Context) error {
	readers, ctx := errgroup.WithContext(ctx)
	for _, sock := range s.sockets {
		readers.Go(func() error {
			err := newReceiver(s, sock).run()
			if ctx.Err() != nil {
				return nil
			}
			return err
		})
	}
	if s.radsec != nil {
		readers.Go(func() error { s.radsec.Run(ctx); return nil })
	}
	readers.Go(func() error {
		s.sweep(ctx)
		return s.interrupt()
	})
	return readers.Wait()
}

// sweep removes expired replies of silent clients until ctx ends.
func (s *Server) sweep(ctx context.Context) {
	ticker := time.NewTicker(sweepInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			for _, p := range s.clients.Load().peers {
				p.duplicates.expire(s.now())
			}
		}
	}
}

// interrupt ends all reading, while replies can still be written.
func (s *Server) interrupt() error {
	var errs []error
	for _, sock := range s.sockets {
		errs = append(errs, sock.SetReadDeadline(time.Unix(1, 0)))
	}
	for _, q := range s.queues {
		q.unblockPutters()
	}
	if s.radsec != nil {
		errs = append(errs, s.radsec.Interrupt())
	}
	return errors.Join(errs...)
}

// Close closes the sockets of a server that is not running. Closing twice is no error.
func (s *Server) Close() error {
	var errs []error
	for _, sock := range s.sockets {
		if err := sock.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	if s.radsec != nil {
		errs = append(errs, s.radsec.Close())
	}
	return errors.Join(errs...)
}

func (s *Server) now() time.Time { return s.options.Now() }
