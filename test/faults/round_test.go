package faults

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// roundWithin is enough for a busy machine: worlds take turns in filling conntrack tables.
const roundWithin = 3 * time.Minute

// round draws operations and faults, executes them together, repairs the faults, and
// compares everything once it is at rest.
func (w *world) round(ctx context.Context, number int) (injected int, err error) {
	ctx, cancel := context.WithTimeout(ctx, roundWithin)
	defer cancel()
	if err := w.toggle(ctx); err != nil {
		return 0, err
	}
	broken, ops := w.draw(number)
	returns := has(broken, func(f fault) bool { return f.returns })
	if returns {
		if err := w.remember(); err != nil {
			return 0, err
		}
	}
	if err := w.tick(ctx); err != nil {
		return 0, err
	}
	loses := has(broken, func(f fault) bool { return f.loses })
	w.adopted = loses && !returns && has(broken, func(f fault) bool { return f.down })
	if returns || loses && has(broken, func(f fault) bool { return f.down }) {
		w.holds.setBlind(true)
		defer w.holds.setBlind(false)
	}
	if len(broken) > 0 {
		w.holds.setBehind(true)
		defer w.holds.setBehind(false)
	}
	flushed := slices.IndexFunc(broken, func(f fault) bool { return f.loses && f.lift == nil })
	w.survives = w.adopted && flushed >= 0 && flushed < slices.IndexFunc(broken, func(f fault) bool { return f.down })
	if w.adopted {
		w.mappingsLost()
		if err := w.poolsLost(); err != nil {
			return 0, err
		}
	}
	if err := w.choosePool(ops); err != nil {
		return 0, err
	}
	w.chooseMappings(ops)
	w.holds.takeReceipts()
	before := w.counts
	if loses { // the database also loses that two clients report one NAS
		w.model.forgetMeetings()
	}
	w.began = time.Now()
	if err := w.happen(ctx, ops, broken); err != nil {
		return 0, err
	}
	if w.adopted {
		if err := w.recall(ctx); err != nil {
			return 0, err
		}
	}
	if loses {
		if err := w.comeBack(ctx, ops, broken); err != nil {
			return 0, fmt.Errorf("after the loss of the database: %w", err)
		}
	}
	began := time.Now()
	if err := w.settle(ctx, broken); err != nil {
		return 0, err
	}
	if !has(broken, func(f fault) bool { return !f.quiet }) {
		if err := w.countsRight(ops, before); err != nil {
			return 0, err
		}
	}
	w.logf("round %d: %s, %d operations within %v, at rest within %v", number, names(broken), len(ops),
		began.Sub(w.began).Round(time.Millisecond), w.rested.Sub(began).Round(time.Millisecond))
	w.report.add(broken, ops, w.rested.Sub(began))
	return len(broken), nil
}

// draw draws the faults and operations of a round.
func (w *world) draw(number int) ([]fault, []op) {
	broken := drawFaults(w.rng, w.model)
	loses := has(broken, func(f fault) bool { return f.loses })
	crowds := has(broken, func(f fault) bool { return f.area == inPool })
	if set := w.model.setClocks(w.rng, has(broken, func(f fault) bool { return f.down })); len(set) > 0 {
		w.note("round %d: %s", number, strings.Join(set, "; "))
	}
	ops := w.model.plan(w.rng, number, 8+w.rng.IntN(12), loses || crowds)
	if crowds {
		ops = append(ops, w.model.crowd(touchedBy(ops))...)
	}
	ops = append(w.planBriefs(), ops...)
	if pool := w.planPool(); !loses && !crowds {
		ops = append(pool, ops...)
	}
	if mappings := w.planMappings(); !(loses && has(broken, func(f fault) bool { return f.down })) {
		ops = append(mappings, ops...)
	}
	w.note("round %d: %s: %s", number, names(broken), listOps(ops))
	return broken, ops
}

// note adds a line to the history, for the analysis of failures.
func (w *world) note(format string, args ...any) {
	w.history = append(w.history, fmt.Sprintf(format, args...))
}

func has(all []fault, what func(fault) bool) bool {
	for _, f := range all {
		if what(f) {
			return true
		}
	}
	return false
}

func names(all []fault) string {
	var words []string
	for _, f := range all {
		words = append(words, f.name)
	}
	if len(words) == 0 {
		return "no fault"
	}
	return strings.Join(words, " + ")
}

