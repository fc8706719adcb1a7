package pcp

import (
	"container/heap"
	"net/netip"
	"sync"
	"time"

	"github.com/sessiond/sessiond/internal/pcp/wire"
)

// Kinds of messages that no request asked for.
const (
	lossAnnounced = "announce"       // mappings were lost (RFC 6887 section 14.1)
	updated       = "mapping_update" // the outside address is another one (section 14.2)
)

// Announcements are the values of an Observer's kind.
func Announcements() []string { return []string{lossAnnounced, updated} }

const (
	// repeatAfter is the time to the first repetition, which doubles each time.
	repeatAfter = 250 * time.Millisecond
	// updateSends is how often a Mapping Update is sent.
	updateSends = 3
)

// A notice is a message to one client, which is repeated.
type notice struct {
	inside netip.Addr
	kind   string
	began  time.Duration // uptime
	at     time.Duration // uptime of the next message
	sent   int
}

type noticeKey struct {
	inside netip.Addr
	kind   string
}

// An announcer keeps the notices until they are due. Its methods may be called from several
// goroutines.
type announcer struct {
	mu      sync.Mutex
	due     noticeHeap
	pending map[noticeKey]*notice
	wake    chan struct{} // something is due sooner than before
}

func newAnnouncer() *announcer {
	return &announcer{pending: map[noticeKey]*notice{}, wake: make(chan struct{}, 1)}
}

// add begins a notice, once more if one is under way.
func (a *announcer) add(inside netip.Addr, kind string, uptime time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := &notice{inside: inside, kind: kind, began: uptime, at: uptime}
	a.pending[noticeKey{inside, kind}] = n
	heap.Push(&a.due, n)
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// next returns the first notice that is due, and counts a message of it; or the time until one is.
func (a *announcer) next(uptime time.Duration) (n notice, wait time.Duration, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for len(a.due) > 0 {
		first := a.due[0]
		switch {
		case a.pending[first.key()] != first: // ended, or begun once more
			heap.Pop(&a.due)
			continue
		case first.at > uptime:
			return n, first.at - uptime, false
		}
		n = *first
		first.at = uptime + repeatAfter<<first.sent
		first.sent++
		heap.Fix(&a.due, 0)
		return n, 0, true
	}
	return n, time.Minute, false
}

// end forgets a notice, unless it has begun once more.
func (a *announcer) end(n notice) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if has := a.pending[n.key()]; has != nil && has.began == n.began {
		delete(a.pending, n.key())
	}
}

func (n *notice) key() noticeKey { return noticeKey{n.inside, n.kind} }

// noticeHeap orders notices by their time.
type noticeHeap []*notice

func (h noticeHeap) Len() int           { return len(h) }
func (h noticeHeap) Less(i, j int) bool { return h[i].at < h[j].at }
func (h noticeHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *noticeHeap) Push(x any)        { *h = append(*h, x.(*notice)) }
func (h *noticeHeap) Pop() any {
	last := len(*h) - 1
	x := (*h)[last]
	*h = (*h)[:last]
	return x
}

// A message goes to a client.
type message struct {
	octets []byte
	to     netip.AddrPort
	local  netip.Addr // its source; the zero Addr lets the kernel choose
}

// messagesOf returns the messages of a notice, none if it is over: the client is offline, has
// asked since, or has got as many as it shall.
func (r *Responder) messagesOf(n notice, now Moment) []message {
	client, online := r.mappings.Client(n.inside)
	if !online || !client.Settings.Enabled || n.sent >= sendsOf(n.kind, client.Settings) {
		return nil
	}
	state := r.clients.find(n.inside)
	if state == nil { // it has not asked since the server began: where it is told is left to it
		state = &clientState{}
	}
	from, local, natpmp, at := state.heard()
	listens := netip.AddrPortFrom(n.inside, wire.ClientPort)
	switch {
	case from.IsValid() && at > n.began:
		return nil
	case !from.IsValid():
		from = listens
	}
	epoch := state.epoch(client.Since, now)
	switch {
	case natpmp: // RFC 6886 section 3.2.1
		answer := wire.NATPMPAnswer{Epoch: epoch, Outside: client.Outside}
		return []message{{wire.AppendNATPMPAnswer(nil, &answer), listens, local}}
	case n.kind == lossAnnounced:
		answer := wire.Answer{Opcode: wire.Announce, Epoch: epoch}
		return []message{{wire.AppendAnswer(nil, &answer), listens, local}}
	}
	var all []message
	for _, m := range r.mappings.List(n.inside) {
		if m.Static {
			continue
		}
		w := wish{Request: &wire.Request{}, client: client, now: now}
		answer := wire.Answer{Opcode: wire.Map, Epoch: epoch, Target: wire.Target{Nonce: m.Nonce, Protocol: m.Protocol, InsidePort: m.Inside.Port()}}
		if m.Peer.IsValid() {
			answer.Opcode, answer.Remote = wire.Peer, m.Peer
		}
		w.tell(&m, &answer)
		all = append(all, message{wire.AppendAnswer(nil, &answer), from, local})
	}
	return all
}

func sendsOf(kind string, s *GroupSettings) int {
	if kind == updated {
		return min(updateSends, s.Announce)
	}
	return s.Announce
}
