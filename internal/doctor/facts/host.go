package facts

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	vishnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/doctor"
	"github.com/sessiond/sessiond/internal/kmodule"
	"github.com/sessiond/sessiond/internal/netns"
	"github.com/sessiond/sessiond/internal/nftnat"
	"github.com/sessiond/sessiond/internal/nftnat/barrier"
)

// readHost reads the facts of the network namespace of the NAT.
func readHost(ctx context.Context, f *doctor.Facts, o *Options) {
	ns, err := netns.Open(o.Config.NAT.NetNS)
	if err != nil {
		unread(f, "the network namespace of the NAT", err)
		return
	}
	defer ns.Close()
	unread(f, "features of the kernel", readFeatures(ctx, f, o))
	unread(f, "interfaces and routes", readNetwork(f, ns))
	unread(f, "sysctls", ns.Do(func() error { return readSysctls(f) }))
	unread(f, "tables of nftables", readTables(ctx, f, ns, o.Config.NAT.Table))
	f.Open, err = barrier.Without(ns, o.Config.NAT.OutsideInterfaces, o.NAT.Logger)
	unread(f, "filters of outside interfaces", err)
}

// readFeatures starts everything in a namespace of its own.
func readFeatures(ctx context.Context, f *doctor.Facts, o *Options) error {
	lacking, err := nftnat.Probe(ctx, o.NAT)
	for _, e := range lacking {
		missing := doctor.Missing{Err: e.Error()}
		if named := (*kmodule.MissingError)(nil); errors.As(e, &named) {
			missing.Module, missing.Err = named.Module, "the kernel module "+named.Module+" is missing: "+named.Err.Error()
		}
		f.Missing = append(f.Missing, missing)
	}
	return err
}

// readSysctls reads the files of the namespace of the thread.
func readSysctls(f *doctor.Facts) error {
	var served []string
	for _, l := range f.Links {
		served = append(served, l.Name)
	}
	f.Sysctls = map[string]string{}
	for _, name := range doctor.Sysctls(served) {
		value, err := os.ReadFile("/proc/sys/" + sysctlFile(name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // no such setting in this kernel, or in a namespace that is not the first
		}
		if err != nil {
			return err
		}
		f.Sysctls[name] = strings.TrimSpace(string(value))
	}
	return nil
}

// sysctlFile returns the path of a sysctl below /proc/sys. An interface's name may have dots.
func sysctlFile(name string) string {
	const links = "net.ipv4.conf."
	if rest, ok := strings.CutPrefix(name, links); ok {
		at := strings.LastIndexByte(rest, '.')
		return strings.ReplaceAll(links, ".", "/") + rest[:at] + "/" + rest[at+1:]
	}
	return strings.ReplaceAll(name, ".", "/")
}

func readNetwork(f *doctor.Facts, ns netns.Namespace) error {
	at := vishnetns.None()
	if fd := ns.FD(); fd != 0 {
		at = vishnetns.NsHandle(fd)
	}
	h, err := netlink.NewHandleAt(at, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open rtnetlink socket: %w", err)
	}
	defer h.Close()
	names, err := readLinks(f, h)
	if err != nil {
		return err
	}
	return readRoutes(f, h, names)
}

// readLinks reads the interfaces that the configuration names, and those with an address. It
// returns the names of all, by index.
func readLinks(f *doctor.Facts, h *netlink.Handle) (map[int]string, error) {
	links, err := h.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	addresses, err := h.AddrList(nil, unix.AF_INET)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	names := map[int]string{}
	for _, l := range links {
		a := l.Attrs()
		names[a.Index] = a.Name
		link := doctor.Link{Name: a.Name, Up: a.Flags&net.FlagUp != 0}
		for _, address := range addresses {
			if p, ok := prefixOf(address.IPNet); ok && address.LinkIndex == a.Index {
				link.Addresses = append(link.Addresses, p)
			}
		}
		if len(link.Addresses) > 0 || f.Config.Serves(a.Name) {
			f.Links = append(f.Links, link)
		}
	}
	return names, nil
}

// readRoutes reads the routes that matter, of those of a router that may have a million. A route
// that others change meanwhile may be missing.
func readRoutes(f *doctor.Facts, h *netlink.Handle, names map[int]string) error {
	like := &netlink.Route{Table: unix.RT_TABLE_MAIN}
	err := h.RouteListFilteredIter(unix.AF_INET, like, netlink.RT_FILTER_TABLE, func(r netlink.Route) bool {
		to, ok := prefixOf(r.Dst)
		if r.Dst == nil {
			to, ok = netip.PrefixFrom(netip.IPv4Unspecified(), 0), true
		}
		if !ok || to.Bits() > 0 && !slices.ContainsFunc(f.Config.Groups, func(g doctor.Group) bool {
			return slices.ContainsFunc(slices.Concat(g.Inside, g.Outside), to.Overlaps)
		}) {
			return true
		}
		route := doctor.Route{To: to, Device: names[r.LinkIndex], Blackhole: r.Type == unix.RTN_BLACKHOLE}
		f.Routes = append(f.Routes, route)
		for _, hop := range r.MultiPath {
			route.Device = names[hop.LinkIndex]
			f.Routes = append(f.Routes, route)
		}
		return true
	})
	if errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil
	}
	return err
}

func prefixOf(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	a, ok := netip.AddrFromSlice(n.IP)
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), ones), ok
}

func readTables(ctx context.Context, f *doctor.Facts, ns netns.Namespace, table string) error {
	others, err := nftnat.ReadOthers(ctx, ns, table)
	if err != nil {
		return err
	}
	f.Programmed, f.Helpers = others.Own, others.Helpers
	for _, c := range others.Chains {
		f.Chains = append(f.Chains, doctor.Chain(c))
	}
	for _, r := range others.Rules {
		f.Rules = append(f.Rules, doctor.Rule(r))
	}
	for _, t := range others.Flowtables {
		f.Flowtables = append(f.Flowtables, doctor.Flowtable(t))
	}
	return nil
}
