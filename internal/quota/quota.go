// Package quota bounds the number of things of one kind, such as connections, that each
// peer has. Quota has fixed limits for each peer and for all peers; Shares gives each peer
// a share of the free things.
package quota

import (
	"net"
	"net/netip"
	"strings"
	"sync"
)

// Reasons of a refusal.
const (
	Limit     = "limit"      // the total is at its limit
	PeerLimit = "peer_limit" // the peer is at its limit
)

// Quota counts the things of each peer against fixed limits. Its methods may be called
// concurrently.
type Quota struct {
	most    int
	perPeer int

	mu    sync.Mutex
	total int
	peers map[string]int
}

// New returns a quota of most things for all peers together, and of perPeer for each.
func New(most, perPeer int) *Quota {
	return &Quota{most: most, perPeer: perPeer, peers: map[string]int{}}
}

// Enter counts one more thing of the peer and returns "", or the reason of a refusal. Each
// Enter that succeeds needs one Leave.
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

// Leave counts one thing of the peer less.
func (q *Quota) Leave(peer string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.total--
	if q.peers[peer]--; q.peers[peer] == 0 {
		delete(q.peers, peer)
	}
}

// ipv6Peer is the length of the smallest IPv6 prefix of one site.
const ipv6Peer = 64

// PeerOf returns the peer of a TCP connection: its IPv4 address, or the /64 prefix of its
// IPv6 address.
func PeerOf(a *net.TCPAddr) string {
	address := a.AddrPort().Addr().Unmap().WithZone("")
	if address.Is6() {
		return netip.PrefixFrom(address, ipv6Peer).Masked().String()
	}
	return address.String()
}

// shareFactor bounds the share of one peer: at most shareFactor times the free rest. A peer
// that takes its whole share still leaves room to the others. A peer that is alone gets
// shareFactor/(shareFactor+1) of all.
const shareFactor = 4

// Shares bounds the use of a common resource by peers that have no fixed limits. The owner
// of the resource has to lock: the methods must not be called concurrently.
type Shares struct {
	Alone int // share of a peer that is alone; it does not change

	total int
	own   map[string]int
}

// Room reports whether the peer may have more of the resource.
func (s *Shares) Room(peer string) bool { return s.own[peer] < shareFactor*(s.All()-s.total) }

// All returns the size of the resource.
func (s *Shares) All() int { return s.Alone + s.Alone/shareFactor }

// Total returns the part in use by all peers together.
func (s *Shares) Total() int { return s.total }

// Of returns the part in use by one peer.
func (s *Shares) Of(peer string) int { return s.own[peer] }

// Add counts n more for the peer; fewer if n is negative.
func (s *Shares) Add(peer string, n int) {
	if s.own == nil {
		s.own = make(map[string]int)
	}
	s.total += n
	if _, known := s.own[peer]; !known {
		peer = strings.Clone(peer)
	}
	if s.own[peer] += n; s.own[peer] == 0 {
		delete(s.own, peer)
	}
}
