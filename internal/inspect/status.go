package inspect

import (
	"net/netip"
	"time"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// Status is the daemon at a glance.
type Status struct {
	Node      string
	Version   string
	StartedAt time.Time
	NotReady  string // why readiness fails; empty when ready

	DatabaseUp      bool
	DatabaseSuspect string // why absence in the database is not believed (I6); empty when it is whole
	Settings        Settings
	Sessions        int // conntrack entries of all subscribers
	Groups          []GroupStatus

	ReconciledAt time.Time // end of the newest full reconcile; zero before the first
	Drifts       int       // differences it found

	Foreign ForeignTranslations
}

// ForeignTranslations are flows of subscribers that rules of other tables translated.
type ForeignTranslations struct {
	Flows  int        // since the start; all else is unset without any
	At     time.Time  // when the newest began
	Inside netip.Addr // whose it was
	SeenAs netip.Addr // the address that it left with
	Chains []string   // of other tables that may translate what leaves, as they stand now
}

// GroupStatus counts one group.
type GroupStatus struct {
	Name        string
	Subscribers int
	Pending     int           // online without a block
	FeedLag     time.Duration // age of the oldest entry of its feed that was not taken yet; 0 for none
	FeedGaps    int           // times its feed had lost what was not taken yet
	FeedFill    float64       // share in use of what its feed may grow to
	Active      int           // bindings by state
	Draining    int
	Cut         int
	Held        int

	RemovalsHeld map[subscriber.Reason]int // subscribers whose removal a guard holds, by why

	Quarantined      int       // free blocks that wait for a hold, since the database lost who used them
	QuarantinedUntil time.Time // zero without any
}

// Look is what a look for differences, at all groups, looks at.
type Look string

// The looks. The first is the quicker one, and part of the second.
const (
	LookPresence   Look = "presence"   // whether records stand, and the kernel holds what it should
	LookEverything Look = "everything" // all that database, engine and kernel can differ in
)

// Looks returns all looks.
func Looks() []Look { return []Look{LookPresence, LookEverything} }

// DriftKind classes a difference between Redis, the engine and the kernel. Its
// text is the label of the drift metric.
type DriftKind string

// The kinds of drift.
const (
	DriftRecordUnbound     DriftKind = "record_unbound"     // record without a binding, though a block was free
	DriftRecordUnseen      DriftKind = "record_unseen"      // record whose change the feed did not bring
	DriftBindingOrphaned   DriftKind = "binding_orphaned"   // live binding without a record
	DriftBindingUnsaved    DriftKind = "binding_unsaved"    // the database does not have the engine's binding
	DriftBindingStale      DriftKind = "binding_stale"      // the database has a binding the engine has not
	DriftElementMissing    DriftKind = "element_missing"    // binding whose gate or map element is not in the kernel
	DriftElementDiffers    DriftKind = "element_differs"    // kernel element other than the binding says
	DriftElementOrphaned   DriftKind = "element_orphaned"   // kernel element without a binding
	DriftSessionOrphaned   DriftKind = "session_orphaned"   // conntrack entry of an address without a binding
	DriftSessionOutOfBlock DriftKind = "session_outofblock" // conntrack entry outside its subscriber's block (NAT-40)
)

// DriftKinds returns all kinds.
func DriftKinds() []DriftKind {
	return []DriftKind{
		DriftRecordUnbound, DriftRecordUnseen, DriftBindingOrphaned, DriftBindingUnsaved, DriftBindingStale,
		DriftElementMissing, DriftElementDiffers, DriftElementOrphaned, DriftSessionOrphaned, DriftSessionOutOfBlock,
	}
}

// Drift is one difference between Redis, the engine and the kernel.
type Drift struct {
	Kind   DriftKind
	Group  string
	Inside netip.Addr
	What   string // one line for a person: what was found, and what mends it
	Mended bool   // false in a dry run, and where guards forbid it
}
