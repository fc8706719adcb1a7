package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	systemd "github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sync/errgroup"

	"github.com/sessiond/sessiond/internal/clock"
	"github.com/sessiond/sessiond/internal/config"
	"github.com/sessiond/sessiond/internal/console"
	"github.com/sessiond/sessiond/internal/control"
	"github.com/sessiond/sessiond/internal/doctor"
	"github.com/sessiond/sessiond/internal/doctor/facts"
	"github.com/sessiond/sessiond/internal/fdstore"
	"github.com/sessiond/sessiond/internal/keyfiles"
	"github.com/sessiond/sessiond/internal/metrics"
	"github.com/sessiond/sessiond/internal/nftnat"
	"github.com/sessiond/sessiond/internal/nftnat/memnat"
	"github.com/sessiond/sessiond/internal/ownership"
	"github.com/sessiond/sessiond/internal/radiusacct"
	"github.com/sessiond/sessiond/internal/session"
	"github.com/sessiond/sessiond/internal/subscriberdb"
)

// Bounds of a stop, which ends before the ten seconds are over that container engines allow.
const (
	// stopWithin bounds the wait for requests, and then for other work, in progress.
	stopWithin = 6 * time.Second
	// flushWithin bounds the wait for other work.
	flushWithin = 3 * time.Second
)

// backend is the NAT: nftables, or its in-memory twin.
type backend interface {
	session.Kernel
	io.Closer
	Run(ctx context.Context) error
	IndexStats() nftnat.IndexStats
	Barrier() bool
	Fill() nftnat.Fill
	Strays() nftnat.Strays
	Flowtables() nftnat.Flowtables
	MappingFill() nftnat.MappingFill
}

// daemon holds the parts of a running sessiond.
type daemon struct {
	log     *slog.Logger
	config  config.Config
	db      *subscriberdb.DB
	nat     backend
	manager *session.Manager
	radius  *radiusacct.Server
	control *control.Server
	web     *web
	console *console.Console // nil for none
	exports *exports         // nil for none
	history *pastNAT         // nil for none
	pcp     *pcpService
	metrics *metrics.Metrics
	closers []io.Closer
	discard bool // end the subscribers of groups, prefixes and blocks that are not configured

	startNAT func(context.Context) error // programs the kernel
	database []io.Closer                 // connections to the database
	closing  sync.Once                   // of these
	claim    *ownership.Claimant
}

// newDaemon opens everything whose failure the operator must correct: sockets,
// certificates, the kernel. Redis may be away. The barrier is raised before any
// wait. The rest of the kernel is programmed last, when nothing else can refuse
// the start.
func newDaemon(ctx context.Context, c config.Config, discard bool, log *slog.Logger) (_ *daemon, err error) {
	d := &daemon{log: log, config: c, discard: discard, metrics: metrics.New(version)}
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	for _, open := range []func(context.Context) error{
		d.openDatabase, d.lockTable, d.claimGroups, d.openNAT, d.openManager, d.openHistory, d.openRADIUS, d.openControl, d.openWeb, d.openExports,
		d.openPCP, d.programNAT,
	} {
		if err := open(ctx); err != nil {
			return nil, err
		}
	}
	d.metrics.Watch(source{d.manager, d.nat, d.radius, d.db})
	d.metrics.Expect(d.expected(c.RADIUS.Clients))
	d.metrics.Reloaded(true, time.Now())
	return d, nil
}

func (d *daemon) openDatabase(context.Context) error {
	client, closers, err := dialRedis(d.config.Redis, len(d.config.Groups), d.log)
	d.database = closers
	if err != nil {
		return fmt.Errorf("redis: %w", err)
	}
	d.db, err = subscriberdb.New(databaseOptions(d.config, client, d.metrics, d.log))
	return err
}

// openNAT opens the NAT backend, without touching the kernel.
func (d *daemon) openNAT(context.Context) error {
	if d.config.NAT.Backend == backendMemory {
		d.log.Warn("nat.backend is memory: nothing is translated")
		o := natOptions(d.config, d.log)
		memory, err := memnat.New(o.InsidePrefixes, o.Timeouts)
		if err != nil {
			return fmt.Errorf("nat: %w", err)
		}
		d.nat, d.startNAT = memory, func(context.Context) error { return nil }
	} else {
		kernel, err := nftnat.DialKernel(natOptions(d.config, d.log))
		if err != nil {
			return fmt.Errorf("nat: %w", err)
		}
		d.nat, d.startNAT = kernel, kernel.Start
	}
	d.closers = append(d.closers, d.nat)
	return nil
}

func (d *daemon) programNAT(ctx context.Context) error {
	if err := d.startNAT(ctx); err != nil {
		return fmt.Errorf("nat: %w", err)
	}
	return nil
}

