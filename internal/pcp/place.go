package pcp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	vishnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/netns"
)

// Anycast is the address at which clients find a server without knowing its own (RFC 7723).
var Anycast = netip.MustParseAddr("192.0.0.9")

// routeProtocol marks the anycast route, as it does the routes of nftnat.
const routeProtocol = 93

// A place knows the interfaces and addresses of the server's network namespace. It is used by one
// goroutine.
type place struct {
	handle  *netlink.Handle
	inside  []string // names of interfaces, or beginnings of names and "*"
	outside []string
	own     map[netip.Addr]bool // beside the addresses of inside interfaces

	links map[int]linkSide // by index
	local map[netip.Addr]bool
	read  time.Duration // uptime
}

// linkSide tells where an interface leads to.
type linkSide uint8

const (
	otherSide linkSide = iota
	insideLink
	outsideLink
)

func openPlace(ns netns.Namespace, o *Options) (*place, error) {
	at := vishnetns.None()
	if fd := ns.FD(); fd != 0 {
		at = vishnetns.NsHandle(fd)
	}
	h, err := netlink.NewHandleAt(at, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open rtnetlink socket: %w", err)
	}
	p := &place{handle: h, inside: o.InsideInterfaces, outside: o.OutsideInterfaces, own: map[netip.Addr]bool{}}
	for _, a := range o.Listen {
		p.own[a] = true
	}
	if o.Anycast {
		p.own[Anycast] = true
	}
	return p, nil
}

func (p *place) close() { p.handle.Close() }

// anycastRoute makes the anycast address one of the machine.
func anycastRoute() *netlink.Route {
	return &netlink.Route{
		Dst:  &net.IPNet{IP: Anycast.AsSlice(), Mask: net.CIDRMask(32, 32)},
		Type: unix.RTN_LOCAL, Table: unix.RT_TABLE_LOCAL, Scope: netlink.SCOPE_HOST, Protocol: routeProtocol,
		LinkIndex: loopbackIndex,
	}
}

// loopbackIndex is that of lo in every network namespace.
const loopbackIndex = 1

// setAnycast adds the anycast route, or removes it. One of others stays.
func (p *place) setAnycast(on bool) error {
	if on {
		if err := p.handle.RouteAdd(anycastRoute()); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("add a local route to %v: %w", Anycast, err)
		}
		return nil
	}
	if err := p.handle.RouteDel(anycastRoute()); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("delete the local route to %v: %w", Anycast, err)
	}
	return nil
}

// How long the interfaces and addresses are believed, and how soon after a reading another one may
// follow where something is not known.
const (
	readEvery   = 10 * time.Second
	readAtLeast = time.Second
)

// side tells by which kind of interface a datagram came, and whether its destination is one of the
// server's addresses.
func (p *place) side(index int, local netip.Addr, uptime time.Duration) (side linkSide, ours bool, err error) {
	side, known := p.links[index]
	ours = p.local[local]
	if age := uptime - p.read; known && ours && age < readEvery || p.links != nil && age < readAtLeast {
		return side, ours, nil
	}
	if err := p.readLinks(uptime); err != nil {
		return side, ours, err
	}
	return p.links[index], p.local[local], nil
}

// readLinks reads the interfaces and their addresses.
func (p *place) readLinks(uptime time.Duration) error {
	p.read = uptime
	links, err := p.handle.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) { // some interfaces come and go
		return fmt.Errorf("list interfaces: %w", err)
	}
	addresses, err := p.handle.AddrList(nil, unix.AF_INET)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return fmt.Errorf("list addresses: %w", err)
	}
	p.links, p.local = map[int]linkSide{}, map[netip.Addr]bool{}
	for _, l := range links {
		switch name := l.Attrs().Name; {
		case matches(p.inside, name):
			p.links[l.Attrs().Index] = insideLink
		case matches(p.outside, name):
			p.links[l.Attrs().Index] = outsideLink
		default:
			p.links[l.Attrs().Index] = otherSide
		}
	}
	for a := range p.own {
		p.local[a] = true
	}
	for _, a := range addresses {
		if ip, ok := netip.AddrFromSlice(a.IP); ok && p.links[a.LinkIndex] == insideLink {
			p.local[ip.Unmap()] = true
		}
	}
	return nil
}

// matches reports whether a name is one of some, or begins as one that ends in "*".
func matches(names []string, name string) bool {
	for _, n := range names {
		if begin, ok := strings.CutSuffix(n, "*"); n == name || ok && strings.HasPrefix(name, begin) {
			return true
		}
	}
	return false
}
