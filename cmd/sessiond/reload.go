package main

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/sessiond/sessiond/internal/config"
	"github.com/sessiond/sessiond/internal/subscriberdb"
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
	s.manager.SetGuards(guards(c.Groups))
	s.groups = served(databaseGroups(c), s.groups, clientTTL(c.RADIUS.Clients), s.manager.Inside())
	if err := s.db.SetGroups(s.groups); err != nil {
		return err
	}
	return s.radius.SetClients(radiusClients(c.RADIUS.Clients))
}

// served adds to the groups of a configuration those that were taken out of it,
// and gives each the inside prefixes that it still serves: what is online there
// could not end otherwise. How long clients' records live is the same in all.
func served(now, before []subscriberdb.Group, ttl map[string]time.Duration, inside map[string][]netip.Prefix) []subscriberdb.Group {
	for _, old := range before {
		if !slices.ContainsFunc(now, func(g subscriberdb.Group) bool { return g.Name == old.Name }) {
			now = append(now, old)
		}
	}
	for i := range now {
		now[i].Inside, now[i].ClientTTL = inside[now[i].Name], ttl
	}
	return now
}