func (d *daemon) openManager(context.Context) (err error) {
	d.manager, err = session.New(session.Options{
		Store: d.db, Kernel: d.nat, Groups: lsnGroups(d.config.Groups), Node: d.config.Node,
		Owner: d.claim, By: servedBy(d.config), MaxMappings: d.config.NAT.MaxMappings, MaxSessions: d.config.NAT.MaxSessionsPerSubscriber, Discard: d.discard,
		Settings: firstSettings(d.config.Settings), Guards: guards(d.config.Groups), Observer: d.metrics, Logger: d.log,
	})
	if err == nil {
		d.db.SetPlaces(places(d.config.RADIUS.Clients), d.manager.OnlineOf)
	}
	return err
}

func (d *daemon) openRADIUS(context.Context) (err error) {
	listen := d.config.RADIUS.Listen
	kept := fdstore.Open(activation.Files(true), os.Getenv("NOTIFY_SOCKET"), listen, d.log)
	defer kept.Close()
	d.radius, err = radiusacct.New(radiusacct.Options{
		Listen: listen, ListenUDP: kept.ListenUDP, Clients: radiusClients(d.config),
		RadSec: radsecOptions(d.config.RADIUS.RadSec), IgnoreStatusServer: !d.config.RADIUS.StatusServer,
		Recorder: subscriberdb.Recorder{DB: d.db}, Healthy: d.manager.NotReady, Observer: d.metrics, Logger: d.log,
	})
	if err != nil {
		return fmt.Errorf("radius: %w", err)
	}
	d.closers = append(d.closers, d.radius)
	for _, a := range d.radius.Addrs() {
		d.logListening("radius", a.String())
	}
	for _, a := range d.radius.RadSecAddrs() {
		d.logListening("radsec", a.String())
	}
	return nil
}

func (d *daemon) openControl(context.Context) (err error) {
	g, served := d.config.GRPC, d.manager.Backend()
	options := control.Options{
		Listen: g.Listen, TLS: control.TLS(g.TLS), LocalRole: role(g.LocalRole), Grants: grants(g.Roles),
		Socket: g.Socket, SocketGroup: g.SocketGroup,
		Subscribers: served, Nat: served, Sessions: served,
		Controls: controls{Backend: served, nat: d.nat, log: d.log, started: time.Now()}, Removals: served, NASes: served, Mappings: served, Desk: d.manager.Desk(),
		Audits: d.manager.Audits(), Previews: served.Previews(), History: d.asked,
		Logger: d.log, Limits: grpcLimits(d.config.GRPC), Observer: d.metrics.Calls(),
	}
	if g.Socket == config.DefaultSocket {
		_ = os.Mkdir(filepath.Dir(g.Socket), 0o755) // it may exist, or be impossible
	}
	d.control, err = control.New(options)
	if errors.Is(err, control.ErrSocket) && g.Socket == config.DefaultSocket { // the address alone suffices, as in a container without a writable file system
		d.log.Warn("no unix socket beside gRPC's address; let sessiond write its folder, or set grpc.socket", "error", err)
		options.Socket = ""
		d.control, err = control.New(options)
	}
	if err != nil {
		return fmt.Errorf("grpc: %w", err)
	}
	for _, a := range d.control.Addrs() {
		d.logListening("grpc", a.String())
	}
	return nil
}

func (d *daemon) openWeb(context.Context) error {
	pages, err := d.openConsole()
	if err != nil {
		return err
	}
	var certificate *keyfiles.Certificate
	if files := d.config.HTTP.TLS; files.CertFile != "" {
		if certificate, err = keyfiles.OpenCertificate(files.CertFile, files.KeyFile); err != nil {
			return fmt.Errorf("http: load TLS certificate: %w", err)
		}
	}
	l, err := net.Listen("tcp", d.config.HTTP.Listen)
	if err != nil {
		return fmt.Errorf("http: %w", err)
	}
	d.web = newWeb(l, certificate, d.metrics.Handler(), pages, d.manager.NotReady, d.log)
	d.web.usable = func(usable bool) { d.metrics.Calls().FilesUsable("http_certificate", usable) }
	if certificate != nil {
		d.web.usable(true)
	}
	d.logListening("http", l.Addr().String())
	return nil
}

func (d *daemon) logListening(name, address string) {
	d.log.Info("listening", "service", name, "address", address)
}

func (d *daemon) close() {
	ctx, cancel := context.WithTimeout(context.Background(), leaveWithin)
	defer cancel()
	d.leave(ctx)
	d.closeDatabase()
	d.closeAll(d.closers)
}

// closeDatabase closes the connections to the database.
func (d *daemon) closeDatabase() { d.closing.Do(func() { d.closeAll(d.database) }) }

