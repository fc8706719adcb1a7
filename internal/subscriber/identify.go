package subscriber

import "slices"

// Identify returns the identity under which the database knows the event's
// session, if it differs from the event's own SessionID. The view is the view
// of that own SessionID; the caller reads again under the identity returned.
//
// Acct-Session-Id is not unique in the field: pppd's radius plugin gives one
// identifier to all sessions that begin in the same second. So an event of
// another user at another address is of another session. That session gets its
// address as part of its identity until the first session is forgotten; without
// it, late events of the second could not be matched. One session may also be
// reported through several clients, such as two proxies in front of one BNG:
// see heardElsewhere.
func Identify(v View, ev *Event) SessionID {
	switch h := v.Holder; {
	case ev.Kind == EventAccountingOn || ev.Kind == EventAccountingOff || ev.Leg.IsValid() || !ev.Inside.IsValid():
		return ev.SessionID
	case h != nil && !v.HolderToldApart && ev.heardElsewhere(h):
		return h.SessionID
	case h != nil && h.Leg == ev.Inside && h.besideLeg(ev.SessionID) && agree(h.UserName, ev.UserName):
		if v.Session.Phase == Unknown && ev.Kind != EventStop {
			return ev.SessionID // the first session is forgotten: the record is adopted
		}
		return h.SessionID
	case v.Session.Phase == Unknown || !v.Session.Inside.IsValid() || v.Session.Inside == ev.Inside:
		return ev.SessionID
	case v.Session.otherUser(ev):
		id := ev.SessionID
		id.Leg = ev.Inside
		return id
	}
	return ev.SessionID
}

// heardElsewhere reports whether the event is of the record's session, which
// another RADIUS client reported first: Acct-Session-Id, User-Name and address
// are equal, and so is the NAS as far as both name it.
func (ev *Event) heardElsewhere(r *Record) bool {
	return r.Client != ev.Client && !ev.ForeignInside && r.Client != "" && r.NAS == ev.NAS && r.AcctSessionID == ev.AcctSessionID &&
		r.Leg == ev.Leg && ev.UserName != "" && ev.UserName == r.UserName && ev.NASAddress == r.NASAddress
}

// A multilink is one record with several accounting sessions, its links, which
// share an Acct-Multi-Session-Id and the address (SES-20). The record ends with
// the last of them.

// maxLinks bounds the links and services of one record, because each event of
// any of them repeats all in the change feed. Those beyond the bound find their
// record, and do not keep it.
const maxLinks = 32

// belongsTo reports whether the record is the session's.
func (r *Record) belongsTo(id SessionID) bool {
	if len(r.Links) == 0 {
		return r.SessionID == id
	}
	return r.NASOnly() == id.NASOnly() && slices.Contains(r.Links, id.AcctSessionID)
}

// joins reports whether the event is of another link of the record's multilink.
func (ev *Event) joins(r *Record) bool {
	return ev.MultiSessionID != "" && ev.MultiSessionID == r.MultiSessionID && ev.NASOnly() == r.NASOnly()
}

func (r *Record) addLink(id string) {
	if len(r.Links) < maxLinks && !slices.Contains(r.Links, id) {
		r.Links = append(slices.Clone(r.Links), id)
	}
}

// dropLink takes a link that has ended out of the record.
func (r *Record) dropLink(link string) {
	r.Links = slices.DeleteFunc(slices.Clone(r.Links), func(l string) bool { return l == link })
}

// A BNG may account services, queues, policers or hosts beside the session
// (SES-21): with the session's address and User-Name and an Acct-Session-Id of
// their own. Such a service begins and ends while its subscriber is online, so
// it must not touch the session. Vendors mark it in ways of their own
// (Event.Service). Without a vendor's mark, it is known by an
// Acct-Multi-Session-Id that equals the Acct-Session-Id of the session at the
// address.

// ignoreService leaves the session alone, because the service does not keep its
// subscriber online. Without a vendor's mark, a late event of a service would be taken for
// a session's own once the session is over; so the end of the service is remembered.
func (s *decider) ignoreService() Decision {
	d := Decision{Verdict: ServiceIgnored}
	if !s.ev.Service && s.ev.Kind == EventStop {
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
