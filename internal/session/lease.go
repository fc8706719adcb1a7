package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
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

// groupLeases keeps the groups that this daemon serves, and knows when another one has
// taken one of them.
type groupLeases struct {
	Ownership
	log *slog.Logger

	mu   sync.Mutex
	lost error // another daemon has taken a group; nil while none has
}

// run keeps the groups. That the database cannot be asked says nothing
// of whose they are, and who else notices says so.
func (l *groupLeases) run(ctx context.Context) error {
	tick := time.NewTicker(ownership.RenewEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if err := l.Renew(ctx); errors.Is(err, ownership.ErrOwned) {
			return err
		}
	}
}

// Check is asked before anything is written into the database that belongs
// to a group's NAT: after a pause of this process, or of the database, another
// daemon may have the group.
func (l *groupLeases) Check(ctx context.Context, group string) error {
	if l.Holds(group) {
		return nil
	}
	if err := l.Renew(ctx); err != nil {
		return err
	}
	if !l.Holds(group) {
		return fmt.Errorf("group %s: its lease is not ours at present", group)
	}
	return nil
}

// standAside is what is left to do when another daemon has taken a group: change
// nothing any more, neither in the kernel nor in the database, and say so. What the
// kernel holds goes on working (I9), accounting goes on being recorded. Only a
// person can tell which of the two should serve, so only a new start ends this.
func (l *groupLeases) standAside(ctx context.Context, why error) {
	l.mu.Lock()
	l.lost = why
	l.mu.Unlock()
	l.log.Error("another sessiond has taken a group; this one changes nothing any more until it is started again, NAT stays in place", "error", why)
	<-ctx.Done()
}

// taken says that another daemon has taken a group; nil while none has.
func (l *groupLeases) taken() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lost
}

// leaveAll gives groups up.
func (l *groupLeases) leaveAll(ctx context.Context, names []string) error {
	var errs []error
	for _, name := range names {
		errs = append(errs, l.Leave(ctx, name))
	}
	return errors.Join(errs...)
}
