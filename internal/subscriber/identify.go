package subscriber

// otherUser reports whether the event names another user than the known one.
func (s *SessionState) otherUser(ev *Event) bool {
	return ev.UserName != "" && s.UserName != "" && ev.UserName != s.UserName
}

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
