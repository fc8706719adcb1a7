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
	ID     Version // of the feed entry; changes of several records may share one
	Kind   ChangeKind
	Reason Reason // set for Deleted
	Cause  uint32 // Acct-Terminate-Cause of a Deleted with ReasonStop (RFC 2866 section 5.10); 0 when not told
	Record Packed // the record after the change; for Deleted the last known one (Key always set)

	// Partial marks an Updated or Deleted whose Record holds no more than its Key
	// and what an Interim-Update changes: UpdatedAt, ExpiresAt, InputOctets,
	// OutputOctets and Version. The rest is as it was, see
	// Packed.Refreshed.
	Partial bool
}
