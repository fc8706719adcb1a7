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

// repair is one comparison's mending, and what it leaves to be done without the
// lock.
type repair struct {
	*Reconciler
	dryRun bool
	group  *Group
	anew   bool // the feed is taken up anew behind this look
	behind bool // the feed was not taken as far as this look saw

	drifts    []inspect.Drift
	gone      map[netip.Addr]uint64 // tenures that the pass found without a record
	lost      []subscriber.Record   // that a suspect database has to get back
	orphans   []netip.Addr          // found anew: subscribers whose record is not there
	misplaced []nftnat.Session
}

// mend carries the operations out, letting others have the lock now and then.
// Those about addresses that are being worked on, or changed since they were looked
// at, are left for the next time.
func (r *repair) mend(operations []drift.Operation) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range walk.All(r.mu, slices.All(operations)) {
		if o := &operations[i]; !r.outdatedLocked(o) {
			r.carryOutLocked(o)
		}
	}
}

// outdatedLocked reports whether the operation rests on what is no more, or on what
// the feed will tell. When the feed is taken up anew nothing but this look tells of
// ends that it told before: who is online is settled then although an executor works
// for the slot.
func (r *repair) outdatedLocked(o *drift.Operation) bool {
	if o.AboutRecord() {
		switch {
		case r.anew:
			return false
		case r.behind && !r.group.suspect:
			return true
		}
	}
	return r.movingLocked(o.Inside) || o.Block.First != 0 && r.life.Writes().Of(o.Block) > 0
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

// blocklessLocked reports whether the address could not be given a block either: its
// group has none that is free, or gives no more.
func (r *repair) blocklessLocked(inside netip.Addr) bool {
	s := r.life.Slot(inside)
	return s != nil && s.Phase() == lifecycle.Idle
}

// isDriftLocked reports whether a difference is to be counted as drift: one that
// nothing of what sessiond does explains. A start restores what is not there yet, and
// a database that lost data has an alarm of its own; a feed that is taken up anew did
// not tell who came and went; a record that ran out is found so where the database's
// notice was lost. A record that is gone is counted once, however long its end takes.
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

// mendLocked does one operation.
func (r *repair) mendLocked(o *drift.Operation) {
	s := r.life.Slot(o.Inside)
	switch o.Kind {
	case inspect.DriftRecordUnseen:
		if r.group.suspect && s != nil && s.Online() && follows(s, o.Record) {
			r.orphanLocked(s) // what the database has comes from the past
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
		r.life.Repairs().StoreAgain(o.Block)
	case inspect.DriftBindingStale:
		r.life.Repairs().Unstore(nat.Binding{Group: r.group.Name, Block: o.Block, Holder: nat.Holder{Inside: o.Inside}})
	case inspect.DriftSessionOrphaned, inspect.DriftSessionOutOfBlock:
		r.misplaced = append(r.misplaced, o.Session.Ref.(nftnat.Session))
	}
}

// orphanLocked sees to it that a record that is not there ends its subscriber, if
// the guard lets it, or is written back where the database lost it.
func (r *repair) orphanLocked(s *lifecycle.Slot) {
	switch {
	case s == nil || !s.Online():
	case r.group.suspect:
		r.life.Repairs().Doubt(s)
		r.lost = append(r.lost, s.Record())
	case r.anew: // more may be told of it than the feed that follows tells
		r.orphans = append(r.orphans, s.Inside())
	default:
		r.absent.push(s.Key(), lifecycle.GoneReason(s, r.now()))
	}
}

// follows reports whether the slot's record comes after another one.
func follows(s *lifecycle.Slot, r *subscriber.Record) bool {
	own := s.Record()
	return own.Follows(r)
}
