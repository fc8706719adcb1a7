package radiusacct

import (
	"net/netip"
	"time"
)

// answered counts a request whose reply is being sent.
func (s *Server) answered(p *clientState, kind, result string, arrival, now time.Time) {
	s.options.Observer.Request(p.name, kind, result, now.Sub(arrival))
}

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

// replyFailed counts a reply that the kernel refused.
func (s *Server) replyFailed(err error) {
	s.losses.replies.Add(1)
	if suppressed, ok := s.sendFails.Allow(s.now()); ok {
		s.options.Logger.Warn("reply not sent", "error", err, "suppressed", suppressed)
	}
}