// happen executes the operations and injects the faults among them. The number of failed
// tries decides when a fault is repaired.
func (w *world) happen(ctx context.Context, ops []op, broken []fault) error {
	touched := touchedBy(ops)
	b := w.start(ctx, ops)
	var errs []error
	if has(broken, func(f fault) bool { return f.endsFlows }) {
		errs = append(errs, w.dropFlows(nil))
	}
	errs = append(errs, b.awaitStarted(ctx, w.rng.IntN(len(ops)+1)), w.meddle(touched, broken))
	for _, f := range broken {
		tries := w.rng.IntN(8)
		if f.inject != nil {
			errs = append(errs, annotate(f.name, f.inject(ctx, w)), b.awaitTries(ctx, tries))
		}
	}
	errs = append(errs, w.meddle(touched, broken))
	if !has(broken, func(f fault) bool { return f.disturbs }) {
		errs = append(errs, w.probeInnocent(touched, false))
	}
	for i := len(broken) - 1; i >= 0; i-- {
		if f := broken[i]; f.lift != nil {
			errs = append(errs, annotate("end of "+f.name, f.lift(ctx, w)))
		}
	}
	errs = append(errs, w.awaitDaemon(ctx), b.wait())
	return errors.Join(errs...)
}

// meddle has subscribers begin sessions, online ones and others.
func (w *world) meddle(touched map[*line]bool, broken []fault) error {
	err := w.browse(touched)
	if has(broken, func(f fault) bool { return f.opens }) {
		return err
	}
	return errors.Join(err, w.trespass(touched))
}

func annotate(what string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// awaitDaemon waits for readiness, and stores sessiond's address for the NASes.
func (w *world) awaitDaemon(ctx context.Context) error {
	if err := w.Daemon.AwaitReady(ctx); err != nil {
		return err
	}
	w.radius.Store(w.Daemon.RADIUS)
	return nil
}

func touchedBy(ops []op) map[*line]bool {
	touched := map[*line]bool{}
	for _, o := range ops {
		if o.line != nil {
			touched[o.line] = true
		}
		if o.from != nil {
			touched[o.from] = true
		}
	}
	return touched
}

// comeBack sends the Interims of all online sessions, as BNGs do after sessiond lost its
// memory. It is unknown which of the round's operations were answered before the loss, so
// those subscribers begin new sessions. No other subscriber may have lost anything, before
// the first Interim and after it (I6).
func (w *world) comeBack(ctx context.Context, ops []op, broken []fault) error {
	uncertain := touchedBy(ops)
	if err := errors.Join(w.dropFlows(uncertain), w.probeInnocent(uncertain, has(broken, func(f fault) bool { return f.disturbs })), w.tick(ctx)); err != nil {
		return err
	}
	w.model.forget()
	w.writtenBack()
	var back []op
	for _, l := range w.model.lines {
		switch {
		case uncertain[l]:
			n := w.model.first(l.last) // the database's old session may be back, and gives way to its own client alone
			l.begin(w.model.newSession(l.owner(), n.name))
			l.online.uncertain = !n.settled()
			l.ended = nil
			back = append(back, op{kind: opStart, line: l, session: l.online})
		case l.online != nil:
			back = append(back, op{kind: opInterim, line: l, session: l.online})
		}
	}
	if err := w.start(ctx, back).wait(); err != nil {
		return err
	}
	return w.meet(ctx)
}

// recall finds out what was not lost: a sessiond that still ran while the database was emptied may
// have written anything back before it ended.
func (w *world) recall(ctx context.Context) error {
	if !w.survives {
		return nil
	}
	rows, err := w.listMappings(ctx)
	if err != nil {
		return err
	}
	for _, m := range slices.Clone(w.ended) {
		if slices.ContainsFunc(rows, func(r mappingRow) bool { return r.Held.IsZero() && r.is(m) && r.outside() == m.outside }) {
			w.ended = slices.DeleteFunc(w.ended, func(x *mapping) bool { return x == m })
			w.mappings, m.gone = append(w.mappings, m), false
			w.note("was not lost: %v", m)
		}
	}
	pools, err := w.listPools(ctx)
	for _, p := range pools {
		if p.Prefix == secondPool.String() {
			w.second = secondPoolState{state: poolGiving, drained: time.Now()}
			if p.Draining {
				w.second.state = poolDraining
			}
			w.note("was not lost: the second pool, %s", w.second.state)
		}
	}
	return err
}

// crowd brings the subscribers of all lines online, except the spared ones.
func (m *model) crowd(spared map[*line]bool) []op {
	var ops []op
	for _, l := range m.lines {
		if l.online == nil && !spared[l] {
			s := m.newSession(l.owner(), m.settledNASes()[len(ops)%len(m.settledNASes())].name)
			l.begin(s)
			ops = append(ops, op{kind: opStart, line: l, session: s})
		}
	}
	return ops
}

// toggle switches removal off now and then, and on again some rounds later.
func (w *world) toggle(ctx context.Context) error {
	before := w.model.removal
	switch drawn := w.rng.IntN(12); {
	case before && drawn == 0:
		w.model.removal, w.left = false, 2
	case !before && w.left == 0:
		w.model.removal = true
	case !before:
		w.left--
	}
	if before == w.model.removal {
		return nil
	}
	value := "subscriber_session_removal=off"
	if w.model.removal {
		value = "subscriber_session_removal=on"
	}
	w.note("%s", value)
	_, err := w.Daemon.Ctl(ctx, "settings", "set", value)
	return err
}
