package rig

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/sessiond/sessiond/internal/netlab"
)

// Secret is the shared secret of the rig's BNG.
const Secret = "testing123"

// Options say what a rig is made of.
type Options struct {
	Sessiond   string // required: path of the sessiond program
	Sessionctl string // required: path of the sessionctl program
	Lab        netlab.Options
	BlockSize  int           // default 512
	PortRange  string        // default "1024-65535"
	Hold       time.Duration // default 2 s
	RecordTTL  time.Duration // default 45 min
	UDPTimeout time.Duration // default 300 s
	RemovalOff bool          // start with the removal toggle off
	RedisArgs  []string      // more arguments for redis-server
}

// A Rig is a running sessiond with all that is around it. Its parts can be
// killed and started again.
type Rig struct {
	Lab    *netlab.Lab
	Redis  *Redis
	Daemon *Daemon
	Dir    string // configuration, sockets, data

	options Options
}

// Start brings up a lab, a Redis and a sessiond that is ready. The caller must
// Close the rig.
func Start(ctx context.Context, o Options) (_ *Rig, err error) {
	r := &Rig{options: o.withDefaults()}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.Close())
		}
	}()
	if r.Dir, err = os.MkdirTemp("", "sessiond-rig-"); err != nil {
		return nil, err
	}
	if r.Lab, err = netlab.New(o.Lab); err != nil {
		return nil, err
	}
	r.Redis = newRedis(filepath.Join(r.Dir, "redis"), o.RedisArgs)
	if err := r.Redis.Start(ctx); err != nil {
		return nil, err
	}
	config := filepath.Join(r.Dir, "sessiond.yaml")
	if err := os.WriteFile(config, r.config(), 0o600); err != nil {
		return nil, err
	}
	r.Daemon = newDaemon(r.options, config, r.grpcAddr())
	return r, r.Daemon.Start(ctx)
}

// Close ends everything and leaves nothing behind.
func (r *Rig) Close() error {
	var errs []error
	if r.Daemon != nil {
		errs = append(errs, r.Daemon.Kill())
	}
	if r.Redis != nil {
		errs = append(errs, r.Redis.Kill())
	}
	if r.Lab != nil {
		errs = append(errs, r.Lab.Close())
	}
	if r.Dir != "" {
		errs = append(errs, os.RemoveAll(r.Dir))
	}
	return errors.Join(errs...)
}

func (o Options) withDefaults() Options {
	setDefault(&o.BlockSize, 512)
	setDefault(&o.PortRange, "1024-65535")
	setDefault(&o.Hold, 2*time.Second)
	setDefault(&o.RecordTTL, 45*time.Minute)
	setDefault(&o.UDPTimeout, 300*time.Second)
	return o
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func (r *Rig) grpcAddr() string { return "unix:" + filepath.Join(r.Dir, "grpc.sock") }

// config is the daemon's configuration. Sockets are in the daemon's own
// namespace, on ports the kernel chooses; NAT is in the lab's.
func (r *Rig) config() []byte {
	pool := "198.51.100.0/28"
	if len(r.options.Lab.Pool) > 0 {
		pool = r.options.Lab.Pool[0].String()
	}
	removal := !r.options.RemovalOff
	return fmt.Appendf(nil, `node: rig
redis: {url: "unix://%s"}
radius:
  listen: ["127.0.0.1:0"]
  clients: [{name: bng1, prefix: 127.0.0.0/8, secret: %s}]
grpc: {listen: %q}
http: {listen: "127.0.0.1:0"}
log: {level: debug, format: json}
nat: {netns: %q, inside_interfaces: [%s], outside_interfaces: [%s]}
settings:
  subscriber_session_removal: %t
  idle_timeouts: {tcp_established: 7440s, tcp_transitory: 240s, udp: %s, icmp: 60s}
groups:
  - {name: default, inside: [100.64.0.0/10], outside: [%s], port_range: %s, block_size: %d, hold: %s, record_ttl: %s}
`, r.Redis.Socket, Secret, r.grpcAddr(), r.Lab.CGN.Name(), netlab.InsideInterface, netlab.OutsideInterface,
		removal, r.options.UDPTimeout, pool, r.options.PortRange, r.options.BlockSize, r.options.Hold, r.options.RecordTTL)
}
