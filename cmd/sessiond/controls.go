package main

import (
	"context"
	"time"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/session"
)

// controls adds to the life cycle's status what only the program knows.
type controls struct {
	*session.Manager
	started time.Time
}

// Status returns the daemon at a glance.
func (c controls) Status(ctx context.Context) (inspect.Status, error) {
	s, err := c.Manager.Status(ctx)
	s.Version, s.StartedAt = version, c.started
	return s, err
}
