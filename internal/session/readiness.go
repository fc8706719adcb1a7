package session

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/sessiond/sessiond/internal/inspect"
)

// readiness determines whether the daemon is ready, and the reason if not.
type readiness struct {
	*sharedState
	health *databaseHealth
	leases *groupLeases
}

// notReady returns the reason that the daemon is not ready; nil if it is.
func (r *readiness) notReady() error {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if cause := r.causeRLocked(); cause != "" {
		return errors.New(cause)
	}
	return nil
}

func (r *readiness) causeRLocked() string {
	if err := r.leases.taken(); err != nil {
		return err.Error()
	}
	if err := r.health.failure(); err != nil {
		return fmt.Sprintf("redis: %v", err)
	}
	if r.settled {
		return ""
	}
	const restoring = "restoring bindings and comparing them with database and kernel"
	for _, g := range r.groups {
		if g.failure != nil {
			return fmt.Sprintf("%s: group %s: %v", restoring, g.Name, g.failure)
		}
	}
	return restoring
}

// restoredRLocked returns an error until everything was restored for the first
// time. Before that, an answer would show subscribers as offline and ports as
// free.
func (r *readiness) restoredRLocked() error {
	if r.settled {
		return nil
	}
	return fmt.Errorf("%w: %s", inspect.ErrNotReady, r.causeRLocked())
}

// suspicionRLocked returns why absence in the database proves nothing; "" if it
// does.
func (r *readiness) suspicionRLocked() string {
	var causes []string
	for _, g := range r.groups {
		switch {
		case g.Suspect():
			causes = append(causes, fmt.Sprintf("group %s: the database lost its epoch marker or went back in time", g.Name))
		case g.Unconfirmed() > 0:
			causes = append(causes, fmt.Sprintf("group %s: %d records were written back and no BNG has confirmed them yet", g.Name, g.Unconfirmed()))
		}
	}
	slices.Sort(causes)
	return strings.Join(causes, "; ")
}
