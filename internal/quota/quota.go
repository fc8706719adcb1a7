// Package quota counts what peers have of one thing, such as connections: up to limits for
// each of them and for all, or, where none has a limit, in shares of what is free.
package quota

import (
	"net"
	"net/netip"
	"sync"
)

// Why there is no room for one more.
const (
	Limit     = "limit"      // there are too many
	PeerLimit = "peer_limit" // its peer has too many
)

// Quota counts. Its methods may be called concurrently.
type Quota struct {
	most    int
	perPeer int

	mu    sync.Mutex
	total int
	peers map[string]int
}

// New returns a quota that has room for so many in all, and so many of each peer.
func New(most, perPeer int) *Quota {
	return &Quota{most: most, perPeer: perPeer, peers: map[string]int{}}
}

// Enter counts one more of the peer and returns "", or why there is no room for it.
// Each that was counted has one Leave.
func (q *Quota) Enter(peer string) (refused string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.peers[peer] >= q.perPeer:
		return PeerLimit
	case q.total >= q.most:
		return Limit
	}
	q.total++
	q.peers[peer]++
	return ""
}

// Leave counts one of the peer out.
func (q *Quota) Leave(peer string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.total--
	if q.peers[peer]--; q.peers[peer] == 0 {
		delete(q.peers, peer)
	}
}

// ipv6Peer is the prefix that one site has of IPv6 at least.
const ipv6Peer = 64

// PeerOf names whom a TCP connection is counted to: an address, of IPv6 a /64.
func PeerOf(a *net.TCPAddr) string {
	address := a.AddrPort().Addr().Unmap().WithZone("")
	if address.Is6() {
		return netip.PrefixFrom(address, ipv6Peer).Masked().String()
	}
	return address.String()
}
