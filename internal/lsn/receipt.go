package lsn

import (
	"fmt"
	"net/netip"
	"time"
)

// Proof says how it was found that no conntrack entry is left.
type Proof uint8

// The proofs; the zero one is none.
const (
	ProofIndex Proof = iota + 1 // the index of conntrack entries, complete at that time, had none left
	ProofTable                  // a walk through the whole conntrack table met none
)

// Receipt is what a teardown came to. The zero times are of steps not done yet.
type Receipt struct {
	CutAt      time.Time // the gate had closed and no map element was left
	ReapedAt   time.Time // it was proved that no conntrack entry is left
	ReleasedAt time.Time // the block went into its hold
	Elements   int       // map elements removed
	Deleted    int       // conntrack entries deleted
	Proof      Proof
}

// SetReceipt keeps a receipt with a Cut binding, and what it becomes. ErrTransition
// says that the binding is not Cut.
func (e *Engine) SetReceipt(group string, inside netip.Addr, r Receipt) (Binding, error) {
	return e.note(group, inside, Cut, func(l *lease) {
		after := &struct {
			aftermath
			receipt Receipt
		}{receipt: r} // in one piece, for there are many
		after.aftermath.receipt = &after.receipt
		l.after = &after.aftermath
	})
}

// note writes something beside the state of a live binding that is in the given one.
func (e *Engine) note(group string, inside netip.Addr, in State, write func(*lease)) (b Binding, err error) {
	g, c := e.client(group, inside)
	if c == nil || !c.live() {
		return Binding{}, fmt.Errorf("note of %v in group %s: %w", inside, group, ErrNoBinding)
	}
	if c.state == in {
		write(&c.lease)
	} else {
		err = fmt.Errorf("note of %v in group %s, is %v and not %v: %w", inside, group, c.state, in, ErrTransition)
	}
	g.describe(number(inside), &c.lease, &b)
	return b, err
}
