package nftnat

import (
	"encoding/binary"
	"fmt"

	"github.com/mdlayher/netlink"
	"github.com/sessiond/sessiond/internal/netns"
	"github.com/sessiond/sessiond/internal/nlmsg"
	"golang.org/x/sys/unix"
)

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
