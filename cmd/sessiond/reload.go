package main

import (
	"context"

	"github.com/sessiond/sessiond/internal/config"
)

// reloadOn applies reloaded configurations: RADIUS clients and groups. The rest
// needs a restart, which loses no session either.
func (s *service) reloadOn(ctx context.Context, next func(context.Context) (config.Config, error)) error {
	for {
		c, err := next(ctx)
		if err != nil {
			return err
		}
		if err := s.reload(ctx, c); err != nil {
			s.log.Error("reload refused, the configuration in force stays", "err", err)
			continue
		}
		s.log.Info("reloaded", "radius_clients", len(c.RADIUS.Clients), "groups", len(c.Groups))
	}
}

// reload takes groups before clients: the groups may be refused, in which case
// nothing must have changed.
func (s *service) reload(ctx context.Context, c config.Config) error {
	if err := s.manager.SetGroups(ctx, lsnGroups(c.Groups)); err != nil {
		return err
	}
	if err := s.db.SetGroups(databaseGroups(c.Groups)); err != nil {
		return err
	}
	return s.radius.SetClients(radiusClients(c.RADIUS.Clients))
}
