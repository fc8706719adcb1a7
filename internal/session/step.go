package session

// phase is how far the database and the kernel have followed one inside
// address. Between two phases the slot is busy: an executor works for it.
type phase uint8

const (
	idle     phase = iota // no binding, and the kernel names the address nowhere
	saved                 // a block is allocated and stored in the database
	open                  // gate open, block map programmed
	draining              // existing sessions pass, no new ones begin
	returned              // as draining, for a subscriber that came back in time: its binding is being stored
	cut                   // gate closed and map elements gone; conntrack entries may be left
)

// facts are what the next step of a slot depends on.
type facts struct {
	phase    phase
	online   bool // a subscriber record stands
	pending  bool // the subscriber waits in line for a block
	own      bool // the binding was made for the session of that very record
	stray    bool // the kernel state belongs to nobody
	removal  bool // the toggle subscriber_session_removal is on
	grace    bool // whom the binding was made for may yet come back to its sessions
	same     bool // and the record that stands is of that subscriber
	sessions int  // conntrack entries of the address, as far as the kernel has told
	empty    bool // the kernel was asked while it drains, and has none
}

// action is what a slot needs next.
type action uint8

const (
	stay      action = iota
	allocate         // take a block and store the binding
	flush            // delete conntrack entries that are older than the Start
	program          // open the gate
	drain            // let existing sessions end by themselves, or wait for their subscriber
	askIdle          // ask the kernel whether any session is left
	resume           // give the subscriber its binding and live sessions back
	closeGate        // cut: one transaction, packets stop
	reap             // delete the conntrack entries and prove that none is left
)

// next is the life cycle. A subscriber that ended is cut when removal is on,
// and drained when it is off, or for a grace time in which it may come back. An
// address whose session changed hands is always cut, whatever toggle and grace
// time say: the next holder inherits nothing (SES-07).
func next(f facts) action {
	switch f.phase {
	case idle:
		if f.online && !f.pending {
			return allocate
		}
	case saved:
		switch {
		case !f.online || !f.own:
			return closeGate
		case f.sessions > 0:
			return flush // DEL-06
		default:
			return program
		}
	case open, returned:
		switch {
		case f.stray:
			return closeGate
		case f.online && f.own && f.phase == open:
			return stay
		case f.online && f.own:
			return program
		case f.same:
			return resume
		case !f.online && (f.grace || !f.removal):
			return drain // DEL-11
		default:
			return closeGate
		}
	case draining:
		switch {
		case f.same && !f.stray:
			return resume
		case f.online, f.stray, !f.grace && (f.removal || f.empty):
			return closeGate
		case !f.grace:
			return askIdle
		}
	case cut:
		return reap
	}
	return stay
}
