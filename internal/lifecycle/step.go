package lifecycle

// Phase is how far database and kernel have followed one inside address.
// Between two phases the slot is busy: an executor works for it.
type Phase uint8

// The phases of a slot.
const (
	Idle     Phase = iota // no binding, and no kernel element
	Saved                 // a block is allocated and stored in the database
	Open                  // gate open, block map programmed
	Draining              // existing sessions pass, no new ones begin
	Returned              // as Draining, for a subscriber that came back in time: its binding is being stored
	Cut                   // gate closed and map elements gone; conntrack entries may be left
)

// facts are the inputs for the next step of a slot.
type facts struct {
	phase    Phase
	online   bool // a subscriber record is in force
	pending  bool // the subscriber waits for a block
	own      bool // the binding was allocated for the session of that record
	stray    bool // the kernel state has no binding
	removal  bool // the toggle subscriber_session_removal is on
	grace    bool // the grace time of the binding's subscriber runs
	same     bool // and the record in force is of that subscriber
	sessions int  // conntrack entries of the address, by the kernel's events
	empty    bool // the kernel was asked during the drain, and has none
}

// action is the next step of a slot.
type action uint8

const (
	stay      action = iota
	allocate         // take a block and store the binding
	flush            // delete conntrack entries that are older than the Start
	program          // open the gate
	drain            // let existing sessions end by themselves, or wait for the subscriber
	askIdle          // ask the kernel whether any session is left
	resume           // give the subscriber its binding and live sessions back
	closeGate        // cut: one transaction, packets stop
	reap             // delete the conntrack entries and prove that none is left
)

// next is the life cycle. A subscriber that ended is cut when removal is on,
// and drained when it is off or during a grace time. An address whose session
// changed hands is always cut, regardless of toggle and grace time: the next
// holder inherits nothing (SES-07).
func next(f facts) action {
	switch f.phase {
	case Idle:
		if f.online && !f.pending {
			return allocate
		}
	case Saved:
		switch {
		case !f.online || !f.own:
			return closeGate
		case f.sessions > 0:
			return flush // DEL-06
		default:
			return program
		}
	case Open, Returned:
		switch {
		case f.stray:
			return closeGate
		case f.online && f.own && f.phase == Open:
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
	case Draining:
		switch {
		case f.same && !f.stray:
			return resume
		case f.online, f.stray, !f.grace && (f.removal || f.empty):
			return closeGate
		case !f.grace:
			return askIdle
		}
	case Cut:
		return reap
	}
	return stay
}
