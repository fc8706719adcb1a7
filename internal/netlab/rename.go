package netlab

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// RenameInterface renames the interface with the given address, because a
// container engine chooses names that cannot be known beforehand. Its routes
// stay. It returns false if no interface has the address yet.
func (n *Namespace) RenameInterface(addr netip.Addr, name string) (found bool, err error) {
	err = n.Do(func() error {
		link, err := linkByAddress(addr)
		if link == nil || err != nil {
			return err
		}
		found = true
		if link.Attrs().Name == name {
			return nil
		}
		return rename(link, name)
	})
	return found, err
}

func linkByAddress(addr netip.Addr) (netlink.Link, error) {
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		if a.IP.Equal(addr.AsSlice()) {
			return netlink.LinkByIndex(a.LinkIndex)
		}
	}
	return nil, nil
}

// rename takes the link down for a moment, as kernels before 6.2 require, and
// restores the routes that this deletes.
func rename(link netlink.Link, name string) error {
	old := link.Attrs().Name
	routes, err := netlink.RouteList(link, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("list routes of %s: %w", old, err)
	}
	if err := netlink.LinkSetDown(link); err != nil {
		return fmt.Errorf("take down %s: %w", old, err)
	}
	if err := netlink.LinkSetName(link, name); err != nil {
		return fmt.Errorf("rename %s to %s: %w", old, name, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("bring up %s: %w", name, err)
	}
	for _, r := range routes {
		if err := netlink.RouteReplace(&r); err != nil {
			return fmt.Errorf("put back route %s: %w", r.Dst, err)
		}
	}
	return nil
}
