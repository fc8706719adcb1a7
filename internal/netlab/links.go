package netlab

import (
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
)

// An Interface is one network interface to be set up by Configure.
type Interface struct {
	Name      string
	Addresses []netip.Prefix
}

// A Route leads to Destination by way of Gateway.
type Route struct {
	Destination netip.Prefix
	Gateway     netip.Addr
}

// AddSubscriber adds an inside address to the subscriber host.
func (l *Lab) AddSubscriber(inside netip.Addr) error {
	return l.Subscriber.Configure(Interface{
		Name:      subscriberInterface,
		Addresses: []netip.Prefix{netip.PrefixFrom(inside, InsideGateway.Bits())},
	})
}

func (l *Lab) connectSubscriber(inside []netip.Addr) error {
	host := Interface{Name: subscriberInterface, Addresses: withBits(inside, InsideGateway.Bits())}
	gateway := Interface{Name: InsideInterface, Addresses: []netip.Prefix{InsideGateway}}
	if err := connect(l.Subscriber, host, l.CGN, gateway); err != nil {
		return err
	}
	everywhere := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	return l.Subscriber.AddRoute(Route{Destination: everywhere, Gateway: InsideGateway.Addr()})
}

func (l *Lab) connectInternet(remotes []netip.Addr, pool []netip.Prefix) error {
	host := Interface{Name: internetInterface, Addresses: withBits(remotes, OutsideGateway.Bits())}
	gateway := Interface{Name: OutsideInterface, Addresses: []netip.Prefix{OutsideGateway}}
	if err := connect(l.Internet, host, l.CGN, gateway); err != nil {
		return err
	}
	for _, p := range pool {
		if err := l.Internet.AddRoute(Route{Destination: p, Gateway: OutsideGateway.Addr()}); err != nil {
			return err
		}
	}
	return l.CGN.Do(func() error {
		return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644)
	})
}

func withBits(addrs []netip.Addr, bits int) []netip.Prefix {
	prefixes := make([]netip.Prefix, 0, len(addrs))
	for _, a := range addrs {
		prefixes = append(prefixes, netip.PrefixFrom(a, bits))
	}
	return prefixes
}

// connect joins two namespaces by a pair of interfaces. Both ends are created
// in their namespaces, so that labs built at the same time cannot collide.
func connect(a *Namespace, ia Interface, b *Namespace, ib Interface) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = ia.Name
	attrs.Namespace = netlink.NsFd(a.handle)
	pair := &netlink.Veth{LinkAttrs: attrs, PeerName: ib.Name, PeerNamespace: netlink.NsFd(b.handle)}
	if err := netlink.LinkAdd(pair); err != nil {
		return fmt.Errorf("add link %s-%s: %w", ia.Name, ib.Name, err)
	}
	if err := a.Configure(ia); err != nil {
		return err
	}
	return b.Configure(ib)
}

// Configure adds an interface's addresses and brings it and the loopback up.
// Addresses that it already has are no error.
func (n *Namespace) Configure(i Interface) error {
	return n.Do(func() error {
		if err := bringUp("lo"); err != nil {
			return err
		}
		link, err := netlink.LinkByName(i.Name)
		if err != nil {
			return fmt.Errorf("find interface %s: %w", i.Name, err)
		}
		for _, p := range i.Addresses {
			if err := netlink.AddrReplace(link, &netlink.Addr{IPNet: ipNet(p)}); err != nil {
				return fmt.Errorf("add address %s to %s: %w", p, i.Name, err)
			}
		}
		return bringUp(i.Name)
	})
}

func bringUp(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find interface %s: %w", name, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("bring up %s: %w", name, err)
	}
	return nil
}

// AddRoute adds a route, or replaces the route to the same destination.
func (n *Namespace) AddRoute(r Route) error {
	return n.Do(func() error {
		err := netlink.RouteReplace(&netlink.Route{Dst: ipNet(r.Destination), Gw: r.Gateway.AsSlice()})
		if err != nil {
			return fmt.Errorf("add route to %s via %s: %w", r.Destination, r.Gateway, err)
		}
		return nil
	})
}

// ipNet keeps the host part of p, which an interface's address needs.
func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
