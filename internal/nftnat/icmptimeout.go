package nftnat

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"time"

	"github.com/mdlayher/netlink"
	"github.com/sessiond/sessiond/internal/netns"
	"github.com/sessiond/sessiond/internal/nlmsg"
	"golang.org/x/sys/unix"
)

// icmpTimeout is the namespace's idle timeout of all ICMP (sysctl
// net.netfilter.nf_conntrack_icmp_timeout). The table could have an object for the subscribers
// alone, but nft cannot load such an object, though it saves it: it would refuse a saved
// ruleset as a whole, including the operator's own tables. Netlink needs no writable
// /proc/sys.
type icmpTimeout struct {
	conn *netlink.Conn
	log  *slog.Logger
	told string // the failure last logged
}

// Messages and attributes of linux/netfilter/nfnetlink_cttimeout.h.
const (
	timeoutSetDefault = 3 // IPCTNL_MSG_TIMEOUT_DEFAULT_SET

	timeoutL3Protocol = 2 // CTA_TIMEOUT_L3PROTO
	timeoutL4Protocol = 3 // CTA_TIMEOUT_L4PROTO
	timeoutData       = 4 // CTA_TIMEOUT_DATA
	timeoutICMP       = 1 // CTA_TIMEOUT_ICMP_TIMEOUT
)

func openICMPTimeout(ns netns.Namespace, log *slog.Logger) (*icmpTimeout, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: ns.FD()})
	if err != nil {
		return nil, fmt.Errorf("open conntrack timeout socket: %w", err)
	}
	return &icmpTimeout{conn: conn, log: log}, nil
}

func (i *icmpTimeout) close() error { return i.conn.Close() }

// set sets the timeout to d, in whole seconds. A failure is logged once: NAT goes on with the
// namespace's own timeout.
func (i *icmpTimeout) set(d time.Duration) {
	err := i.try(d)
	switch {
	case err == nil:
		i.told = ""
	case err.Error() != i.told:
		i.told = err.Error()
		i.log.Warn("ICMP sessions idle out as net.netfilter.nf_conntrack_icmp_timeout says, not as configured: set that, or load the module (modprobe nfnetlink_cttimeout)",
			"configured", d, "error", err)
	}
}

// try sets the timeout without reading the present one: the kernel marks its answer to that
// request as the first of several, and never sends the last.
func (i *icmpTimeout) try(d time.Duration) error {
	body := []byte{unix.AF_INET, unix.NFNETLINK_V0, 0, 0} // struct nfgenmsg
	body = nlmsg.AppendAttr(body, timeoutL3Protocol, binary.BigEndian.AppendUint16(nil, unix.AF_INET))
	body = nlmsg.AppendAttr(body, timeoutL4Protocol, []byte{unix.IPPROTO_ICMP})
	data := len(body)
	body = nlmsg.BeginNested(body, timeoutData)
	body = nlmsg.AppendUint32(body, timeoutICMP, uint32(d/time.Second))
	body = nlmsg.EndNested(body, data)
	_, err := i.conn.Execute(netlink.Message{
		Header: netlink.Header{
			Type:  unix.NFNL_SUBSYS_CTNETLINK_TIMEOUT<<8 | timeoutSetDefault,
			Flags: netlink.Request | netlink.Acknowledge,
		},
		Data: body,
	})
	return err
}
