package radsec

import (
	"errors"
	"io"
	"net/netip"
	"slices"
	"sync"
)

// Bounds on connections whose client is not known yet.
const (
	maxHandshakes   = 8 // from one source: BNGs connect one by one
	handshakesShare = 4 // bound on handshakes: the connections of clients, divided by this
)

// Causes of the refusal of a connection, for [Service.Refused].
const (
	RefusedHandshake = "handshake"      // TLS failed, or the certificate is not valid
	RefusedUnknown   = "unknown_client" // the certificate is valid, but of no client
	RefusedLimit     = "limit"          // too many connections
)

// RefusalCauses returns all causes for which a connection of an unknown client may be
// refused.
func RefusalCauses() []string { return []string{RefusedHandshake, RefusedUnknown, RefusedLimit} }

// A refusal is the reason why a connection is not served.
type refusal struct {
	cause string // one of the Refused constants
	err   error
}

var (
	tooMany = &refusal{RefusedLimit, errors.New("too many connections")}
	overrun = &refusal{RefusedLimit, errors.New("too many connections that show no certificate")}
)

// An admission counts and bounds connections: those of all clients, those of each client,
// and separately those in their handshake.
//
// A peer in its handshake may be anyone. If there are too many, a new one replaces the
// oldest of the network that has the most. So a client has time for its handshake, unless
// strangers fill the whole share meanwhile.
type admission struct {
	limit          int
	clientLimit    int
	handshakeLimit int

	mu         sync.Mutex
	total      int
	clients    map[string]int
	handshakes []*handshake         // in order of arrival
	sources    map[netip.Prefix]int // of handshakes
	networks   map[netip.Prefix]int // of handshakes
}

// A handshake is a connection whose client is not known yet.
type handshake struct {
	source  netip.Prefix
	network netip.Prefix
	conn    io.Closer
	overrun bool // a newer handshake has taken its place
}

func newAdmission(limit, clientLimit int) *admission {
	return &admission{
		limit: limit, clientLimit: clientLimit, handshakeLimit: max(limit/handshakesShare, maxHandshakes),
		clients: make(map[string]int), sources: make(map[netip.Prefix]int), networks: make(map[netip.Prefix]int),
	}
}

// enter admits a connection to its handshake, in the place of another if necessary. It
// returns nil when the source has too many. Either leave or admit must follow.
func (a *admission) enter(source netip.Addr, conn io.Closer) *handshake {
	h := &handshake{source: prefixOf(source, 32, 64), network: prefixOf(source, 24, 48), conn: conn}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.sources[h.source] >= maxHandshakes {
		return nil
	}
	if len(a.handshakes) >= a.handshakeLimit {
		a.overrunLocked()
	}
	a.handshakes = append(a.handshakes, h)
	a.sources[h.source]++
	a.networks[h.network]++
	return h
}

// overrunLocked ends the oldest handshake of the network that has the most.
func (a *admission) overrunLocked() {
	victim := a.handshakes[0]
	for _, h := range a.handshakes[1:] {
		if a.networks[h.network] > a.networks[victim.network] {
			victim = h
		}
	}
	victim.overrun = true
	a.removeLocked(victim)
	_ = victim.conn.Close() // its handshake fails
}

func (a *admission) removeLocked(h *handshake) {
	i := slices.Index(a.handshakes, h)
	a.handshakes = slices.Delete(a.handshakes, i, i+1)
	lessen(a.sources, h.source)
	lessen(a.networks, h.network)
}

// leave ends a failed handshake, and returns a refusal if another one had taken its place.
func (a *admission) leave(h *handshake) *refusal {
	a.mu.Lock()
	defer a.mu.Unlock()
	if h.overrun {
		return overrun
	}
	a.removeLocked(h)
	return nil
}

// admit ends a handshake and admits its connection to those of the client, until release. A
// refused one needs no leave.
func (a *admission) admit(h *handshake, client string) *refusal {
	a.mu.Lock()
	defer a.mu.Unlock()
	if h.overrun {
		return overrun
	}
	a.removeLocked(h)
	if a.total >= a.limit || a.clients[client] >= a.clientLimit {
		return tooMany
	}
	a.total++
	a.clients[client]++
	return nil
}

// release ends an admitted connection.
func (a *admission) release(client string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.total--
	lessen(a.clients, client)
}

func lessen[K comparable](counts map[K]int, key K) {
	if counts[key]--; counts[key] == 0 {
		delete(counts, key)
	}
}

// prefixOf returns the network of an address, with the given bits of its family.
func prefixOf(a netip.Addr, bits4, bits6 int) netip.Prefix {
	bits := bits4
	if a.Is6() {
		bits = bits6
	}
	p, _ := a.Prefix(bits) // fits the family
	return p
}
