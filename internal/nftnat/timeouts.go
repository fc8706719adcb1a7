package nftnat

import (
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"github.com/google/nftables/expr"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/nlmsg"
	"golang.org/x/sys/unix"
)

// A policy is a conntrack timeout object. Its name contains its values: objects cannot be
// changed, and flows keep the one they began with.
//
// ICMP has none, see icmpTimeout.
type policy struct {
	name     string
	protocol uint8
	seconds  []uint32 // by CTA_TIMEOUT_* attribute, from 1 on
}

func newPolicies(t nat.Timeouts) []policy {
	return []policy{
		newPolicy("tcp", unix.IPPROTO_TCP, []time.Duration{
			t.TCPTransitory,  // SYN_SENT
			t.TCPTransitory,  // SYN_RECV
			t.TCPEstablished, // ESTABLISHED
			t.TCPTransitory,  // FIN_WAIT
			t.TCPTransitory,  // CLOSE_WAIT
			t.TCPTransitory,  // LAST_ACK
			t.TCPTransitory,  // TIME_WAIT
			t.TCPTransitory,  // CLOSE: state outlives an RST (RFC 7857 section 2.2)
			t.TCPTransitory,  // SYN_SENT2: simultaneous open
			t.TCPEstablished, // RETRANS and UNACK cut an established flow short
			t.TCPEstablished, // if they are less (RFC 5382 REQ-5)
		}, t.TCPEstablished, t.TCPTransitory),
		newPolicy("udp", unix.IPPROTO_UDP, []time.Duration{t.UDP, t.UDP}, t.UDP),
	}
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
	dst = appendObjectName(dst, table, p.name)
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

func appendObjectName(dst []byte, table, name string) []byte {
	dst = nlmsg.AppendString(dst, unix.NFTA_OBJ_TABLE, table)
	dst = nlmsg.AppendString(dst, unix.NFTA_OBJ_NAME, name)
	return nlmsg.AppendUint32(dst, unix.NFTA_OBJ_TYPE, unix.NFT_OBJECT_CT_TIMEOUT)
}
