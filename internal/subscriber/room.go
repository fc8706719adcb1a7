package subscriber

// Room is reusable memory for a Decision. A caller that decides often passes
// the same Room; the next decision then overwrites the previous one. A nil Room
// allocates for each decision.
type Room struct {
	put     Record
	endings [1]Ending
	session SessionState
}

// record stores a record and returns its address.
func (r *Room) record(value Record) *Record {
	if r == nil {
		kept := value // not value itself, which would then never be on the stack
		return &kept
	}
	r.put = value
	return &r.put
}

// state stores a session state and returns its address.
func (r *Room) state(value SessionState) *SessionState {
	if r == nil {
		kept := value
		return &kept
	}
	r.session = value
	return &r.session
}

// list returns an empty list for deletions.
func (r *Room) list() []Ending {
	if r == nil {
		return nil
	}
	return r.endings[:0]
}
