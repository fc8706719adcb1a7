package subscriber

// Room is memory that a decision points into. Who decides often and keeps no
// decision for long may decide in the same room again, which spares the memory of
// another decision and takes that of the one before. A nil Room makes new memory
// for each, as much as that needs.
type Room struct {
	put     Record
	endings [1]Ending
	session SessionState
}

// record gives a record its place.
func (r *Room) record(value Record) *Record {
	if r == nil {
		kept := value // not value itself, which would then never be on the stack
		return &kept
	}
	r.put = value
	return &r.put
}

// state gives a state its place.
func (r *Room) state(value SessionState) *SessionState {
	if r == nil {
		kept := value
		return &kept
	}
	r.session = value
	return &r.session
}

// list is where endings begin.
func (r *Room) list() []Ending {
	if r == nil {
		return nil
	}
	return r.endings[:0]
}
