package pcp

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/sessiond/sessiond/internal/pcp/wire"
)

// A clientTable knows the clients that have asked. It has room for those that are online, or that
// may ask for others, only: nothing is kept of other addresses.
type clientTable struct {
	mu     sync.Mutex
	states map[netip.Addr]*clientState
}

// A clientState is what is known of one client.
type clientState struct {
	limiter *rate.Limiter

	mu     sync.Mutex
	since  time.Time      // of the present epoch
	began  time.Duration  // uptime at which the epoch began; negative before the server did
	from   netip.AddrPort // its latest request came from there
	local  netip.Addr     // and asked this address of the server
	natpmp bool           // and was of NAT-PMP
	at     time.Duration  // uptime
}

func newClientTable() clientTable { return clientTable{states: map[netip.Addr]*clientState{}} }

// find returns what is known of a client, nil for nothing.
func (t *clientTable) find(a netip.Addr) *clientState {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.states[a]
}

// note notes a request of a client, and returns nil if it asks too often.
func (t *clientTable) note(a *asked) *clientState {
	s, cost := t.findOrAdd(a.Source.Addr()), 1
	if !wire.IsNATPMP(a.Octets) && wire.OpcodeOf(a.Octets) == wire.Peer {
		cost = peerCost
	}
	if !s.limiter.AllowN(a.now.limits(), cost) {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.from, s.local, s.natpmp, s.at = a.Source, a.Local, wire.IsNATPMP(a.Octets), a.now.Uptime
	return s
}

func (t *clientTable) findOrAdd(a netip.Addr) *clientState {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.states[a]
	if s == nil {
		s = &clientState{limiter: rate.NewLimiter(clientRate, clientBurst)}
		t.states[a] = s
	}
	return s
}

// epoch returns the seconds since the client's epoch began (RFC 6887 section 8.5). The wall clock
// tells only how old the epoch is when it is first seen; then the uptime counts, so a step of the
// wall clock is not seen. The epoch of a client that is no subscriber, since zero, is the server's.
func (s *clientState) epoch(since time.Time, now Moment) uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !since.Equal(s.since) {
		s.since, s.began = since, now.Uptime-max(0, now.Wall.Sub(since))
	}
	return uint32((now.Uptime - s.began) / time.Second)
}

// heard returns where the client's latest request came from, and when.
func (s *clientState) heard() (from netip.AddrPort, local netip.Addr, natpmp bool, at time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.from, s.local, s.natpmp, s.at
}

// idleTime is the time without a request after which a client without mappings is forgotten.
const idleTime = time.Hour

// forget forgets clients that are not online, and idle ones that have no mappings.
func (r *Responder) forget(now Moment) {
	r.clients.mu.Lock()
	var idle []netip.Addr
	for a, s := range r.clients.states {
		if _, _, _, at := s.heard(); now.Uptime-at >= idleTime {
			idle = append(idle, a)
		}
	}
	r.clients.mu.Unlock()
	for _, a := range idle {
		if _, online := r.mappings.Client(a); online && len(r.mappings.List(a)) > 0 {
			continue
		}
		r.clients.mu.Lock()
		delete(r.clients.states, a)
		r.clients.mu.Unlock()
	}
}
