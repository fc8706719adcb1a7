package netlab

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"sync"
)

// Interfaces of the CGN namespace.
const (
	InsideInterface  = "s0" // towards the subscribers
	OutsideInterface = "i0" // towards the internet
)

// Interfaces of the other two.
const (
	subscriberInterface = "c0"
	internetInterface   = "r0"
)

// OperatorsFlowtable is for nft in the CGN: a flowtable of an operator, of both interfaces.
const OperatorsFlowtable = `table inet fast {
	flowtable ft { hook ingress priority 0; devices = { ` + InsideInterface + `, ` + OutsideInterface + ` }; }
	chain forward {
		type filter hook forward priority 1
		meta l4proto { tcp, udp } ct state established flow add @ft
	}
}`

// Addresses of the CGN, with the length of their links' prefixes.
var (
	InsideGateway  = netip.MustParsePrefix("100.64.0.1/10")  // RFC 6598
	OutsideGateway = netip.MustParsePrefix("203.0.113.1/24") // RFC 5737
)

// Options are the addresses of a lab. The zero value suits most tests.
type Options struct {
	// Subscribers are the inside addresses of the subscriber host, within
	// 100.64.0.0/10. Default: 100.64.0.10 and 100.64.0.11.
	Subscribers []netip.Addr
	// Remotes are the addresses of the internet host, within 203.0.113.0/24.
	// Default: 203.0.113.10 and 203.0.113.20.
	Remotes []netip.Addr
	// Pool holds the outside prefixes, which the internet host routes to the
	// CGN. Default: 198.51.100.0/28.
	Pool []netip.Prefix
}

func (o *Options) setDefaults() {
	if o.Subscribers == nil {
		o.Subscribers = []netip.Addr{netip.MustParseAddr("100.64.0.10"), netip.MustParseAddr("100.64.0.11")}
	}
	if o.Remotes == nil {
		o.Remotes = []netip.Addr{netip.MustParseAddr("203.0.113.10"), netip.MustParseAddr("203.0.113.20")}
	}
	if o.Pool == nil {
		o.Pool = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/28")}
	}
}

// A Lab is three namespaces in a row: subscriber, CGN, internet. The CGN only
// forwards; the program under test translates.
type Lab struct {
	Subscriber *Namespace
	CGN        *Namespace
	Internet   *Namespace
	Remotes    []netip.Addr // addresses of the internet host

	mu    sync.Mutex
	owned []io.Closer // closed by Close, the newest first
}

// New builds a lab with unique names, so that several labs can exist at once.
// It needs root and the ip command. The caller must Close it.
func New(opts Options) (*Lab, error) {
	opts.setDefaults()
	if err := Sweep(); err != nil {
		return nil, err
	}
	l := &Lab{Remotes: opts.Remotes}
	if err := l.build(opts); err != nil {
		return nil, errors.Join(fmt.Errorf("build lab: %w", err), l.Close())
	}
	return l, nil
}

func (l *Lab) build(opts Options) error {
	if err := l.addNamespaces(newLabName()); err != nil {
		return err
	}
	if err := l.connectSubscriber(opts.Subscribers); err != nil {
		return fmt.Errorf("connect subscriber: %w", err)
	}
	if err := l.connectInternet(opts.Remotes, opts.Pool); err != nil {
		return fmt.Errorf("connect internet: %w", err)
	}
	return nil
}

func (l *Lab) addNamespaces(lab string) error {
	for _, role := range []struct {
		name string
		into **Namespace
	}{{"sub", &l.Subscriber}, {"cgn", &l.CGN}, {"inet", &l.Internet}} {
		ns, err := l.addNamespace(lab + "-" + role.name)
		if err != nil {
			return err
		}
		*role.into = ns
	}
	return nil
}

func (l *Lab) addNamespace(name string) (*Namespace, error) {
	if err := addNamespace(name); err != nil {
		return nil, err
	}
	l.Own(closerFunc(func() error { return deleteNamespace(name) }))
	ns, err := Named(name)
	if err != nil {
		return nil, err
	}
	l.Own(ns)
	return ns, ns.Do(quiet)
}

// AddHost connects a further host to the CGN by its own link, at whose CGN end
// is the interface gateway. The host's default route leads to the CGN.
func (l *Lab) AddHost(name string, host netip.Prefix, gateway Interface) (*Namespace, error) {
	ns, err := l.addNamespace(strings.TrimSuffix(l.CGN.name, "cgn") + name)
	if err != nil {
		return nil, err
	}
	its := Interface{Name: subscriberInterface, Addresses: []netip.Prefix{host}}
	if err := connect(ns, its, l.CGN, gateway); err != nil {
		return nil, fmt.Errorf("connect host %s: %w", name, err)
	}
	everywhere := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	return ns, ns.AddRoute(Route{Destination: everywhere, Gateway: gateway.Addresses[0].Addr()})
}

// quiet keeps the kernel of a new namespace from sending packets by itself, and
// from dropping packets only because of their source address.
func quiet() error {
	for path, value := range map[string]string{
		"/proc/sys/net/ipv6/conf/all/disable_ipv6":     "1",
		"/proc/sys/net/ipv6/conf/default/disable_ipv6": "1",
		"/proc/sys/net/ipv4/conf/all/rp_filter":        "0",
		"/proc/sys/net/ipv4/conf/default/rp_filter":    "0",
	} {
		err := os.WriteFile(path, []byte(value), 0o644)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Own makes Close of the lab close c too, before things owned earlier.
func (l *Lab) Own(c io.Closer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.owned = append(l.owned, c)
}

// Close removes the lab and all that it owns. A second Close does nothing.
func (l *Lab) Close() error {
	l.mu.Lock()
	owned := l.owned
	l.owned = nil
	l.mu.Unlock()
	var errs []error
	for i := len(owned) - 1; i >= 0; i-- {
		errs = append(errs, owned[i].Close())
	}
	return errors.Join(errs...)
}

type closerFunc func() error

func (f closerFunc) Close() error { return f() }
