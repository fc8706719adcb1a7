package lsn

import (
	"fmt"
	"net/netip"

	"github.com/sessiond/sessiond/internal/nat"
)

// SetReceipt stores a receipt with a Cut binding; it stays when the binding becomes Held.
// ErrTransition: the binding is not Cut.
func (e *Engine) SetReceipt(group string, inside netip.Addr, r nat.Receipt) (nat.Binding, error) {
	return e.note(group, inside, nat.Cut, func(l *lease) {
		after := &struct {
			teardownInfo
			receipt nat.Receipt
		}{receipt: r} // in one allocation, because there are many
		after.teardownInfo.receipt = &after.receipt
		l.after = &after.teardownInfo
	})
}

// note changes data of a live binding that is in the given state, but not the state.
func (e *Engine) note(group string, inside netip.Addr, in nat.State, write func(*lease)) (b nat.Binding, err error) {
	g, c := e.subscriber(group, inside)
	if c == nil || !c.live() {
		return nat.Binding{}, fmt.Errorf("note of %v in group %s: %w", inside, group, ErrNoBinding)
	}
	if c.state == in {
		write(&c.lease)
	} else {
		err = fmt.Errorf("note of %v in group %s, is %v and not %v: %w", inside, group, c.state, in, ErrTransition)
	}
	g.describe(number(inside), &c.lease, &b)
	return b, err
}
