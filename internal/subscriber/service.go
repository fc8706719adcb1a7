package subscriber

// A BNG may account services, queues, policers or hosts beside the session
// (SES-21): with the session's address and User-Name and an Acct-Session-Id of
// their own. Such a service begins and ends while its subscriber is online, so
// it must not touch the session. Vendors mark it in ways of their own
// (Event.Service). Without a vendor's mark, it is known by an
// Acct-Multi-Session-Id that equals the Acct-Session-Id of the session at the
// address.

// ignoresService reports whether the event is of a service that does not keep
// its subscriber online.
func (s *decider) ignoresService() bool {
	if !s.ev.Service && !s.ev.within(s.view.Holder) {
		return false
	}
	s.ev.Service = true
	return !s.ev.CountServices || !s.ev.countsFor(s.view.Holder)
}

// ignoreService leaves the session alone. Without a vendor's mark, a late event
// of a service would be taken for a session's own once the session is over; so
// the end of the service is remembered.
func (s *decider) ignoreService(marked bool) Decision {
	d := Decision{Verdict: ServiceIgnored}
	if !marked && s.ev.Kind == EventStop {
		s.start = s.ev.Began()
		d.Session = s.closed(ReasonStop)
	}
	return d
}

// within reports whether the event is of a service within the record's session.
// Links of a multilink may share the identifier of the first link as
// Acct-Multi-Session-Id; they are no services.
func (ev *Event) within(r *Record) bool {
	return r != nil && ev.MultiSessionID != "" && ev.MultiSessionID == r.AcctSessionID &&
		ev.MultiSessionID != r.MultiSessionID && ev.AcctSessionID != r.AcctSessionID &&
		ev.LinkCount <= 1 && ev.NASOnly() == r.NASOnly()
}

// countsFor reports whether the service is one of the record's session.
func (ev *Event) countsFor(r *Record) bool {
	return r != nil && ev.NASOnly() == r.NASOnly() && agree(ev.UserName, r.UserName) &&
		agree(ev.ParentSessionID, r.AcctSessionID)
}

// linkService enters a service into the record of its session, as a link.
func (r *Record) linkService(ev *Event) {
	if len(r.Links) == 0 {
		r.Links = []string{r.AcctSessionID}
	}
	r.addLink(ev.AcctSessionID)
}

// servesIn reports whether the record is of a service of the event's session
// that was reported before the session itself.
func (r *Record) servesIn(ev *Event) bool {
	return r.MultiSessionID != "" && r.MultiSessionID == ev.AcctSessionID && r.AcctSessionID != ev.AcctSessionID &&
		r.MultiSessionID != ev.MultiSessionID && len(r.Links) <= 1 && r.NASOnly() == ev.NASOnly()
}
