package nftnat

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/sessiond/sessiond/internal/netns"
	"github.com/vishvananda/netlink"
	vishnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// RouteProtocol marks our routes (rtm_protocol; `ip route list proto 93`). No other program is
// known to use the number.
const RouteProtocol = 93

// blackholes are the routes that swallow unasked packets to the outside pools: they get no
// answer, neither RST nor unreachable (RFC 5382 REQ-4), so that no port scan learns which
// blocks are in use.
type blackholes struct {
	handle *netlink.Handle
	log    *slog.Logger
}

func openBlackholes(ns netns.Namespace, log *slog.Logger) (*blackholes, error) {
	at := vishnetns.None()
	if fd := ns.FD(); fd != 0 {
		at = vishnetns.NsHandle(fd)
	}
	h, err := netlink.NewHandleAt(at, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open rtnetlink socket: %w", err)
	}
	return &blackholes{h, log}, nil
}

func (b *blackholes) close() { b.handle.Close() }

// set makes the routes of the prefixes, then removes all others of ours. A prefix that another
// program routes keeps that route.
func (b *blackholes) set(prefixes []netip.Prefix) error {
	want, standing := make(map[netip.Prefix]bool, len(prefixes)), map[netip.Prefix]bool{}
	for _, p := range prefixes {
		p = p.Masked()
		want[p] = true
		switch err := b.handle.RouteAdd(blackhole(p)); {
		case errors.Is(err, unix.EEXIST):
			standing[p] = true
		case err != nil:
			return wrap(err, "add blackhole route %v", p)
		}
	}
	if err := b.warnOfForeign(standing); err != nil {
		return err
	}
	ours, err := b.ours()
	if err != nil {
		return err
	}
	for _, p := range ours {
		if !want[p] {
			if err := b.remove(p); err != nil {
				return err
			}
		}
	}
	return nil
}

// ours returns the destinations of our routes.
func (b *blackholes) ours() ([]netip.Prefix, error) {
	routes, err := b.list(&netlink.Route{Protocol: RouteProtocol}, netlink.RT_FILTER_PROTOCOL)
	if err != nil {
		return nil, err
	}
	var prefixes []netip.Prefix
	for _, r := range routes {
		if p, ok := prefixOf(r.Dst); ok {
			prefixes = append(prefixes, p)
		}
	}
	return prefixes, nil
}

// warnOfForeign tells of prefixes that have somebody else's route. It is one dump for all of
// them, since a router may have a million other routes; an interrupted one is good enough.
func (b *blackholes) warnOfForeign(standing map[netip.Prefix]bool) error {
	if len(standing) == 0 {
		return nil
	}
	like := &netlink.Route{Table: unix.RT_TABLE_MAIN}
	err := b.handle.RouteListFilteredIter(unix.AF_INET, like, netlink.RT_FILTER_TABLE, func(r netlink.Route) bool {
		if p, ok := prefixOf(r.Dst); ok && standing[p] && r.Type != unix.RTN_BLACKHOLE {
			b.log.Warn("outside prefix has a foreign route in place of a blackhole", "prefix", p, "route", r.String())
		}
		return true
	})
	if errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil
	}
	return wrap(err, "list routes")
}

// restore makes missing routes of the prefixes anew. It costs one attempt for each prefix,
// however many other routes there are.
func (b *blackholes) restore(prefixes []netip.Prefix) error {
	for _, p := range prefixes {
		switch err := b.handle.RouteAdd(blackhole(p.Masked())); {
		case err == nil:
			b.log.Warn("blackhole route was deleted by others and is made anew", "prefix", p)
		case !errors.Is(err, unix.EEXIST):
			return wrap(err, "add blackhole route %v", p)
		}
	}
	return nil
}

// list dumps the routes that match. On a busy router others change routes meanwhile. After
// some attempts an interrupted dump is good enough, because our routes are not among those
// that come and go.
func (b *blackholes) list(like *netlink.Route, filter uint64) ([]netlink.Route, error) {
	const attempts = 5
	var routes []netlink.Route
	var err error
	for range attempts {
		routes, err = b.handle.RouteListFiltered(unix.AF_INET, like, filter)
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return routes, wrap(err, "list routes")
		}
	}
	return routes, nil
}

// remove deletes our route to p. The kernel compares type and protocol, so it hits no route of
// others.
func (b *blackholes) remove(p netip.Prefix) error {
	err := b.handle.RouteDel(blackhole(p))
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return wrap(err, "delete blackhole route %v", p)
}

func blackhole(p netip.Prefix) *netlink.Route {
	return &netlink.Route{
		Dst:      &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())},
		Type:     unix.RTN_BLACKHOLE,
		Table:    unix.RT_TABLE_MAIN,
		Protocol: RouteProtocol,
	}
}

func prefixOf(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	a, ok := netip.AddrFromSlice(n.IP)
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), ones), ok
}

func wrap(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf(format+": %w", append(args, err)...)
}

// Addresses and interfaces, by the same socket.

// localAddresses are the machine's own.
func (b *blackholes) localAddresses() (map[netip.Addr]bool, error) {
	list, err := b.handle.AddrList(nil, unix.AF_INET)
	if err != nil {
		return nil, wrap(err, "list addresses")
	}
	local := map[netip.Addr]bool{}
	for _, a := range list {
		if ip, ok := netip.AddrFromSlice(a.IP); ok {
			local[ip.Unmap()] = true
		}
	}
	return local, nil
}

// OwnAddressIn returns an address of the machine itself that lies in a prefix, the lowest one; the
// zero address for none.
func (k *Kernel) OwnAddressIn(p netip.Prefix) (own netip.Addr, err error) {
	local, err := k.routes.localAddresses()
	for a := range local {
		if p.Contains(a) && (!own.IsValid() || a.Less(own)) {
			own = a
		}
	}
	return own, err
}

// lacksLink reports whether no interface has the name or, for the beginning of a name, whether
// the name of none begins with it.
func (b *blackholes) lacksLink(name string) (bool, error) {
	begin, ok := strings.CutSuffix(name, anySuffix)
	if !ok {
		_, err := b.handle.LinkByName(name)
		if missing := (netlink.LinkNotFoundError{}); errors.As(err, &missing) {
			return true, nil
		}
		return false, err
	}
	links, err := b.handle.LinkList()
	return !slices.ContainsFunc(links, func(l netlink.Link) bool { return strings.HasPrefix(l.Attrs().Name, begin) }), err
}

// linkNames returns the names of all interfaces.
func (b *blackholes) linkNames() ([]string, error) {
	links, err := b.handle.LinkList()
	if err != nil {
		return nil, wrap(err, "list interfaces")
	}
	names := make([]string, len(links))
	for i, l := range links {
		names[i] = l.Attrs().Name
	}
	return names, nil
}
