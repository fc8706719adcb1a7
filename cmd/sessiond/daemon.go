package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sync/errgroup"

	"github.com/sessiond/sessiond/internal/config"
	"github.com/sessiond/sessiond/internal/control"
	"github.com/sessiond/sessiond/internal/metrics"
	"github.com/sessiond/sessiond/internal/nftnat"
	"github.com/sessiond/sessiond/internal/ownership"
	"github.com/sessiond/sessiond/internal/radiusacct"
	"github.com/sessiond/sessiond/internal/session"
	"github.com/sessiond/sessiond/internal/subscriberdb"
)

// flushWithin bounds a stop's wait for work in progress.
const flushWithin = 3 * time.Second

// backend is the NAT: nftables, or its in-memory twin.
type backend interface {
	session.Kernel
	io.Closer
	Run(ctx context.Context) error
	IndexStats() nftnat.IndexStats
	Barrier() bool
	Fill() nftnat.Fill
	Strays() nftnat.Strays
}

// service holds the parts of a running sessiond.
type service struct {
	log     *slog.Logger
	config  config.Config
	db      *subscriberdb.DB
	nat     backend
	manager *session.Manager
	radius  *radiusacct.Server
	control *control.Server
	web     *web
	metrics *metrics.Metrics
	closers []io.Closer
	discard bool // end the subscribers of groups, prefixes and blocks that are not configured

	startNAT func(context.Context) error // programs the kernel
	database []io.Closer                 // connections to the database
	claim    *ownership.Claimant
}

// newDaemon opens everything whose failure the operator must correct: sockets,
// certificates, the kernel. Redis may be away. The barrier is raised before any
// wait. The rest of the kernel is programmed last, when nothing else can refuse
// the start.
func newDaemon(ctx context.Context, c config.Config, discard bool, log *slog.Logger) (_ *service, err error) {
	s := &service{log: log, config: c, discard: discard, metrics: metrics.New(version)}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	for _, open := range []func(context.Context) error{
		s.openDatabase, s.lockTable, s.claimGroups, s.openNAT, s.openManager, s.openRADIUS, s.openControl, s.openWeb, s.programNAT,
	} {
		if err := open(ctx); err != nil {
			return nil, err
		}
	}
	s.metrics.Watch(source{s.manager, s.nat, s.radius, s.db})
	s.metrics.Expect(s.expected(c.RADIUS.Clients))
	s.metrics.Reloaded(true, time.Now())
	return s, nil
}

func (s *service) openDatabase(context.Context) error {
	client, closers, err := dialRedis(s.config.Redis, len(s.config.Groups), s.log)
	s.database = closers
	if err != nil {
		return fmt.Errorf("redis: %w", err)
	}
	s.db, err = subscriberdb.New(databaseOptions(s.config, client, s.metrics, s.log))
	return err
}

// openNAT opens the NAT backend, without touching the kernel.
func (s *service) openNAT(context.Context) error {
	if s.config.NAT.Backend == backendMemory {
		s.log.Warn("nat.backend is memory: nothing is translated")
		memory, err := nftnat.NewMemory(natOptions(s.config, s.log))
		if err != nil {
			return fmt.Errorf("nat: %w", err)
		}
		s.nat, s.startNAT = memory, func(context.Context) error { return nil }
	} else {
		kernel, err := nftnat.DialKernel(natOptions(s.config, s.log))
		if err != nil {
			return fmt.Errorf("nat: %w", err)
		}
		s.nat, s.startNAT = kernel, kernel.Start
	}
	s.closers = append(s.closers, s.nat)
	return nil
}

func (s *service) programNAT(ctx context.Context) error {
	if err := s.startNAT(ctx); err != nil {
		return fmt.Errorf("nat: %w", err)
	}
	return nil
}

func (s *service) openManager(context.Context) (err error) {
	s.manager, err = session.New(session.Options{
		Store: s.db, Kernel: s.nat, Groups: lsnGroups(s.config.Groups), Node: s.config.Node,
		Owner: s.claim, By: servedBy(s.config), Discard: s.discard,
		Settings: firstSettings(s.config.Settings), Guards: guards(s.config.Groups), Observer: s.metrics, Logger: s.log,
	})
	if err == nil {
		s.db.SetPlaces(places(s.config.RADIUS.Clients), s.manager.OnlineOf)
	}
	return err
}

func (s *service) openRADIUS(context.Context) (err error) {
	s.radius, err = radiusacct.New(radiusacct.Options{
		Listen: s.config.RADIUS.Listen, Clients: radiusClients(s.config),
		RadSec: radsecOptions(s.config.RADIUS.RadSec), IgnoreStatusServer: !s.config.RADIUS.StatusServer,
		Recorder: subscriberdb.Recorder{DB: s.db}, Healthy: s.manager.NotReady, Observer: s.metrics, Logger: s.log,
	})
	if err != nil {
		return fmt.Errorf("radius: %w", err)
	}
	s.closers = append(s.closers, s.radius)
	for _, a := range s.radius.Addrs() {
		s.logListening("radius", a.String())
	}
	for _, a := range s.radius.RadSecAddrs() {
		s.logListening("radsec", a.String())
	}
	return nil
}

