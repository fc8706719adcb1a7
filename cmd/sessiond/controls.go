package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/session"
)

// controls adds to the life cycle's status the values that only the program
// has.
type controls struct {
	*session.Backend
	nat     backend
	log     *slog.Logger
	started time.Time
}

// Status returns a summary of the daemon's state.
func (c controls) Status(ctx context.Context) (inspect.Status, error) {
	s, err := c.Backend.Status(ctx)
	s.Version, s.StartedAt, s.Foreign = version, c.started, c.foreign(ctx)
	f := c.nat.Flowtables()
	s.Flowtables = inspect.Flowtables{Mode: f.Mode.String(), Others: f.Others, Refused: f.Refused}
	return s, err
}

// foreign returns the flows that rules of other tables translated. Only if
// there are any, it reads the chains of all tables.
func (c controls) foreign(ctx context.Context) inspect.ForeignTranslations {
	strays := c.nat.Strays()
	if strays.Count == 0 {
		return inspect.ForeignTranslations{}
	}
	chains, err := c.nat.Translators(ctx)
	if err != nil {
		c.log.Debug("chains of others are not known", "error", err)
	}
	newest := strays.Newest
	return inspect.ForeignTranslations{Flows: int(strays.Count), At: newest.At, Inside: newest.Inside, SeenAs: newest.Outside, Chains: chains}
}
