package subscriber

// ChangeKind is what one entry of the change feed did to a record.
type ChangeKind uint8

// The kinds of change.
const (
	Created ChangeKind = iota + 1
	Updated
	Deleted
)

// Change is one entry of a group's change feed: the outbox that is written in
// the same atomic step as the record itself. The feed's order is the order in
// which the database took the changes.
type Change struct {
	ID     string // feed entry identifier, "milliseconds-sequence"
	Kind   ChangeKind
	Reason Reason // set for Deleted
	Record Record // the record after the change; for Deleted the last known one (Key always set)
}
