package nftnat

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/sessiond/sessiond/internal/conntrack"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/nftnat/wire"
	"golang.org/x/sys/unix"
)

// shortWayKeeper keeps the short way. Its methods are the Kernel's.
type shortWayKeeper struct {
	kernel  *Kernel
	closing *closingSet
	sweep   chan struct{} // signalled when a walk through the conntrack table is due, see sweepWhenDue
}

// shortWay is what lets packets of established flows pass without a look at their gate, which
// among many subscribers is in no cache of the processor.
//
// The table labels each flow that it translates (nft's ct label). The flow's first packet has
// passed an open gate, so each labelled flow had an owner when it began. Whoever is cut off
// afterwards is put, in the same transaction, into a set that is small, and stays there until
// it is proved that the kernel has none of its flows. So each labelled flow has an owner, or is
// stopped by the set.
//
// Where that is not sure the label means nothing: with a table that was made while no daemon
// knew the gates of the one before, or when more subscribers are cut off at a time than the set
// should have. Then the table has no label, and all packets go by the gates, until a walk
// through the conntrack table finds a label that no flow has.
type shortWay struct {
	label   conntrack.Labels // of the flows that the table translates; none for no short way
	closing *closingSet      // one for each Kernel; without a label the table has none of its members
	left    time.Time        // when the last label was given up, or tried in vain; zero for never
}

const (
	// closingMost is the most members of the set. More would be in no cache either, and the
	// kernel's dumps of a large set take long.
	closingMost = 16384

	// relabelPause is the time without a label after too many were cut off, and between two
	// attempts to begin one that the kernel refuses.
	relabelPause = 30 * time.Second

	// closingPause is the time after which the flows of a member are reaped once more: a
	// daemon that was killed may have left it. closingReaped is the most at a time: with the
	// index a few milliseconds.
	closingPause  = 30 * time.Second
	closingReaped = 256
)

// shortWayIn returns the label that an earlier start left in the table, and the members of the
// closing set.
func shortWayIn(s *actualRuleset) (label conntrack.Labels, members []address) {
	present, ok := s.sets[setClosing]
	if !ok {
		return label, nil
	}
	for n := range conntrack.LabelCount {
		l := conntrack.Label(n)
		x := labelRule(l)
		if m, err := x.mark(); err == nil && slices.Contains(s.rules, actualRule{x.chain, m}) {
			label = l
		}
	}
	for _, m := range present.members {
		if len(m.key) == addressLen {
			members = append(members, address(m.key))
		}
	}
	return label, members
}

// closingSetOf is the closing set as the table should have it.
func closingSetOf(o *Options) set {
	if !o.short.on() {
		return addressSet(setClosing, nil)
	}
	return addressSet(setClosing, o.short.closing.all())
}

// adoptShortWay goes on with the short way that an earlier start left.
func (x *shortWayKeeper) adoptShortWay(before *actualRuleset) {
	k := x.kernel
	label, members := shortWayIn(before)
	if label == (conntrack.Labels{}) {
		return
	}
	k.options.short.label = label
	k.closing.add(members, time.Now())
}

func (w *shortWay) on() bool { return w.label != conntrack.Labels{} }

// due reports whether the table has no label, and may have one.
func (w *shortWay) due() bool { return !w.on() && time.Since(w.left) >= relabelPause }

// markClosing marks those of the wanted changes that enter the closing set, or leave it. Of a few
// cuts all enter it, of many those that have a session as far as the index knows: the proof that
// follows finds the others. An address whose elements others deleted enters it if it has sessions.
// If they are too many, the short way is given up.
func (x *shortWayKeeper) markClosing(ctx context.Context, wanted []change) error {
	k := x.kernel
	w := &k.options.short
	if !w.on() {
		return nil
	}
	all := len(wanted) <= heardChanges || !k.flows.Complete()
	entering := 0
	for i := range wanted {
		c := &wanted[i]
		if c.to != (cell{}) {
			c.closing = w.closing.has(c.inside)
			continue
		}
		c.closing = all && k.known.at(c.inside) != (cell{}) || k.flows.Count(c.inside.addr()) > 0
		if c.closing {
			entering++
		}
	}
	if entering == 0 || w.closing.len()+entering <= closingMost {
		return nil
	}
	k.log.Info("many subscribers are cut off at once: for a while packets of all go by the gates", "subscribers", w.closing.len()+entering)
	for i := range wanted {
		wanted[i].closing = false
	}
	o := k.options
	o.short.label, o.short.left = conntrack.Labels{}, time.Now()
	if err := k.configure(ctx, o); err != nil {
		return err
	}
	w.closing.clear()
	return nil
}

