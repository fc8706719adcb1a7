package nftnat

import (
	"errors"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
)

// warnOfSurroundings logs missing interfaces and settings. NAT works without them, or will
// once they are there.
func (k *Kernel) warnOfSurroundings() {
	for _, name := range slices.Concat(k.options.InsideInterfaces, k.options.OutsideInterfaces) {
		if missing, err := k.routes.lacksLink(name); err == nil && missing {
			k.log.Warn("interface does not exist; nothing is translated there until it does: is it in nat.netns, and is this its name?",
				"interface", name)
		}
	}
	if !k.flows.Counted() {
		k.log.Warn("net.netfilter.nf_conntrack_acct is off: packets and bytes of sessions are shown as 0, and sessions that began before it is switched on stay so")
	}
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
