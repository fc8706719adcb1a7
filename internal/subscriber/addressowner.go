package subscriber

// AddressOwner says which session holds the event's address, from the view of
// the session that wants it.
type AddressOwner uint8

// The address owners.
const (
	OwnerNone      AddressOwner = iota // no session
	OwnerSelf                          // the session itself
	OwnerAdoptable                     // a record that waits for its session
	OwnerLink                          // another link of the session's multilink
	OwnerOlder                         // another session, which began no later
	OwnerNewer                         // another session, which began later
	OwnerForeign                       // a session that another RADIUS client reports
	owners
)

// findOwner finds the owner; the first condition that holds decides. A session that takes
// the address doubtfully begins with its arrival.
func (s *decider) findOwner() AddressOwner {
	holder := s.view.Holder
	switch {
	case holder == nil:
		return OwnerNone
	case s.own == holder:
		return OwnerSelf
	case s.foreign(holder):
		return OwnerForeign
	case s.adoptable(holder):
		return OwnerAdoptable
	case s.ev.Service, s.ev.joins(holder):
		return OwnerLink
	case s.replayed(), s.beganBefore(holder):
		return OwnerNewer
	}
	return OwnerOlder
}

// foreign reports whether another RADIUS client reports the holder, so that
// this event cannot take its address. Only its own client can end the holder:
// by a Stop, a restart of the NAS or silence. A removal that a guard suspends
// counts as ended.
func (s *evidence) foreign(holder *Record) bool {
	return s.view.HolderApart && holder.RemovalHeld == ReasonNone
}

// replayed reports whether the event may be an old packet of a session that
// ended. It claims that another session began under the same identifier, and
// its arrival is the only evidence. That is too little to evict an online
// subscriber. A Start counts as another one if its packet differs.
func (s *decider) replayed() bool {
	if s.session.Phase != Closed || s.relation != RelationLater {
		return false
	}
	return s.samePacket() || s.undated() && (s.ev.Kind != EventStart || s.session.Digest == 0)
}

// beganBefore reports whether the event's session began before the one that holds
// the address.
func (s *decider) beganBefore(holder *Record) bool {
	began := s.start
	if s.ev.NASOnly() != holder.NASOnly() && s.ev.Kind == EventStart && s.ev.At.Before(began) {
		began = s.ev.At // a restart of its own NAS says nothing about the holder's
	}
	switch {
	case holder.StartedAt.Sub(began) < wholeSecond && !s.heardSince(holder):
		return false // of two in the same second the later arrival wins
	case s.onlineSince(holder):
		return false
	case s.session.Doubtful && s.relation == RelationLapsed && !holder.UpdatedAt.After(holder.StartedAt):
		return false // the holder came as doubtfully, and no event of it has come since
	case s.inOrder(holder):
		s.doubtful, s.start = true, s.ev.Latest
		return false
	}
	return true
}

// heardSince reports whether the holder had an event at this address after the
// time of this Start, which arrived late. The holder may have moved here, and
// have begun long before.
func (s *decider) heardSince(holder *Record) bool {
	return s.ev.Kind == EventStart && holder.UpdatedAt.After(s.ev.At.Add(reordering))
}

// onlineSince reports whether an Interim of an unknown session shows it online
// after the holder's last event, if both began at about the same time.
// Acct-Session-Time may count from somewhat before the Start, so it cannot
// order the two more exactly.
func (s *decider) onlineSince(holder *Record) bool {
	return s.reckoned(s.relation) && !holder.StartedAt.After(s.start.Add(sessionTimeSlack)) &&
		s.newer(holder.UpdatedAt.Add(jitter))
}

// inOrder reports whether a Start came after that of the holder, from the same
// NAS and without a contrary delay, but is far behind by the NAS's clock. The
// later arrival gets the address: otherwise its subscriber would use the
// holder's ports. If that was wrong, the holder's next Interim corrects it.
func (s *decider) inOrder(holder *Record) bool {
	return s.ev.Kind == EventStart && s.ev.NASOnly() == holder.NASOnly() &&
		!s.ev.Latest.Before(holder.StartedAt) && s.ev.farBehind()
}

// adoptable reports whether the record has no accounting session of its own and
// may be the event's: written back from a binding, put by hand for this user,
// or left by a session that now reports more or fewer addresses.
func (s *evidence) adoptable(r *Record) bool {
	switch {
	case s.foreign(r), s.outlived(r):
		return false
	case r.anonymous(), r.besideLeg(s.ev.SessionID) && agree(r.UserName, s.ev.UserName), r.servesIn(&s.ev):
		return true
	case r.Unconfirmed:
		return r.UserName == "" || s.ev.UserName == "" || r.UserName == s.ev.UserName
	}
	return r.SessionID == SessionID{} && r.UserName != "" && r.UserName == s.ev.UserName
}

// outlived reports whether a record that was written back is of a session
// before the event's. A session that starts after the address was known to be
// held finds another session there, even if that session's identity is lost
// (SES-07).
func (s *evidence) outlived(r *Record) bool {
	if s.ev.Kind != EventStart || !r.Unconfirmed || r.AcctSessionID == s.ev.AcctSessionID {
		return false
	}
	if s.ev.MultiSessionID != "" {
		return false // may be another link of the session at this address
	}
	return s.ev.At.After(VersionTime(r.Version).Add(jitter))
}

// stoppable reports whether a Stop, of a session that the database has
// forgotten, means this record, which was written back from a binding. A Stop
// ends only its own session (SES-04), so the address alone proves nothing.
func (s *evidence) stoppable(r *Record) bool {
	if !r.Unconfirmed || s.ev.At.Before(r.StartedAt) || !s.adoptable(r) {
		return false
	}
	if r.AcctSessionID != "" {
		return r.AcctSessionID == s.ev.AcctSessionID
	}
	return r.UserName != "" && r.UserName == s.ev.UserName
}

// anonymous reports whether the record has nothing that identifies its session
// or subscriber.
func (r *Record) anonymous() bool {
	return r.SessionID == SessionID{} && r.UserName == "" && r.CallingStationID == ""
}
