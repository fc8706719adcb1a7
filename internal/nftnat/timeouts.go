package nftnat

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/netns"
	"github.com/sessiond/sessiond/internal/nlmsg"
	"golang.org/x/sys/unix"
)

// A policy is a conntrack timeout object. Its name contains its values: objects cannot be
// changed, and flows keep the one they began with.
//
// ICMP has none, see defaultICMP.
type policy struct {
	name     string
	protocol uint8
	seconds  []uint32 // by CTA_TIMEOUT_* attribute, from 1 on
}

// tcpPolicy is named after the timeouts of established connections, of opening ones, and of
// closing ones where those have another.
func tcpPolicy(t nat.Timeouts) policy {
	naming := []time.Duration{t.TCPEstablished, t.PartialOpen()}
	if t.PartialClose() != t.PartialOpen() {
		naming = append(naming, t.PartialClose())
	}
	return newPolicy("tcp", unix.IPPROTO_TCP, []time.Duration{
		t.PartialOpen(),  // SYN_SENT
		t.PartialOpen(),  // SYN_RECV
		t.TCPEstablished, // ESTABLISHED
		t.PartialClose(), // FIN_WAIT
		t.PartialClose(), // CLOSE_WAIT
		t.PartialClose(), // LAST_ACK
		t.PartialClose(), // TIME_WAIT
		t.PartialClose(), // CLOSE: state outlives an RST (RFC 7857 section 2.2)
		t.PartialOpen(),  // SYN_SENT2: simultaneous open
		t.TCPEstablished, // RETRANS and UNACK cut an established flow short
		t.TCPEstablished, // if they are less (RFC 5382 REQ-5)
	}, naming...)
}

func udpPolicy(t nat.Timeouts) policy {
	return newPolicy("udp", unix.IPPROTO_UDP, []time.Duration{t.UDP, t.UDP}, t.UDP)
}

func newPolicy(kind string, protocol uint8, values []time.Duration, naming ...time.Duration) policy {
	p := policy{protocol: protocol}
	for _, v := range values {
		p.seconds = append(p.seconds, uint32(v/time.Second))
	}
	name := []string{kind}
	for _, v := range naming {
		name = append(name, fmt.Sprint(int(v/time.Second)))
	}
	p.name = strings.Join(name, "-")
	return p
}

// appendObject appends the attributes of NFT_MSG_NEWOBJ.
func (p policy) appendObject(dst []byte, table string) []byte {
	dst = appendObjectName(dst, table, p.name, unix.NFT_OBJECT_CT_TIMEOUT)
	data := len(dst)
	dst = nlmsg.BeginNested(dst, unix.NFTA_OBJ_DATA)
	dst = nlmsg.AppendAttr(dst, expr.NFTA_CT_TIMEOUT_L3PROTO, binary.BigEndian.AppendUint16(nil, unix.NFPROTO_IPV4))
	dst = nlmsg.AppendAttr(dst, expr.NFTA_CT_TIMEOUT_L4PROTO, []byte{p.protocol})
	values := len(dst)
	dst = nlmsg.BeginNested(dst, expr.NFTA_CT_TIMEOUT_DATA)
	for i, s := range p.seconds {
		dst = nlmsg.AppendUint32(dst, uint16(i+1), s)
	}
	return nlmsg.EndNested(nlmsg.EndNested(dst, values), data)
}

func appendObjectName(dst []byte, table, name string, kind uint32) []byte {
	dst = nlmsg.AppendString(dst, unix.NFTA_OBJ_TABLE, table)
	dst = nlmsg.AppendString(dst, unix.NFTA_OBJ_NAME, name)
	return nlmsg.AppendUint32(dst, unix.NFTA_OBJ_TYPE, kind)
}

// Timeouts of the namespace.

// A defaultTimeout is one of the namespace's idle timeouts, for flows without a policy.
type defaultTimeout struct {
	protocol uint8
	state    uint16 // CTA_TIMEOUT_*
	sysctl   string
	flows    string // in words
}

// defaultICMP is that of all ICMP. The table could have an object for the subscribers alone, but
// nft cannot load such an object, though it saves it: it would refuse a saved ruleset as a
// whole, including the operator's own tables.
var defaultICMP = defaultTimeout{unix.IPPROTO_ICMP, 1, "net.netfilter.nf_conntrack_icmp_timeout", "ICMP sessions"}

// defaultTimeouts sets idle timeouts of the namespace. Netlink needs no writable /proc/sys.
type defaultTimeouts struct {
	conn *netlink.Conn
	log  *slog.Logger
	told map[string]string // the failure last logged, by sysctl
}

// Messages and attributes of linux/netfilter/nfnetlink_cttimeout.h.
const (
	timeoutSetDefault = 3 // IPCTNL_MSG_TIMEOUT_DEFAULT_SET

	timeoutL3Protocol = 2 // CTA_TIMEOUT_L3PROTO
	timeoutL4Protocol = 3 // CTA_TIMEOUT_L4PROTO
	timeoutData       = 4 // CTA_TIMEOUT_DATA
)

func openDefaultTimeouts(ns netns.Namespace, log *slog.Logger) (*defaultTimeouts, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: ns.FD()})
	if err != nil {
		return nil, fmt.Errorf("open conntrack timeout socket: %w", err)
	}
	return &defaultTimeouts{conn: conn, log: log, told: map[string]string{}}, nil
}

func (t *defaultTimeouts) close() error { return t.conn.Close() }

// set sets a timeout to d, in whole seconds. A failure is logged once: NAT goes on with the
// namespace's own timeout.
func (t *defaultTimeouts) set(which defaultTimeout, d time.Duration) {
	err := t.try(which, d)
	switch {
	case err == nil:
		delete(t.told, which.sysctl)
	case err.Error() != t.told[which.sysctl]:
		t.told[which.sysctl] = err.Error()
		t.log.Warn(which.flows+" idle out as "+which.sysctl+" says, not as configured: set that, or load the module (modprobe nfnetlink_cttimeout)",
			"configured", d, "error", err)
	}
}

// try sets the timeout without reading the present one: the kernel marks its answer to that
// request as the first of several, and never sends the last.
func (t *defaultTimeouts) try(which defaultTimeout, d time.Duration) error {
	body := []byte{unix.AF_INET, unix.NFNETLINK_V0, 0, 0} // struct nfgenmsg
	body = nlmsg.AppendAttr(body, timeoutL3Protocol, binary.BigEndian.AppendUint16(nil, unix.AF_INET))
	body = nlmsg.AppendAttr(body, timeoutL4Protocol, []byte{which.protocol})
	data := len(body)
	body = nlmsg.BeginNested(body, timeoutData)
	body = nlmsg.AppendUint32(body, which.state, uint32(d/time.Second))
	body = nlmsg.EndNested(body, data)
	_, err := t.conn.Execute(netlink.Message{
		Header: netlink.Header{
			Type:  unix.NFNL_SUBSYS_CTNETLINK_TIMEOUT<<8 | timeoutSetDefault,
			Flags: netlink.Request | netlink.Acknowledge,
		},
		Data: body,
	})
	return err
}
