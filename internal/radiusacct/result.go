package radiusacct

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sessiond/sessiond/internal/radiusacct/wire"
)

// Results of a request, for [Observer.Request]. Each corresponds to one counter of RFC 4671
// section 7; ok, no_record and duplicate are answered.
const (
	ResultOK               = "ok"                // recorded and answered (Responses)
	ResultNoRecord         = "no_record"         // answered and not recorded: it has nothing to record (NoRecords)
	ResultDuplicate        = "duplicate"         // answered from the cache (DupRequests and Responses)
	ResultInProgress       = "in_progress"       // duplicate of a request that is being recorded (DupRequests)
	ResultUnknownClient    = "unknown_client"    // source address belongs to no client (InvalidRequests)
	ResultBadAuthenticator = "bad_authenticator" // Request or Message-Authenticator wrong or missing (BadAuthenticators)
	ResultMalformed        = "malformed"         // lengths wrong, or a mandatory attribute missing (MalformedRequests)
	ResultUnknownType      = "unknown_type"      // packet code is not served on this port (UnknownTypes)
	ResultDropped          = "dropped"           // queue or cache full, or replaced by its sender (PacketsDropped)
	ResultStoreFailed      = "store_failed"      // the Recorder refused; the NAS will retransmit (PacketsDropped)
)

// Kinds of request, for [Observer.Request]. TypeUnread is a request that was refused before
// its attributes were read.
const (
	TypeStart         = "start"
	TypeInterim       = "interim"
	TypeStop          = "stop"
	TypeAccountingOn  = "accounting_on"
	TypeAccountingOff = "accounting_off"
	TypeStatusServer  = "status_server"
	TypeOther         = "other" // an Acct-Status-Type without effect on sessions, or none
	TypeUnread        = "unread"
)

// A fault is the reason why a request is not answered.
type fault struct {
	result string
	reason string
	// A fatal fault makes the following octets of the connection unreliable (RFC 6613
	// section 2.6.4).
	fatal bool
}

func (f *fault) Error() string { return f.reason }

// faultOf returns the fault of a packet that wire cannot read.
func faultOf(m *wire.Malformed) *fault { return &fault{ResultMalformed, m.Reason, m.Fatal} }

var (
	errUnknownCode        = &fault{ResultUnknownType, "packet code is not served on an accounting port", false}
	errStatusOff          = &fault{ResultUnknownType, "Status-Server is switched off", false}
	errAuthenticator      = &fault{ResultBadAuthenticator, "Request Authenticator does not match the secret", true}
	errMessageAuth        = &fault{ResultBadAuthenticator, "Message-Authenticator does not match the secret", true}
	errMessageAuthMissing = &fault{ResultBadAuthenticator, "Message-Authenticator missing", false}
	errInProgress         = &fault{ResultInProgress, "duplicate of a request in progress", false}
	errCacheFull          = &fault{ResultDropped, "too many requests of this client are in progress", false}
	errStatusRate         = &fault{ResultDropped, "too many Status-Server of this client", false}
	errUnhealthy          = &fault{ResultStoreFailed, "Status-Server while accounting cannot be recorded", false}
)

// routine reports whether the fault is usual under load, so that it is counted but not
// logged.
func (f *fault) routine() bool {
	switch f.result {
	case ResultInProgress, ResultDropped, ResultStoreFailed:
		return true
	}
	return f == errStatusOff
}

// The pairs of kind and result that are counted.

// An Outcome is a pair of labels of [Observer.Request].
type Outcome struct {
	Kind   string // one of the Type constants
	Result string // one of the Result constants
}

