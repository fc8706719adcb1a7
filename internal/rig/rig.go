package rig

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/sessiond/sessiond/internal/netlab"
)

// Secret is the shared secret of the rig's BNG.
const Secret = "testing123"

// Options are the parts of a rig.
type Options struct {
	Sessiond   string // required: path of the sessiond program
	Sessionctl string // required: path of the sessionctl program
	Lab        netlab.Options
	Memory     bool          // no lab and no kernel: NAT is sessiond's in-memory backend
	Listen     string        // accounting address; default "127.0.0.1:0"
	ListenAlso []string      // further accounting addresses
	RadSec     string        // text between the braces of radius.radsec; default none
	Clients    []string      // texts between the braces of more radius.clients
	Inside     string        // inside prefix of group default; default "100.64.0.0/10"
	Groups     []string      // texts between the braces of more groups
	BlockSize  int           // default 512
	MaxBlocks  int           // default 1
	PortRange  string        // default "1024-65535"
	Hold       time.Duration // default 2 s
	RecordTTL  time.Duration // default 45 min
	Guard      string        // text between the braces of groups[].guard; default sessiond's own
	UDPTimeout time.Duration // default 300 s
	RemovalOff bool          // start with the removal toggle off
	Removal    string        // text between the braces of groups[].removal; default none
	Settings   string        // further settings of group default; default none
	RedisArgs  []string      // more arguments for redis-server
	RedisURL   string        // redis.url; default the rig's own Redis
	LogLevel   string        // default "debug"
}

// A Rig is a running sessiond with its surroundings. Its parts can be killed
// and started again.
type Rig struct {
	Lab    *netlab.Lab
	Redis  *Redis
	Daemon *Daemon
	Dir    string // configuration, sockets, data

	options    Options
	neighbours []*Daemon
}

// Start starts a lab, a Redis and a sessiond, and waits until sessiond is
// ready. The caller must Close the rig.
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
	if !o.Memory {
		if r.Lab, err = netlab.New(o.Lab); err != nil {
			return nil, err
		}
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

// Neighbour makes another daemon on the same Redis, with its own sockets, and
// does not start it. Its configuration is the first one's, after change.
func (r *Rig) Neighbour(change func(config string) string) (*Daemon, error) {
	name := filepath.Join(r.Dir, fmt.Sprint("neighbour-", len(r.neighbours)))
	socket := "unix:" + name + ".sock"
	text := strings.Replace(string(r.config()), r.grpcAddr(), socket, 1)
	if err := os.WriteFile(name+".yaml", []byte(change(text)), 0o600); err != nil {
		return nil, err
	}
	d := newDaemon(r.options, name+".yaml", socket)
	r.neighbours = append(r.neighbours, d)
	return d, nil
}

// Close ends all parts and removes all files.
func (r *Rig) Close() error {
	var errs []error
	for _, d := range r.neighbours {
		errs = append(errs, d.Kill())
	}
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
	setDefault(&o.Listen, "127.0.0.1:0")
	setDefault(&o.Inside, "100.64.0.0/10")
	setDefault(&o.BlockSize, 512)
	setDefault(&o.MaxBlocks, 1)
	setDefault(&o.LogLevel, "debug")
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

// list makes a YAML list from maps written without their braces.
func list(indent string, maps []string) string {
	var lines strings.Builder
	for _, m := range maps {
		fmt.Fprintf(&lines, "%s- {%s}\n", indent, m)
	}
	return lines.String()
}

// quoted makes the items of a YAML list from strings.
func quoted(items []string) string {
	words := make([]string, len(items))
	for i, item := range items {
		words[i] = strconv.Quote(item)
	}
	return strings.Join(words, ", ")
}

// nat is the daemon's backend: the lab's kernel, or memory.
func (r *Rig) nat() string {
	where := "backend: memory"
	if !r.options.Memory {
		where = fmt.Sprintf("netns: %q", r.Lab.CGN.Name())
	}
	return fmt.Sprintf("{%s, inside_interfaces: [%s], outside_interfaces: [%s]}",
		where, netlab.InsideInterface, netlab.OutsideInterface)
}

// config is the daemon's configuration. Sockets are in the daemon's own
// namespace, on ports that the kernel chooses unless the options say otherwise;
// NAT is in the lab's.
func (r *Rig) config() []byte {
	pool := "198.51.100.0/28"
	if len(r.options.Lab.Pool) > 0 {
		pool = r.options.Lab.Pool[0].String()
	}
	removal := !r.options.RemovalOff
	return fmt.Appendf(nil, `node: rig
redis: {url: %q}
radius:
  listen: [%s]
  radsec: {%s}
  clients:
    - {name: bng1, prefix: 127.0.0.0/8, secret: %s}
%sgrpc: {listen: %q}
http: {listen: "127.0.0.1:0"}
log: {level: %s, format: json}
nat: %s
settings:
  subscriber_session_removal: %t
  idle_timeouts: {tcp_established: 7440s, tcp_transitory: 240s, udp: %s, icmp: 60s}
groups:
  - {name: default, inside: [%s], outside: [%s], port_range: %s, block_size: %d, max_blocks: %d, hold: %s, record_ttl: %s, guard: {%s}, removal: {%s}, %s}
%s`, cmp.Or(r.options.RedisURL, "unix://"+r.Redis.Socket), quoted(append([]string{r.options.Listen}, r.options.ListenAlso...)),
		r.options.RadSec, Secret, list("    ", r.options.Clients), r.grpcAddr(), r.options.LogLevel, r.nat(), removal,
		r.options.UDPTimeout, r.options.Inside, pool, r.options.PortRange, r.options.BlockSize, r.options.MaxBlocks, r.options.Hold, r.options.RecordTTL,
		r.options.Guard, r.options.Removal, r.options.Settings,
		list("  ", r.options.Groups))
}
