package subscriber

import "time"

// Decision is the effect of one event in one group. The writes belong together:
// all of them happen or none, deletions before the record that is put.
type Decision struct {
	Verdict Verdict
	Delete  []Ending      // records that end
	Put     *Record       // the record to write; its Version and ExpiresAt are the database's
	Created bool          // Put is announced as Created, not Updated
	Session *SessionState // state to remember of the event's session
	Restart *Restart      // restart of the event's NAS to remember; its ID is the database's
}

// Ending is a record that is deleted, as it was last known.
type Ending struct {
	Record Record
	Reason Reason
	Cause  uint32 // Acct-Terminate-Cause of a Stop (RFC 2866 section 5.10); 0 when absent
	// Tombstone is the state to remember of the record's session, if that is not
	// the event's session. The database fills in its known Stamp and Digest.
	Tombstone *SessionState
}

// Writes reports whether the decision changes anything.
func (d *Decision) Writes() bool {
	return len(d.Delete) > 0 || d.Put != nil || d.Session != nil || d.Restart != nil
}

// decider carries out the step of an event, and writes the records and states of it.
type decider struct {
	addressClaim
	room *Room // memory of the decision
}

// Decide returns the effect of an accounting event on the data in the view. It
// is pure, and deciding an event twice is harmless.
func Decide(v View, ev Event) Decision { return (*Room)(nil).Decide(v, ev) }

// Decide is the function Decide with the memory of this room.
func (r *Room) Decide(v View, ev Event) Decision {
	if ev.Kind == EventAccountingOn || ev.Kind == EventAccountingOff {
		return decideRestart(v.Restart, ev)
	}
	s := decider{room: r}
	s.view, s.ev, s.session = v, ev, v.Session
	if s.ignoresService() {
		return s.ignoreService(ev.Service)
	}
	s.classify()
	s.claim()
	step := sessionRules[v.Scope][s.relation][ev.Kind-EventStart]
	if s.outOfBounds(step) {
		return Decision{Verdict: ForeignAddress}
	}
	d := s.follow(step)
	if d.Verdict == Opened && ev.Full {
		return Decision{Verdict: ClientFull}
	}
	return d
}

// follow carries out a step.
func (s *decider) follow(step Step) Decision {
	switch step {
	case StepBegin:
		return s.begin()
	case StepRefresh:
		return s.refresh()
	case StepClose:
		return s.close()
	case StepNote:
		return s.note()
	case StepLeave:
		return s.leave()
	case StepIgnore:
		return Decision{Verdict: ignored[s.relation]}
	}
	return Decision{Verdict: NotHere}
}

// outOfBounds reports whether the client may not report the event's address. A
// session that was online there before the client was bound goes on, and may
// end.
func (s *decider) outOfBounds(step Step) bool {
	switch {
	case !s.ev.ForeignInside || step == StepNothing:
		return false
	case s.own == nil:
		return true
	case step == StepRefresh:
		return s.moved()
	}
	return step != StepClose
}

// decideRestart accepts a restart that is newer than the known one. A restart
// within the jitter of event times, or with the same stamp, is the same one
// sent again (SES-15): its stamp may read differently if the NAS has set its
// clock since. A clock without a battery shows the same time after every start,
// so it tells nothing. The same octets are the same packet, however late: a
// replay (SES-15).
func decideRestart(known Restart, ev Event) Decision {
	if ev.arrange(); ev.Astray() != 0 {
		ev.Stamp = time.Time{}
	}
	switch {
	case ev.Restarts == RestartsIgnored:
		return Decision{Verdict: RestartIgnored}
	case !known.At.IsZero() && !ev.At.After(known.At.Add(jitter)), !known.Stamp.IsZero() && known.Stamp.Equal(ev.Stamp),
		known.told(ev.Digest):
		return Decision{Verdict: RestartRepeated}
	}
	return Decision{Verdict: Restarted, Restart: &Restart{
		At: ev.At, Confirm: ev.Restarts == RestartsConfirmed, Stamp: ev.Stamp, Packets: known.packets(ev.Digest),
	}}
}

func (s *decider) begin() Decision {
	if !s.placed() {
		d := Decision{Verdict: Noted, Session: s.open()}
		s.end(&d)
		return d
	}
	return s.grantAddress(s.record())
}

func (s *decider) refresh() Decision {
	switch {
	case s.own != nil && !s.moved():
		return Decision{Verdict: Refreshed, Put: s.room.record(s.merged()), Session: s.open()}
	case s.placed():
		return s.grantAddress(s.record())
	}
	return Decision{Verdict: Refreshed, Session: s.open()}
}

// grantAddress gives the session the event's address, if the rule for its owner grants
// that.
func (s *decider) grantAddress(r Record) Decision {
	rule := addressRules[s.owner]
	if !rule.grant {
		return Decision{Verdict: rule.verdict}
	}
	d := Decision{Verdict: rule.verdict, Put: s.room.record(r), Created: rule.announce, Session: s.open()}
	if s.own != nil {
		s.end(&d)
		d.Created = rule.announce || s.own == s.view.Holder // else a record is there already
		d.Verdict = s.replaced()
	}
	if rule.evict {
		s.delete(&d, s.evicted())
		d.Verdict = TookOver
	}
	return d
}

// delete adds a record to the deletions.
func (s *decider) delete(d *Decision, e Ending) {
	if d.Delete == nil {
		d.Delete = s.room.list()
	}
	d.Delete = append(d.Delete, e)
}

// replaced is the verdict of a session that had an address and gets another.
func (s *decider) replaced() Verdict {
	if s.relation == RelationSame {
		return Moved
	}
	return TookOver
}

// end deletes the session's own record, because the session begins anew or is
// at another address.
func (s *decider) end(d *Decision) {
	if s.own != nil {
		s.delete(d, Ending{Record: *s.own, Reason: ReasonSuperseded})
	}
}

// evicted ends the holder's session at the start of the session that takes its
// address.
func (s *decider) evicted() Ending {
	e := NewEnding(*s.view.Holder, ReasonSuperseded, s.start)
	if e.Tombstone != nil {
		e.Tombstone.Doubtful = s.doubtful
	}
	return e
}

func (s *decider) close() Decision {
	d := s.note()
	switch {
	case s.own == nil:
	case len(s.own.Links) > 1:
		d.Verdict, d.Put = Unlinked, s.room.record(s.merged().without(s.ev.AcctSessionID))
	default:
		d.Verdict = Stopped
		s.delete(&d, Ending{Record: s.merged(), Reason: ReasonStop, Cause: s.ev.TerminateCause})
	}
	return d
}

func (s *decider) note() Decision {
	return Decision{Verdict: Noted, Session: s.closed(ReasonStop)}
}

func (s *decider) leave() Decision {
	d := Decision{Verdict: Left, Session: s.closed(ReasonNone)}
	s.end(&d)
	return d
}
