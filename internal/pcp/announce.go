package pcp

import (
	"container/heap"
	"net/netip"
	"sync"
	"time"

	"github.com/sessiond/sessiond/internal/pcp/wire"
)

// Kinds of messages that no request asked for. Each says that mappings were lost.
const (
	announcePCP    = "announce"       // RFC 6887 section 14.1
	announceNATPMP = "natpmp_address" // RFC 6886 section 3.2.1
)

// Announcements are the values of an Observer's kind.
func Announcements() []string { return []string{announcePCP, announceNATPMP} }

// repeatAfter is the time to the first repetition, which doubles each time.
const repeatAfter = 250 * time.Millisecond

// A notice tells one client, several times, that its mappings are lost.
type notice struct {
	inside netip.Addr
	began  time.Duration // uptime
	at     time.Duration // uptime of the next message
	sent   int
}

// An announcer keeps the notices until they are due. Its methods may be called from several
// goroutines.
type announcer struct {
	mu      sync.Mutex
	due     noticeHeap
	pending map[netip.Addr]*notice
	wake    chan struct{} // something is due sooner than before
}

func newAnnouncer() *announcer {
	return &announcer{pending: map[netip.Addr]*notice{}, wake: make(chan struct{}, 1)}
}

// add begins a notice, once more if one is under way.
func (a *announcer) add(inside netip.Addr, uptime time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := &notice{inside: inside, began: uptime, at: uptime}
	a.pending[inside] = n
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
		case a.pending[first.inside] != first: // ended, or begun once more
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
	if has := a.pending[n.inside]; has != nil && has.began == n.began {
		delete(a.pending, n.inside)
	}
}

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

// messageOf returns the message of a notice; false if it is over: the client is offline, has asked
// since, or has got as many as it shall. It goes to the port where clients listen and to the one
// from which this one asked last in turn: it may listen at one of them alone.
func (r *Responder) messageOf(n notice, now Moment) (m message, kind string, ok bool) {
	client, online := r.mappings.Client(n.inside)
	if !online || !client.Settings.Enabled || n.sent >= client.Settings.Announce {
		return m, "", false
	}
	state := r.clients.find(n.inside)
	if state == nil { // it has not asked since the server began
		state = &clientState{}
	}
	from, local, natpmp, at := state.heard()
	if from.IsValid() && at > n.began {
		return m, "", false
	}
	m.to, m.local = netip.AddrPortFrom(n.inside, wire.ClientPort), local
	if from.IsValid() && n.sent%2 > 0 {
		m.to = from
	}
	epoch := state.epoch(client.Since, now)
	if natpmp {
		m.octets = wire.AppendNATPMPAnswer(nil, &wire.NATPMPAnswer{Epoch: epoch, Outside: client.Outside})
		return m, announceNATPMP, true
	}
	m.octets = wire.AppendAnswer(nil, &wire.Answer{Opcode: wire.Announce, Epoch: epoch})
	return m, announcePCP, true
}
