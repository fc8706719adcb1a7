package control

import (
	"cmp"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Limits bound what callers can take of the daemon. A peer is who has an address (an
// IPv6 peer a /64) or, on this machine, an address and a user. Zero fields have the
// defaults of DefaultLimits. The numbers are those of each listener: whoever fills
// one leaves the others as they were.
type Limits struct {
	Connections        int           // at least 1
	ConnectionsPerPeer int           // at least 1
	Streams            int           // at least 1
	StreamsPerPeer     int           // at least 1
	StallTimeout       time.Duration // how long a reader of a stream may take nothing
}

// DefaultLimits are enough for a NOC with some dashboards, and cost no more than some
// tens of MB if all of them stall.
func DefaultLimits() Limits {
	return Limits{Connections: 256, ConnectionsPerPeer: 64, Streams: 128, StreamsPerPeer: 32, StallTimeout: 30 * time.Second}
}

func (l Limits) withDefaults() Limits {
	d := DefaultLimits()
	return Limits{
		Connections:        cmp.Or(l.Connections, d.Connections),
		ConnectionsPerPeer: cmp.Or(l.ConnectionsPerPeer, d.ConnectionsPerPeer),
		Streams:            cmp.Or(l.Streams, d.Streams),
		StreamsPerPeer:     cmp.Or(l.StreamsPerPeer, d.StreamsPerPeer),
		StallTimeout:       cmp.Or(l.StallTimeout, d.StallTimeout),
	}
}

func (l Limits) check() error {
	if l.Connections < 0 || l.ConnectionsPerPeer < 0 || l.Streams < 0 || l.StreamsPerPeer < 0 || l.StallTimeout < 0 {
		return errors.New("control: Limits cannot be negative")
	}
	return nil
}

// Why a connection or stream is refused.
const (
	RefusedLimit     = "limit"      // there are too many
	RefusedPeerLimit = "peer_limit" // its peer has too many
)

// RefusalCauses returns why connections and streams are refused.
func RefusalCauses() []string { return []string{RefusedLimit, RefusedPeerLimit} }

// limitError says which limit is reached, and what to do.
type limitError struct {
	cause string
	text  string
}

func (e *limitError) Error() string { return e.text }

// tally counts what peers have of one thing, up to limits.
type tally struct {
	what    string // the thing, in the plural; the limits are grpc.max_WHAT and so on
	most    int
	perPeer int

	mu    sync.Mutex
	total int
	peers map[string]int
}

func newTally(what string, most, perPeer int) *tally {
	return &tally{what: what, most: most, perPeer: perPeer, peers: map[string]int{}}
}

// enter counts one more of the peer, or returns which limit it would pass. Each
// enter without an error has one leave.
func (t *tally) enter(peer string) *limitError {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.peers[peer] >= t.perPeer:
		return &limitError{RefusedPeerLimit, fmt.Sprintf(
			"%s has %d %s open, and may have no more; end some, or raise grpc.max_%s_per_peer", peer, t.perPeer, t.what, t.what)}
	case t.total >= t.most:
		return &limitError{RefusedLimit, fmt.Sprintf(
			"%d %s are open here, and may be no more; end some, or raise grpc.max_%s", t.most, t.what, t.what)}
	}
	t.total++
	t.peers[peer]++
	return nil
}

func (t *tally) leave(peer string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.total--
	if t.peers[peer]--; t.peers[peer] == 0 {
		delete(t.peers, peer)
	}
}