// Outcomes returns all possible pairs for the requests of a client; no other pair is ever
// counted. A counter that exists from the start, with 0, shows its first event as an
// increase.
func Outcomes() []Outcome {
	var all []Outcome
	add := func(kinds []string, results ...string) {
		for _, kind := range kinds {
			for _, result := range results {
				all = append(all, Outcome{kind, result})
			}
		}
	}
	session := []string{TypeStart, TypeInterim, TypeStop, TypeAccountingOn, TypeAccountingOff}
	add(session, ResultOK, ResultStoreFailed)
	add(append(session, TypeOther), ResultNoRecord, ResultDuplicate, ResultInProgress, ResultMalformed, ResultDropped)
	add([]string{TypeStatusServer},
		ResultOK, ResultMalformed, ResultBadAuthenticator, ResultUnknownType, ResultDropped, ResultStoreFailed)
	add([]string{TypeUnread}, ResultMalformed, ResultBadAuthenticator, ResultUnknownType, ResultDropped)
	return all
}

// StrangerOutcomes returns all possible pairs for datagrams from unknown sources.
func StrangerOutcomes() []Outcome { return []Outcome{{TypeUnread, ResultUnknownClient}} }

// Counts and log lines of requests without a reply.

// overloaded counts and forgets a request for which its queue has no room.
func (s *Server) overloaded(r *request) {
	r.duplicates.abandon(r.exchange)
	s.options.Observer.Request(r.peer.name, r.kind, ResultDropped, 0)
	r.recycle()
}

// unknownClient counts a datagram from an unknown source.
func (s *Server) unknownClient(source netip.AddrPort, now time.Time) {
	s.options.Observer.Request("", TypeUnread, ResultUnknownClient, 0)
	if suppressed, ok := s.strangers.Allow(now); ok {
		s.options.Logger.Warn("RADIUS from an unknown client ignored", "source", source, "suppressed", suppressed)
	}
}

// refused counts a request that gets no answer.
func (s *Server) refused(in *incoming, kind string, f *fault) {
	p := in.client.peer
	s.options.Observer.Request(p.name, kind, f.result, 0)
	if f.routine() {
		return
	}
	if suppressed, ok := p.complaints.Allow(in.arrival); ok {
		s.options.Logger.Warn("RADIUS request ignored", "client", p.name, "source", in.source,
			"result", f.result, "reason", f.reason, "suppressed", suppressed)
	}
}

// notRecorded counts a request that the Recorder refused.
func (s *Server) notRecorded(r *request, err error) {
	s.options.Observer.Request(r.peer.name, r.kind, ResultStoreFailed, 0)
	if suppressed, ok := s.failures.Allow(s.now()); ok {
		s.options.Logger.Error("accounting not recorded and left unanswered", "client", r.peer.name,
			"error", err, "suppressed", suppressed)
	}
}

// replyFailed counts a reply that the kernel refused. It is not sent again: a retransmission
// finds it in the cache.
func (s *Server) replyFailed(err error) (again bool) {
	s.losses.replies.Add(1)
	if suppressed, ok := s.sendFails.Allow(s.now()); ok {
		s.options.Logger.Warn("reply not sent", "error", err, "suppressed", suppressed)
	}
	return false
}

// Losses without a request.

// Losses counts losses that an Observer does not see.
type Losses struct {
	Datagrams uint64 // the kernel dropped them unread, because the socket's buffer was full
	Replies   uint64 // the kernel refused to send them; a retransmission finds them in the cache
	Accepts   uint64 // accept(2) failed, for want of file descriptors for example
}

type losses struct {
	replies, accepts atomic.Uint64

	mu        sync.Mutex
	datagrams uint64
	seen      []uint32 // last drop counter of each socket
}

// Losses returns the losses since New.
func (s *Server) Losses() Losses {
	return Losses{
		Datagrams: s.losses.dropped(s.sockets), Replies: s.losses.replies.Load(), Accepts: s.losses.accepts.Load(),
	}
}

// dropped sums up the datagrams that the kernel has dropped. Its counters have 32 bits and
// wrap. A socket whose counter cannot be read, such as a closed one, adds nothing.
func (l *losses) dropped(sockets []*socket) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.seen == nil {
		l.seen = make([]uint32, len(sockets))
	}
	for i, sock := range sockets {
		drops, err := sock.batches.Drops()
		if err != nil {
			continue
		}
		l.datagrams += uint64(drops - l.seen[i])
		l.seen[i] = drops
	}
	return l.datagrams
}
