package nftnat

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/mdlayher/netlink"
	"github.com/sessiond/sessiond/internal/conntrack"
	"github.com/sessiond/sessiond/internal/kmodule"
	"github.com/sessiond/sessiond/internal/netns"
	"github.com/sessiond/sessiond/internal/nftnat/wire"
	"github.com/sessiond/sessiond/internal/nlmsg"
	"golang.org/x/sys/unix"
)

// warnOfSurroundings logs missing interfaces and settings. NAT works without them, or will
// once they are there.
func warnOfSurroundings(o *Options, routes *blackholes, flows *conntrack.Table, conn *wire.Conn) {
	for _, name := range slices.Concat(o.InsideInterfaces, o.OutsideInterfaces) {
		if missing, err := routes.lacksLink(name); err == nil && missing {
			o.Logger.Warn("interface does not exist; nothing is translated there until it does: is it in nat.netns, and is this its name?",
				"interface", name)
		}
	}
	if !flows.Counted() {
		o.Logger.Warn("net.netfilter.nf_conntrack_acct is off: packets and bytes of sessions are shown as 0, and sessions that began before it is switched on stay so")
	}
	warnOfHelpers(conn, o.NetNS, o.Logger)
	o.warnOfSkippedRules(o.Logger)
}

// Forwarding.

// forwards reports whether a namespace forwards IPv4 packets, which is net.ipv4.ip_forward.
// It uses netlink because files under /proc/sys show the namespace of the thread that opens
// them.
func forwards(ns netns.Namespace) (bool, error) {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{NetNS: ns.FD()})
	if err != nil {
		return false, fmt.Errorf("open rtnetlink socket: %w", err)
	}
	defer conn.Close()
	answers, err := conn.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_GETNETCONF, Flags: netlink.Request},
		Data:   askForwarding(),
	})
	if err != nil {
		return false, fmt.Errorf("read ip_forward: %w", err)
	}
	for _, m := range answers {
		if v, ok := parseForwarding(m.Data); ok {
			return v, nil
		}
	}
	return false, fmt.Errorf("read ip_forward: the kernel did not say")
}

// Attributes of linux/netconf.h.
const (
	netconfIndex      = 1 // NETCONFA_IFINDEX
	netconfForwarding = 2 // NETCONFA_FORWARDING
	netconfAll        = -1
	netconfHeader     = 4 // struct netconfmsg: the address family, padded
)

func askForwarding() []byte {
	all := int32(netconfAll)
	return nlmsg.AppendAttr([]byte{unix.AF_INET, 0, 0, 0}, netconfIndex,
		binary.NativeEndian.AppendUint32(nil, uint32(all)))
}

func parseForwarding(data []byte) (on, ok bool) {
	if len(data) < netconfHeader {
		return false, false
	}
	v := nlmsg.Attr(data[netconfHeader:], netconfForwarding)
	if len(v) != 4 {
		return false, false
	}
	return binary.NativeEndian.Uint32(v) != 0, true
}

// Kernel modules.

// unanswered names the module that gives the kernel its netfilter sockets.
func unanswered(err error) error {
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return kmodule.Missing("nfnetlink", err)
	}
	return err
}

// unloaded returns an error with the module whose absence made an operation on a new table
// fail.
func unloaded(err error) error {
	var refused *wire.Error
	if !errors.As(err, &refused) || !kmodule.Lacks(err) {
		return err
	}
	if module := moduleOf(refused.Op); module != "" {
		return kmodule.Missing(module, err)
	}
	return err
}

func moduleOf(op wire.Op) string {
	switch op.Verb {
	case "add table":
		return "nf_tables"
	case "add ct timeout":
		return "nft_ct"
	case "add chain":
		if slices.ContainsFunc(newChains(Options{}), func(c chain) bool { return c.name == op.Object && c.kind == "nat" }) {
			return "nft_chain_nat"
		}
	case "add rule to chain":
		switch op.Object {
		case chainForward, chainToInside, chainDraining:
			return "nft_ct"
		case chainTranslate:
			return "nft_nat"
		case chainUngated, chainLimits:
			return "nft_limit"
		case chainUnmapped:
			return "nft_fib_ipv4"
		case chainUnreachable:
			return "nft_reject_ipv4"
		}
	}
	return ""
}
