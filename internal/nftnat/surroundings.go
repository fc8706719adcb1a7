package nftnat

import (
	"errors"
	"slices"

	"github.com/vishvananda/netlink"
)

// warnOfSurroundings tells of what is not as the operator may think it is. All works
// without it, or will once it is mended.
func (k *Kernel) warnOfSurroundings() {
	for _, name := range slices.Concat(k.options.InsideInterfaces, k.options.OutsideInterfaces) {
		_, err := k.routes.handle.LinkByName(name)
		if missing := (netlink.LinkNotFoundError{}); errors.As(err, &missing) {
			k.log.Warn("interface does not exist; nothing is translated there until it does: is it in nat.netns, and is this its name?",
				"interface", name)
		}
	}
	if !k.flows.Counted() {
		k.log.Warn("net.netfilter.nf_conntrack_acct is off: packets and bytes of sessions are shown as 0, and sessions that began before it is switched on stay so")
	}
}
