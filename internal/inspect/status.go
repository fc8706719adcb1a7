package inspect

import (
	"net/netip"
	"time"

	"github.com/sessiond/sessiond/internal/subscriber"
)

// Status is a summary of the daemon's state.
type Status struct {
	Node      string
	Version   string
	StartedAt time.Time
	NotReady  string // why the daemon is not ready; empty when ready

	DatabaseUp      bool
	DatabaseSuspect string // why absence in the database proves nothing (I6); empty if it is whole
	Settings        Settings
	Sessions        int // conntrack entries of all subscribers
	Groups          []GroupStatus

	ReconciledAt time.Time // end of the newest full reconcile; zero before the first
	Drifts       int       // differences it found

	Foreign    ForeignTranslations
	Flowtables Flowtables
}

// Flowtables are the nftables flowtables that may carry flows of subscribers.
type Flowtables struct {
	Mode    string   // nat.flowtables: "refuse", "accept" or "own"
	Others  []string // those of other tables, and rules that add flows to one
	Refused bool     // some of Others are not accepted
}

// ForeignTranslations are flows of subscribers that rules of other tables translated.
type ForeignTranslations struct {
	Flows  int        // since the start; the other fields are set only if above 0
	At     time.Time  // begin of the newest flow
	Inside netip.Addr // its subscriber
	SeenAs netip.Addr // its source address after the translation
	Chains []string   // present chains of other tables that may translate outgoing packets
}

// GroupStatus holds the counts of one group.
type GroupStatus struct {
	Name        string
	Restoring   bool // the counts are not complete yet, after a start
	Subscribers int
	Pending     int           // online without a block
	FeedLag     time.Duration // age of the oldest entry of its feed that is not applied yet; 0 for none
	FeedGaps    int           // times that its feed lost entries before they were applied
	FeedFill    float64       // used share of the feed's maximum length
	Active      int           // bindings by state
	Draining    int
	Cut         int
	Held        int

	RemovalsHeld map[subscriber.Reason]int // subscribers whose removal a guard suspends, by reason

	Quarantined      int       // free blocks in a hold because the database lost their last holders
	QuarantinedUntil time.Time // zero without any
}

// Look is the subject of a comparison of all groups.
type Look string

// The looks. The first one is quicker, and part of the second.
const (
	LookPresence   Look = "presence"   // whether records exist, and the kernel holds their entries
	LookEverything Look = "everything" // all differences between database, engine and kernel
)

// Looks returns all looks.
func Looks() []Look { return []Look{LookPresence, LookEverything} }

// DriftKind is a class of differences between Redis, the engine and the kernel.
// Its text is the label of the drift metric.
type DriftKind string

// The kinds of drift.
const (
	DriftRecordUnbound     DriftKind = "record_unbound"     // record without a binding, although a block was free
	DriftRecordUnseen      DriftKind = "record_unseen"      // record whose change the feed did not bring
	DriftBindingOrphaned   DriftKind = "binding_orphaned"   // live binding without a record
	DriftBindingUnsaved    DriftKind = "binding_unsaved"    // the database does not have the engine's binding
	DriftBindingStale      DriftKind = "binding_stale"      // the database has a binding that the engine does not have
	DriftElementMissing    DriftKind = "element_missing"    // binding whose gate or block element is not in the kernel
	DriftElementDiffers    DriftKind = "element_differs"    // kernel element that differs from the binding
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
	What   string // one line for a person: the difference, and its repair
	Mended bool   // false in a dry run, and if guards forbid the repair
}