// closingOf lists those of some changes that enter the closing set, or leave it.
func closingOf(changes []change, enter bool) (list []address) {
	for _, c := range changes {
		if c.closing && enter == (c.to == (cell{})) {
			list = append(list, c.inside)
		}
	}
	return list
}

// programClosing adds the changes of the closing set to b, see programChanges.
func (x *shortWayKeeper) programClosing(b *wire.Batch, changes []change) (record func()) {
	k := x.kernel
	w := k.options.short.closing
	enter, out := closingOf(changes, true), closingOf(changes, false)
	enterClosing(b, k.options.Table, enter)
	leaveClosing(b, k.options.Table, out)
	return func() {
		w.add(enter, time.Now())
		w.remove(out)
	}
}

// lookAtShortWay takes members out of the closing set whose flows are proved to be gone, reaps
// those of members that nobody else does, and has a label looked for where one is due.
//
// It reaps in the turn, so that no gate opens meanwhile: the flows of the address's next subscriber
// would go too. Without a complete index that could take seconds, and waits.
func (x *shortWayKeeper) lookAtShortWay(ctx context.Context) error {
	k := x.kernel
	return k.inTurn(ctx, func() error {
		w := &k.options.short
		if w.due() {
			k.askSweep()
		}
		if !k.flows.Complete() {
			return k.releaseProved(ctx)
		}
		var old []netip.Addr
		for _, inside := range w.closing.due(time.Now().Add(-closingPause), closingReaped) {
			old = append(old, inside.addr())
		}
		if len(old) == 0 {
			return k.releaseProved(ctx)
		}
		reaped, err := k.deleteEntries(ctx, old)
		w.closing.prove(reaped)
		return errors.Join(err, k.releaseProved(ctx))
	})
}

// reopenShortWay takes addresses whose flows are proved to be gone out of the closing set.
func (x *shortWayKeeper) reopenShortWay(ctx context.Context, proofs []nat.Reaped) error {
	k := x.kernel
	if !k.closing.prove(proofs) {
		return nil
	}
	err := k.inTurn(ctx, func() error { return k.releaseProved(ctx) })
	if errors.Is(err, unix.ENOENT) { // others deleted the table: put back, it is tried again
		return nil
	}
	return err
}

// releaseProved takes the members without flows out of the closing set.
func (x *shortWayKeeper) releaseProved(ctx context.Context) error {
	k := x.kernel
	w := &k.options.short
	list := w.closing.proved()
	if len(list) == 0 {
		return nil
	}
	var b wire.Batch
	leaveClosing(&b, k.options.Table, list)
	if err := k.conn.Commit(ctx, &b); err != nil {
		return err
	}
	w.closing.remove(list)
	return nil
}

// relabel begins a short way with a label that no flow has.
func (x *shortWayKeeper) relabel(ctx context.Context, used conntrack.Labels) error {
	k := x.kernel
	return k.inTurn(ctx, func() error {
		if !k.options.short.due() {
			return nil
		}
		k.options.short.left = time.Now() // if it fails
		for n := conntrack.LabelCount - 1; n >= 0; n-- {
			label := conntrack.Label(n)
			if used.Has(label) {
				continue
			}
			o := k.options
			o.short.label = label
			return k.configure(ctx, o)
		}
		return errors.New("nftnat: the flows have all 128 conntrack labels between them: packets go by the gates")
	})
}

// hasShortWay reports whether the table labels flows.
func (x *shortWayKeeper) hasShortWay() bool {
	k := x.kernel
	<-k.turn
	defer k.unlock()
	return k.options.short.on()
}
