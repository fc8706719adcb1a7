package subscriber

// otherUser reports whether the event names another user than is known.
func (s *SessionState) otherUser(ev *Event) bool {
	return ev.UserName != "" && s.UserName != "" && ev.UserName != s.UserName
}

// Identify returns the identity under which the database knows the event's
// session, where that is another than the event's own SessionID; the view is that
// of the event's own. The caller looks again under that identity.
//
// Acct-Session-Id is not unique in the field: pppd's radius plugin gives one to all
// sessions that begin in the same second. An event of another user at another
// address is of another session, whatever its identifier; such a session is known
// by its address besides, until the other one is forgotten: what comes late of it would
// else not be known for its own. And one session may be heard of through several clients,
// two proxies before one BNG: see heardElsewhere.
func Identify(v View, ev *Event) SessionID {
	switch h := v.Holder; {
	case ev.Kind == EventAccountingOn || ev.Kind == EventAccountingOff || ev.Leg.IsValid() || !ev.Inside.IsValid():
		return ev.SessionID
	case h != nil && !v.HolderToldApart && ev.heardElsewhere(h):
		return h.SessionID
	case h != nil && h.Leg == ev.Inside && h.besideLeg(ev.SessionID) && agree(h.UserName, ev.UserName):
		if v.Session.Phase == Unknown && ev.Kind != EventStop {
			return ev.SessionID // the other one is forgotten: the record is adopted
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

// heardElsewhere reports whether the event is of the record's session, which was
// first reported through another RADIUS client: Acct-Session-Id, User-Name and
// address are the same, and nothing that both tell of the NAS differs.
func (ev *Event) heardElsewhere(r *Record) bool {
	return r.Client != ev.Client && !ev.ForeignInside && r.Client != "" && r.NAS == ev.NAS && r.AcctSessionID == ev.AcctSessionID &&
		r.Leg == ev.Leg && ev.UserName != "" && ev.UserName == r.UserName && ev.NASAddress == r.NASAddress
}
