package subscriber

// ChangeKind is the effect of one entry of the change feed on a record.
type ChangeKind uint8

// The kinds of change.
const (
	Created ChangeKind = iota + 1
	Updated
	Deleted
)

// Change is one entry of a group's change feed. It is written in the same
// atomic step as the record itself. The feed's order is the order in which the
// database took the changes.
type Change struct {
	ID     Version // of the feed entry; changes of several records may share one
	Kind   ChangeKind
	Reason Reason // set for Deleted
	Cause  uint32 // Acct-Terminate-Cause of a Deleted with ReasonStop (RFC 2866 section 5.10); 0 when absent
	Record Packed // the record after the change; for Deleted the last known one (Key always set)

	// Partial marks an Updated or Deleted whose Record holds only its Key and the
	// fields that an Interim-Update changes: UpdatedAt, ExpiresAt, InputOctets,
	// OutputOctets and Version. The other fields are unchanged; see Packed.Refresh.
	Partial bool
}
