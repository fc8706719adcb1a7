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

// Ownership makes this daemon the only one that serves a group's NAT.
// *ownership.Claimant implements it.
type Ownership interface {
	// Claim takes a group. ownership.ErrOwned: another daemon serves it.
	Claim(ctx context.Context, group string) error
	// Renew keeps the groups taken. ownership.ErrOwned: one is lost for good.
	Renew(ctx context.Context) error
	// Holds reports whether the group is certainly ours.
	Holds(group string) bool
	// Leave releases a group.
	Leave(ctx context.Context, group string) error
}

// alone is the Ownership of a daemon without neighbours.
type alone struct{}

func (alone) Claim(context.Context, string) error { return nil }
func (alone) Renew(context.Context) error         { return nil }
func (alone) Holds(string) bool                   { return true }
func (alone) Leave(context.Context, string) error { return nil }

// groupLeases keeps the leases of the groups that this daemon serves, and
// records when another daemon has taken one.
type groupLeases struct {
	Ownership
	log *slog.Logger

	mu   sync.Mutex
	lost error // another daemon has taken a group; nil while none has
}

// run renews the leases. A failure to ask the database is ignored here: it says
// nothing about the owner, and databaseHealth reports it.
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

// Check returns nil if the group's lease is ours. It is called before each
// write to the database about a group's NAT: after a pause of this process, or
// of the database, another daemon may have the group.
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

// standAside handles the loss of a group to another daemon: from then on this
// daemon changes nothing, neither in the kernel nor in the database, and logs
// that. NAT in the kernel goes on (I9), and so does the recording of
// accounting. Only a person can decide which of the two should serve, so only a
// restart ends this.
func (l *groupLeases) standAside(ctx context.Context, why error) {
	l.mu.Lock()
	l.lost = why
	l.mu.Unlock()
	l.log.Error("another sessiond has taken a group; this one changes nothing any more until it is started again, NAT stays in place", "error", why)
	<-ctx.Done()
}

// taken returns an error if another daemon has taken a group; nil otherwise.
func (l *groupLeases) taken() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lost
}

// leaveAll releases the leases of groups.
func (l *groupLeases) leaveAll(ctx context.Context, names []string) error {
	var errs []error
	for _, name := range names {
		errs = append(errs, l.Leave(ctx, name))
	}
	return errors.Join(errs...)
}
