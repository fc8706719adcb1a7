package subscriber

// AddressOwner is who holds the event's address. It is looked at when a session
// wants an address.
type AddressOwner uint8

// The holdings.
const (
	HoldingFree      AddressOwner = iota // nobody
	HoldingOwn                           // the session itself
	HoldingAdoptable                     // a record that waits for its session
	HoldingLink                          // another link of the session's multilink
	HoldingOlder                         // another session, which began no later
	HoldingNewer                         // another session, which began later
	HoldingForeign                       // a session that another client reports
	holdings
)

func (s *classifier) hold() AddressOwner {
	holder := s.view.Holder
	switch {
	case holder == nil:
		return HoldingFree
	case s.own == holder:
		return HoldingOwn
	case s.foreign(holder):
		return HoldingForeign
	case s.adoptable(holder):
		return HoldingAdoptable
	case s.ev.Service, s.ev.joins(holder):
		return HoldingLink
	case s.replayed(), s.beganBefore(holder):
		return HoldingNewer
	}
	return HoldingOlder
}

// foreign reports whether the holder is none of the event's client, and so is not taken
// over from. Whether it is gone its own client tells, by Stop, a restart of the NAS or
// silence; a removal that a guard holds is such a word.
func (s *classifier) foreign(holder *Record) bool {
	return s.view.HolderApart && holder.RemovalHeld == ReasonNone
}

// replayed reports whether the event may be an old one of a session that ended: it says
// that another began under the same identifier, and nothing shows that but when it came.
// Nobody who is online is put out for that. A Start is another one if its packet is.
func (s *classifier) replayed() bool {
	if s.session.Phase != Closed || s.standing != StandingLater {
		return false
	}
	return s.samePacket() || s.undated() && (s.ev.Kind != EventStart || s.session.Digest == 0)
}

// beganBefore reports whether the event's session began before the one that holds
// the address.
func (s *classifier) beganBefore(holder *Record) bool {
	began := s.start
	if s.ev.NASOnly() != holder.NASOnly() && s.ev.Kind == EventStart && s.ev.At.Before(began) {
		began = s.ev.At // that its own NAS restarted tells nothing of this one
	}
	switch {
	case holder.StartedAt.Sub(began) < wholeSecond && !s.heardSince(holder):
		return false // of two in the same second the later arrival wins
	case s.onlineSince(holder):
		return false
	case s.session.Doubtful && s.standing == StandingLapsed && !holder.UpdatedAt.After(holder.StartedAt):
		return false // that one came as doubtfully, and nothing was heard of it since
	case s.inOrder(holder):
		s.doubtful = true
		return false
	}
	return true
}

// heardSince reports whether a Start came so late that the holder was heard of, at the
// address, after it: that one may have moved there, and began long before.
func (s *classifier) heardSince(holder *Record) bool {
	return s.ev.Kind == EventStart && holder.UpdatedAt.After(s.ev.At.Add(reordering))
}

// onlineSince reports whether an Interim is of a session that nothing was known of, and
// tells that it is online after all that was heard of the holder, which began about
// when it did: the count may begin somewhat before the Start, and says no more than that.
func (s *classifier) onlineSince(holder *Record) bool {
	return s.reckoned(s.standing) && !holder.StartedAt.After(s.start.Add(sessionTimeSlack)) &&
		s.newer(holder.UpdatedAt.Add(jitter))
}

// inOrder reports whether a Start came after that of the holder, from the same NAS
// and without a delay that would tell otherwise, but far behind by the NAS's clock.
// The later arrival gets the address: as the other one's session it would use the
// other one's ports. If that was wrong, the other one's next Interim mends it.
func (s *classifier) inOrder(holder *Record) bool {
	return s.ev.Kind == EventStart && s.ev.NASOnly() == holder.NASOnly() &&
		!s.ev.Latest.Before(holder.StartedAt) && s.ev.farBehind()
}

// adoptable reports whether the record has no accounting session of its own and
// may be the event's: written back from a binding, put by hand for this user, or
// left by a session that now tells of more addresses or fewer.
func (s *classifier) adoptable(r *Record) bool {
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

// outlived reports whether a record that was written back is of a session before
// the event's: one that starts later than the address was known to be held finds
// somebody else there, even if nobody can tell whom (SES-07).
func (s *classifier) outlived(r *Record) bool {
	if s.ev.Kind != EventStart || !r.Unconfirmed || r.AcctSessionID == s.ev.AcctSessionID {
		return false
	}
	if s.ev.MultiSessionID != "" {
		return false // may be one more link of the session that is there
	}
	return s.ev.At.After(VersionTime(r.Version).Add(jitter))
}

// stoppable reports whether a record written back from a binding is the one
// that a Stop of a session forgotten by the database means. A Stop ends only its
// own session (SES-04), so the address alone proves nothing.
func (s *classifier) stoppable(r *Record) bool {
	if !r.Unconfirmed || s.ev.At.Before(r.StartedAt) || !s.adoptable(r) {
		return false
	}
	if r.AcctSessionID != "" {
		return r.AcctSessionID == s.ev.AcctSessionID
	}
	return r.UserName != "" && r.UserName == s.ev.UserName
}

// anonymous reports whether nothing at all tells whose record it is.
func (r *Record) anonymous() bool {
	return r.SessionID == SessionID{} && r.UserName == "" && r.CallingStationID == ""
}
