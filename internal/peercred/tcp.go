package peercred

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Sizes and codes of sock_diag(7): struct inet_diag_req_v2 and inet_diag_msg.
const (
	sockDiagByFamily = 20
	diagRequestSize  = 56
	diagAnswerSize   = 72
	tcpEstablished   = 1
)

// TCP returns the user of the other end of a TCP connection within this
// machine. It is an error if that end is closing, because the kernel then
// reports user 0.
func TCP(c net.Conn) (uint32, error) {
	local, isTCP := c.LocalAddr().(*net.TCPAddr)
	remote, isToo := c.RemoteAddr().(*net.TCPAddr)
	if !isTCP || !isToo {
		return 0, errors.New("not TCP")
	}
	return TCPBetween(remote.AddrPort(), local.AddrPort())
}

// TCPBetween is TCP for a connection that is known by its addresses: of the other
// end, and of ours.
func TCPBetween(remote, local netip.AddrPort) (uint32, error) {
	conn, err := netlink.Dial(unix.NETLINK_SOCK_DIAG, nil)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	answers, err := conn.Execute(netlink.Message{
		Header: netlink.Header{Type: sockDiagByFamily, Flags: netlink.Request},
		Data:   diagRequest(remote, local),
	})
	if err != nil {
		return 0, err
	}
	if len(answers) != 1 || len(answers[0].Data) < diagAnswerSize {
		return 0, fmt.Errorf("sock_diag gave %d answers", len(answers))
	}
	answer := answers[0].Data
	if answer[1] != tcpEstablished {
		return 0, errors.New("the other end is closing")
	}
	return binary.NativeEndian.Uint32(answer[64:]), nil
}

// diagRequest returns a request for the one socket that is bound to the first
// address and connected to the second.
func diagRequest(bound, connected netip.AddrPort) []byte {
	from, to := bound.Addr().Unmap().WithZone(""), connected.Addr().Unmap().WithZone("")
	b := make([]byte, diagRequestSize)
	if b[0] = unix.AF_INET; from.Is6() {
		b[0] = unix.AF_INET6
	}
	b[1] = unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(b[4:], 1<<tcpEstablished)
	binary.BigEndian.PutUint16(b[8:], bound.Port())
	binary.BigEndian.PutUint16(b[10:], connected.Port())
	copy(b[12:28], from.AsSlice())
	copy(b[28:44], to.AsSlice())
	for i := 48; i < diagRequestSize; i++ {
		b[i] = 0xff // INET_DIAG_NOCOOKIE
	}
	return b
}
