package nftnat

import (
	"errors"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
)

// warnOfSurroundings tells of what is not as the operator may think it is. All works
// without it, or will once it is mended.
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

// lacksLink reports whether there is no interface of a name, or, for the beginning of a name,
// none that begins so.
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
