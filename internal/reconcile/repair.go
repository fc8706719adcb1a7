package reconcile

import (
	"net/netip"
	"slices"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/lifecycle"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/nftnat"
	"github.com/sessiond/sessiond/internal/reconcile/drift"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/walk"
)

// repair executes the operations of one comparison, and collects the work that
// must be done without the lock.
type repair struct {
	*Reconciler
	dryRun bool
	group  *Group
	anew   bool // the feed is taken up again after this look
	behind bool // the feed was not taken as far as this look read

	drifts    []inspect.Drift
	gone      map[netip.Addr]uint64 // tenures without a record in this pass
	lost      []subscriber.Record   // records to write back into a suspect database
	orphans   []netip.Addr          // subscribers without a record, if anew
	misplaced []nftnat.Session
}

// mend executes the operations, and yields the lock at intervals. Operations
// about addresses that are busy, or changed since they were read, are left for
// the next comparison.
func (r *repair) mend(operations []drift.Operation) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range walk.All(r.mu, slices.All(operations)) {
		if o := &operations[i]; !r.outdatedLocked(o) {
			r.carryOutLocked(o)
		}
	}
}

// outdatedLocked reports whether to leave an operation for the next comparison:
// its address has changed, or the feed will report the change. When the feed is
// taken up again it will not repeat earlier changes, so operations about
// records are executed even for busy slots. A record that a suspect database
// lost is written back from a busy slot too.
func (r *repair) outdatedLocked(o *drift.Operation) bool {
	if o.AboutRecord() {
		switch {
		case r.anew:
			return false
		case r.behind && !r.group.suspect:
			return true
		case r.group.suspect && o.Kind == inspect.DriftBindingOrphaned:
			return false // the next comparison trusts the database, and would end the subscriber
		}
	}
	return r.movingLocked(o.Inside) || o.Blocks.First != 0 && r.life.Writes().Of(o.Blocks.Place()) > 0
}

func (r *repair) movingLocked(inside netip.Addr) bool {
	if s := r.life.Slot(inside); s != nil && s.Busy() {
		return true
	}
	return r.group.Touched(inside)
}

func (r *repair) carryOutLocked(o *drift.Operation) {
	if o.Kind == drift.Newer {
		if !r.dryRun {
			packed := o.Record.Pack()
			r.life.Refresh(&packed, r.now())
		}
		return
	}
	d := inspect.Drift{Kind: o.Kind, Group: r.group.Name, Inside: o.Inside, What: o.What(), Mended: !r.dryRun}
	if !r.dryRun {
		drifted := r.isDriftLocked(o)
		r.mendLocked(o)
		if drifted && !(o.Kind == inspect.DriftRecordUnbound && r.blocklessLocked(o.Inside)) {
			r.observer.Drift(string(o.Kind))
		}
	}
	r.drifts = append(r.drifts, d)
}

// blocklessLocked reports whether the address still has no block after a step:
// its group has none free, or allocates no more.
func (r *repair) blocklessLocked(inside netip.Addr) bool {
	s := r.life.Slot(inside)
	return s != nil && s.Phase() == lifecycle.Idle
}

// isDriftLocked reports whether a difference counts as drift: one that
// sessiond's own work does not explain. A start restores missing state, and a
// database that lost data has its own alarm. A feed that is taken up again did
// not report all changes. An expired record is found here if the database's
// notice was lost. A missing record is counted once, however long its end
// takes.
func (r *repair) isDriftLocked(o *drift.Operation) bool {
	g := r.group
	if !g.synced || g.suspect {
		return false
	}
	if !o.AboutRecord() {
		return true
	}
	if r.anew || g.Unconfirmed() > 0 {
		return false
	}
	s := r.life.Slot(o.Inside)
	if o.Kind != inspect.DriftBindingOrphaned || s == nil {
		return true
	}
	told := g.gone[o.Inside] == s.Tenure() || r.gone[o.Inside] == s.Tenure()
	r.gone[o.Inside] = s.Tenure()
	return !told && lifecycle.GoneReason(s, r.now()) != subscriber.ReasonExpired
}

// mendLocked executes one operation.
func (r *repair) mendLocked(o *drift.Operation) {
	s := r.life.Slot(o.Inside)
	switch o.Kind {
	case inspect.DriftRecordUnseen:
		if r.group.suspect && s != nil && s.Online() && follows(s, o.Record) {
			r.orphanLocked(s) // the database's record is from the past
			return
		}
		packed := o.Record.Pack()
		r.life.Stand(&packed, r.now())
	case inspect.DriftBindingOrphaned:
		r.orphanLocked(s)
	case inspect.DriftRecordUnbound:
		if s != nil {
			r.life.Step(s, r.now())
		}
	case inspect.DriftElementMissing, inspect.DriftElementDiffers:
		if s != nil {
			r.life.Repairs().Reprogram(s)
		}
	case inspect.DriftElementOrphaned:
		r.life.Repairs().RemoveStray(r.group.Name, o.Element, r.now())
	case inspect.DriftBindingUnsaved:
		r.life.Repairs().StoreAgain(o.Blocks.Place())
	case inspect.DriftBindingStale:
		r.life.Repairs().Unstore(nat.Binding{Group: r.group.Name, Blocks: o.Blocks, Holder: nat.Holder{Inside: o.Inside}})
	case inspect.DriftSessionOrphaned, inspect.DriftSessionOutOfBlock:
		r.misplaced = append(r.misplaced, o.Session.Ref.(nftnat.Session))
	}
}

// orphanLocked handles a missing record: it is written back if the database
// lost it, and otherwise ends its subscriber if the guard allows.
func (r *repair) orphanLocked(s *lifecycle.Slot) {
	switch {
	case s == nil || !s.Online():
	case r.group.suspect:
		r.life.Repairs().Doubt(s)
		r.lost = append(r.lost, s.Record())
	case r.anew: // the feed read so far may not contain its end
		r.orphans = append(r.orphans, s.Inside())
	default:
		r.absent.push(s.Key(), lifecycle.GoneReason(s, r.now()))
	}
}

// follows reports whether the slot's record is later than another one.
func follows(s *lifecycle.Slot, r *subscriber.Record) bool {
	own := s.Record()
	return own.Follows(r)
}
