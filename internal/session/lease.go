package session

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sessiond/sessiond/internal/ownership"
)

// Ownership is what makes this daemon the only one that serves a group's NAT.
// *ownership.Claimant is one.
type Ownership interface {
	// Take takes a group. ownership.ErrOwned says that it is served by another daemon.
	Take(ctx context.Context, group string) error
	// Renew keeps the groups taken. ownership.ErrOwned says that one is lost for good.
	Renew(ctx context.Context) error
	// Holds reports whether the group is ours beyond doubt.
	Holds(group string) bool
	// Leave gives a group up.
	Leave(ctx context.Context, group string) error
}

// alone is the Ownership of who has no neighbours.
type alone struct{}

func (alone) Take(context.Context, string) error  { return nil }
func (alone) Renew(context.Context) error         { return nil }
func (alone) Holds(string) bool                   { return true }
func (alone) Leave(context.Context, string) error { return nil }

// runOwnership keeps the groups. That the database cannot be asked says nothing
// of whose they are, and who else notices says so.
func (m *Manager) runOwnership(ctx context.Context) error {
	tick := time.NewTicker(ownership.RenewEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if err := m.owner.Renew(ctx); errors.Is(err, ownership.ErrOwned) {
			return err
		}
	}
}

// owned is asked before anything is written into the database that belongs
// to a group's NAT: after a pause of this process, or of the database, another
// daemon may have the group.
func (m *Manager) owned(ctx context.Context, group string) error {
	if m.owner.Holds(group) {
		return nil
	}
	if err := m.owner.Renew(ctx); err != nil {
		return err
	}
	if !m.owner.Holds(group) {
		return fmt.Errorf("group %s: its lease is not ours at present", group)
	}
	return nil
}

// standAside is what is left to do when another daemon has taken a group: change
// nothing any more, neither in the kernel nor in the database, and say so. What the
// kernel holds goes on working (I9), accounting goes on being recorded. Only a
// person can tell which of the two should serve, so only a new start ends this.
func (m *Manager) standAside(ctx context.Context, why error) {
	m.mu.Lock()
	m.deposed = why
	m.mu.Unlock()
	m.log.Error("another sessiond has taken a group; this one changes nothing any more until it is started again, NAT stays in place", "err", why)
	<-ctx.Done()
}

// OwnsNAT reports whether the group's lease is ours.
func (m *Manager) OwnsNAT(group string) bool { return m.owner.Holds(group) }