func (s *service) openControl(context.Context) (err error) {
	g, served := s.config.GRPC, s.manager.Backend()
	options := control.Options{
		Listen: g.Listen, TLS: control.TLS(g.TLS), LocalRole: control.LocalRole(g.LocalRole),
		Socket: g.Socket, SocketGroup: g.SocketGroup,
		Subscribers: served, Nat: served, Sessions: served,
		Controls: controls{Backend: served, nat: s.nat, log: s.log, started: time.Now()}, Removals: served, NASes: served,
		Logger: s.log, Limits: grpcLimits(s.config.GRPC), Observer: s.metrics.Calls(),
	}
	if g.Socket == config.DefaultSocket {
		_ = os.Mkdir(filepath.Dir(g.Socket), 0o755) // it may exist, or be impossible
	}
	s.control, err = control.New(options)
	if errors.Is(err, control.ErrSocket) && g.Socket == config.DefaultSocket { // the address alone suffices, as in a container without a writable file system
		s.log.Warn("no unix socket beside gRPC's address; let sessiond write its folder, or set grpc.socket", "error", err)
		options.Socket = ""
		s.control, err = control.New(options)
	}
	if err != nil {
		return fmt.Errorf("grpc: %w", err)
	}
	for _, a := range s.control.Addrs() {
		s.logListening("grpc", a.String())
	}
	return nil
}

func (s *service) openWeb(context.Context) error {
	l, err := net.Listen("tcp", s.config.HTTP.Listen)
	if err != nil {
		return fmt.Errorf("http: %w", err)
	}
	s.web = newWeb(l, s.metrics.Handler(), s.manager.NotReady, s.log)
	s.logListening("http", l.Addr().String())
	return nil
}

func (s *service) logListening(name, address string) {
	s.log.Info("listening", "service", name, "address", address)
}

func (s *service) close() {
	ctx, cancel := context.WithTimeout(context.Background(), leaveWithin)
	defer cancel()
	s.leave(ctx)
	s.closeDatabase()
	s.closeAll(s.closers)
}

// closeDatabase closes the connections to the database.
func (s *service) closeDatabase() {
	s.closeAll(s.database)
	s.database = nil
}

// closeAll closes in reverse order, so that the lock of the table is released
// after all that works on the table.
func (s *service) closeAll(closers []io.Closer) {
	for _, c := range slices.Backward(closers) {
		if err := c.Close(); err != nil {
			s.log.Warn("close", "error", err)
		}
	}
}

func (s *service) sweepRestarts(ctx context.Context) error {
	return s.db.SweepRestarts(ctx, s.manager.Followed)
}

// run serves until ctx ends. The front, which answers BNGs and the NOC, stops
// first; the back finishes the work that the front accepted; NAT stays in
// place.
func (s *service) run(ctx context.Context, reload func(context.Context) (config.Config, error)) error {
	defer s.close()
	background, stopBack := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBack()
	back, backCtx := errgroup.WithContext(background)
	for _, task := range []func(context.Context) error{s.nat.Run, s.sweepRestarts, s.db.TrimFeeds, s.db.KeepKeyTypes, s.db.KeepNASes, s.manager.Run, s.web.run, newGCTuner(s.manager.Ready()).run} {
		back.Go(func() error { return uncanceled(task(backCtx)) })
	}
	front, frontCtx := errgroup.WithContext(ctx)
	front.Go(func() error { return s.control.Run(frontCtx) })
	front.Go(func() error { return s.answerWhenReady(frontCtx) })
	front.Go(func() error { return s.tellReadiness(frontCtx) })
	front.Go(func() error { s.doubtDatabase(frontCtx); return nil })
	front.Go(func() error { return uncanceled(s.reloadOn(frontCtx, reload)) })
	front.Go(func() error { // a failed back ends the front
		select {
		case <-frontCtx.Done():
			return nil
		case <-backCtx.Done():
			return errors.New("a part failed")
		}
	})
	frontErr := front.Wait()
	_, _ = daemon.SdNotify(false, daemon.SdNotifyStopping)
	s.flush()
	stopBack()
	s.closeDatabase() // a Redis that hangs must not delay the end
	return errors.Join(back.Wait(), frontErr)
}

// answerWhenReady answers accounting once all state is restored, because an
// acknowledgment promises that the engine handles the event.
func (s *service) answerWhenReady(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-s.manager.Ready():
	}
	s.log.Info("ready")
	_, _ = daemon.SdNotify(false, daemon.SdNotifyReady)
	return s.radius.Run(ctx)
}

// doubtDatabase logs once the settings of Redis that endanger records.
func (s *service) doubtDatabase(ctx context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-s.manager.Ready():
	}
	if s.config.Redis.Embedded { // logged at the start already
		return
	}
	ctx, cancel := context.WithTimeout(ctx, flushWithin)
	defer cancel()
	doubts, err := s.db.Doubts(ctx)
	if err != nil {
		s.log.Debug("settings of redis are not known", "error", err)
	}
	for _, doubt := range doubts {
		s.log.Warn("redis does not keep records safe", "doubt", doubt)
	}
}

// tellReadiness keeps gRPC health in step with readiness.
func (s *service) tellReadiness(ctx context.Context) error {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		s.control.SetReady(s.manager.NotReady() == nil)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// flush waits for work in progress, and writes delayed writes.
func (s *service) flush() {
	ctx, cancel := context.WithTimeout(context.Background(), flushWithin)
	defer cancel()
	if err := s.manager.Quiet(ctx); err != nil {
		s.log.Warn("stopped with work under way, the next start takes it up", "error", err)
	}
	ctx, cancel = context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := s.db.FlushNASes(ctx); err != nil {
		s.log.Warn("stopped without writing what was heard of NASes last, it is learned again", "error", err)
	}
	s.leave(ctx)
}

func uncanceled(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