// closeAll closes in reverse order, so that the lock of the table is released
// after all that works on the table.
func (d *daemon) closeAll(closers []io.Closer) {
	for _, c := range slices.Backward(closers) {
		if err := c.Close(); err != nil {
			d.log.Warn("close", "error", err)
		}
	}
}

func (d *daemon) sweepRestarts(ctx context.Context) error {
	return d.db.SweepRestarts(ctx, d.manager.Followed)
}

// run serves until ctx ends. The front, which answers BNGs and the NOC, stops
// first; the back finishes the work that the front accepted; NAT stays in
// place.
func (d *daemon) run(ctx context.Context, reload func(context.Context) (config.Config, error)) error {
	defer d.close()
	background, stopBack := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBack()
	back, backCtx := errgroup.WithContext(background)
	tasks, err := d.auditTasks()
	if err != nil {
		return err
	}
	tasks = append(tasks, d.nat.Run, d.sweepRestarts, d.db.TrimFeeds, d.db.KeepKeyTypes, d.db.KeepNASes, d.manager.Run, d.web.run, newGCTuner(d.manager.Ready()).run)
	if d.exports != nil {
		tasks = append(tasks, d.exports.tasks()...)
	}
	if d.history != nil && d.history.keeper != nil {
		tasks = append(tasks, d.history.keeper.Run)
	}
	if logsNAT(&d.config) {
		tasks = append(tasks, d.leaveFormer)
	}
	if d.console != nil {
		tasks = append(tasks, d.console.Run)
	}
	for _, task := range tasks {
		back.Go(func() error { return uncanceled(task(backCtx)) })
	}
	front, frontCtx := errgroup.WithContext(ctx)
	front.Go(func() error { return d.control.Run(frontCtx) })
	front.Go(func() error { return d.answerWhenReady(frontCtx) })
	front.Go(func() error { return uncanceled(d.pcp.run(frontCtx, d.manager.Ready())) })
	front.Go(func() error { return d.tellReadiness(frontCtx) })
	front.Go(func() error { d.doubtDatabase(frontCtx); return nil })
	front.Go(func() error { return uncanceled(d.reloadOn(frontCtx, reload)) })
	front.Go(func() error { // a failed back ends the front
		select {
		case <-frontCtx.Done():
			return nil
		case <-backCtx.Done():
			return errors.New("a part failed")
		}
	})
	working, giveUp := context.WithCancel(background)
	back.Go(func() error { // a Redis that hangs must not delay the end
		defer giveUp()
		select {
		case <-frontCtx.Done():
		case <-background.Done():
		}
		if clock.Sleep(background, stopWithin) == nil {
			d.closeDatabase()
		}
		return nil
	})
	frontErr := front.Wait()
	_, _ = systemd.SdNotify(false, systemd.SdNotifyStopping)
	d.flush(working)
	stopBack()
	d.closeDatabase()
	return errors.Join(back.Wait(), frontErr)
}

// answerWhenReady answers accounting once all state is restored, because an
// acknowledgment promises that the engine handles the event.
func (d *daemon) answerWhenReady(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-d.manager.Ready():
	}
	d.log.Info("ready")
	_, _ = systemd.SdNotify(false, systemd.SdNotifyReady)
	return d.radius.Run(ctx)
}

// doubtDatabase logs once what is not as it should be in Redis, such as settings that endanger records.
func (d *daemon) doubtDatabase(ctx context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-d.manager.Ready():
	}
	if d.config.Redis.Embedded { // logged at the start already
		return
	}
	ctx, cancel := context.WithTimeout(ctx, flushWithin)
	defer cancel()
	servers, err := facts.Redis(ctx, d.config)
	if err != nil {
		d.log.Debug("settings of redis are not known", "error", err)
	}
	for _, doubt := range doctor.ExamineRedis(servers) {
		d.log.Warn("redis is not as it should be", "doubt", doubt.Found+": "+doubt.Why, "do", cmp.Or(doubt.Command, doubt.Note))
	}
}

// tellReadiness keeps gRPC health in step with readiness.
func (d *daemon) tellReadiness(ctx context.Context) error {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		d.control.SetReady(d.manager.NotReady() == nil)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// flush waits for work in progress, and writes delayed writes.
func (d *daemon) flush(working context.Context) {
	ctx, cancel := context.WithTimeout(working, flushWithin)
	defer cancel()
	if err := d.manager.Quiet(ctx); err != nil {
		d.log.Warn("stopped with work under way, the next start takes it up", "error", err)
	}
	ctx, cancel = context.WithTimeout(working, time.Second)
	defer cancel()
	if err := d.db.FlushNASes(ctx); err != nil {
		d.log.Warn("stopped without writing what was heard of NASes last, it is learned again", "error", err)
	}
	d.leave(ctx)
}

func uncanceled(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
