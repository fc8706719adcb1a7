package radiusacct

import (
	"errors"
	"net/netip"
	"sync"
)

// maxHandshakes bounds the connections from one source that have not yet shown
// who they are: BNGs connect one by one.
const maxHandshakes = 8

// Why a connection is refused, as handed to [Observer.ConnectionRefused].
const (
	RefusedHandshake = "handshake"      // TLS failed, or the certificate is not valid
	RefusedUnknown   = "unknown_client" // the certificate is valid, but of no client
	RefusedLimit     = "limit"          // too many connections
)

// A refusal is why a connection is not served.
type refusal struct {
	cause string // one of the Refused constants
	err   error
}

var errTooMany = errors.New("too many connections")

// An admission counts connections and bounds them: in all, of a client, and of
// a source that is not yet known.
type admission struct {
	limit       int
	clientLimit int

	mu      sync.Mutex
	total   int
	sources map[netip.Prefix]int // in their handshake
	peers   map[*peer]int
}

func newAdmission(limit, clientLimit int) *admission {
	return &admission{
		limit: limit, clientLimit: clientLimit,
		sources: make(map[netip.Prefix]int), peers: make(map[*peer]int),
	}
}

// enter admits a connection to its handshake, if there is room. It ends with
// leave, or goes on with admit.
func (a *admission) enter(source netip.Addr) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	key := networkOfSource(source)
	if a.total >= a.limit || a.sources[key] >= maxHandshakes {
		return false
	}
	a.total++
	a.sources[key]++
	return true
}

// leave ends a connection that failed its handshake.
func (a *admission) leave(source netip.Addr) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.total--
	lessen(a.sources, networkOfSource(source))
}

// admit lets in a connection whose client is known, until dismiss. One that is
// refused has left.
func (a *admission) admit(source netip.Addr, p *peer) *refusal {
	a.mu.Lock()
	defer a.mu.Unlock()
	lessen(a.sources, networkOfSource(source))
	if a.peers[p] >= a.clientLimit {
		a.total--
		return &refusal{RefusedLimit, errTooMany}
	}
	a.peers[p]++
	return nil
}

// dismiss ends a connection that was let in.
func (a *admission) dismiss(p *peer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.total--
	lessen(a.peers, p)
}

func lessen[K comparable](counts map[K]int, key K) {
	if counts[key]--; counts[key] == 0 {
		delete(counts, key)
	}
}

// networkOfSource takes an IPv6 network for one source: a host has all of it.
func networkOfSource(source netip.Addr) netip.Prefix {
	bits := 32
	if source.Is6() {
		bits = 64
	}
	p, _ := source.Prefix(bits) // fits the family
	return p
}
