package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/sessiond/sessiond/internal/config"
	"github.com/sessiond/sessiond/internal/control"
	"github.com/sessiond/sessiond/internal/metrics"
	"github.com/sessiond/sessiond/internal/radiusacct"
	"github.com/sessiond/sessiond/internal/radiusacct/radsec"
	"github.com/sessiond/sessiond/internal/subscriberdb"
)

// reloadOn applies reloaded configurations: RADIUS clients, roles and groups. Other
// keys need a restart, which loses no session either. An invalid or refused
// configuration changes nothing.
func (d *daemon) reloadOn(ctx context.Context, next func(context.Context) (config.Config, error)) error {
	for {
		c, err := next(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil {
			err = d.reload(ctx, c)
		}
		d.metrics.Reloaded(err == nil, time.Now())
		if err != nil {
			d.log.Error("reload refused, the configuration in force stays", "error", err,
				"alarm", "sessiond_config_last_reload_successful")
			continue
		}
		d.metrics.Expect(d.expected(c.RADIUS.Clients))
		d.log.Info("reloaded", "radius_clients", len(c.RADIUS.Clients), "groups", len(c.Groups))
		d.nameUntaken(&c)
	}
}

// nameUntaken logs the keys of a reloaded configuration that are not in force,
// at each reload again.
func (d *daemon) nameUntaken(c *config.Config) {
	if keys := d.config.NeedRestart(c); len(keys) > 0 {
		d.log.Warn("changed keys are read at the start only; restart sessiond, which costs no session", "keys", keys)
	}
	if keys := d.config.FirstValues(c); len(keys) > 0 {
		d.log.Warn("changed keys are first values only; sessionctl settings set changes the live ones", "keys", keys)
	}
}

// roles prepares the roles of a reloaded configuration, and returns a function
// that puts them in force. If they need a restart, the function logs that.
func (d *daemon) roles(c *config.Config) (use func(), err error) {
	if keys := d.config.RolesNeedRestart(c); len(keys) > 0 {
		return func() {
			d.log.Warn("grpc.roles stay as they were, because keys changed that are read at the start only; "+
				"restart sessiond, which costs no session", "keys", keys)
		}, nil
	}
	useRoles, err := d.control.Roles(grants(c.GRPC.Roles))
	if err != nil {
		return nil, fmt.Errorf("grpc.roles: %w", err)
	}
	return func() {
		useRoles()
		d.config.GRPC.Roles = c.GRPC.Roles // the next reload compares with those in force
	}, nil
}

// reload changes groups before clients, because the groups may be refused, and
// then nothing must have changed. If a later step is refused, the groups are
// restored.
func (d *daemon) reload(ctx context.Context, c config.Config) error {
	useRoles, err := d.roles(&c)
	if err != nil {
		return err
	}
	if err := d.needPCP(c.Groups); err != nil {
		return err
	}
	before := d.manager.Groups()
	if err := d.manager.SetGroups(ctx, lsnGroups(c.Groups)); err != nil {
		return err
	}
	var stored []subscriberdb.Group
	err = d.db.ChangeGroups(func(now []subscriberdb.Group) []subscriberdb.Group {
		stored = now
		return served(databaseGroups(c), now, clientTTL(c.RADIUS.Clients), d.manager.Inside())
	})
	if err != nil {
		return errors.Join(err, d.manager.SetGroups(ctx, before))
	}
	if err := d.radius.SetClients(radiusClients(c)); err != nil {
		return errors.Join(err, d.db.SetGroups(stored), d.manager.SetGroups(ctx, before))
	}
	d.db.SetClients(databaseClients(c.RADIUS.Clients))
	d.db.SetPlaces(places(c.RADIUS.Clients), d.manager.OnlineOf)
	d.manager.SetGuards(guards(c.Groups))
	d.manager.SetPCP(pcpRules(c.Groups), d.pcp.lost)
	useRoles()
	return nil
}

// expected returns the label values of the configured clients and of all groups
// that are served.
func (d *daemon) expected(clients []config.RADIUSClient) metrics.Expected {
	e := metrics.Expected{
		Outcomes: outcomes(radiusacct.Outcomes()), Strangers: outcomes(radiusacct.StrangerOutcomes()),
		Closings: radsec.ClosingCauses(), Limit: radsec.RefusedLimit,
		Streams: control.StreamMethods(), StreamEnds: control.StreamEnds(),
		CallRefusals: control.RefusalCauses(), CallClosings: control.ConnectionCauses(),
	}
	for _, kind := range subscriberdb.GarbageKinds() {
		e.Garbage = append(e.Garbage, string(kind))
	}
	for _, b := range subscriberdb.Bounds() {
		e.Bounds = append(e.Bounds, string(b))
	}
	for _, g := range d.db.Groups() {
		e.Groups = append(e.Groups, g.Name)
	}
	overTLS := d.config.RADIUS.RadSec.TLS.CertFile != ""
	if overTLS {
		e.Refusals = radsec.RefusalCauses()
	}
	for _, c := range clients {
		e.Clients = append(e.Clients, c.Name)
		if overTLS && c.Certificate != (config.Certificate{}) {
			e.RadSec = append(e.RadSec, c.Name)
		}
	}
	return e
}

// served adds to the configured groups those that were removed and are still
// served, and sets each group's inside prefixes to those that it serves.
// Otherwise sessions there could not end. The TTLs of clients are the same in
// all groups.
func served(now, before []subscriberdb.Group, ttl map[string]time.Duration, inside map[string][]netip.Prefix) []subscriberdb.Group {
	for _, old := range before {
		_, still := inside[old.Name]
		if still && !slices.ContainsFunc(now, func(g subscriberdb.Group) bool { return g.Name == old.Name }) {
			now = append(now, old)
		}
	}
	for i := range now {
		now[i].Inside, now[i].ClientTTL = inside[now[i].Name], ttl
	}
	return now
}
