package main

import (
	"context"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/metrics"
	"github.com/sessiond/sessiond/internal/nftnat"
	"github.com/sessiond/sessiond/internal/radiusacct"
	"github.com/sessiond/sessiond/internal/session"
	"github.com/sessiond/sessiond/internal/subscriberdb"
)

// source provides the states for the metrics.
type source struct {
	manager *session.Manager
	nat     backend
	radius  *radiusacct.Server
	db      *subscriberdb.DB
}

// Snapshot implements metrics.Source.
func (s source) Snapshot() metrics.Snapshot {
	ctx := context.Background()
	status, _ := s.manager.Backend().Status(ctx) // never fails
	pools, _ := s.manager.Backend().Pools(ctx)
	drops, _ := s.nat.Drops(ctx) // on error those last read
	snapshot := metrics.Snapshot{
		Ready: status.NotReady == "", RedisUp: status.DatabaseUp, Notified: s.db.Notified(), DatabaseSuspect: status.DatabaseSuspect != "", Sessions: status.Sessions,
		RADIUS: metrics.RADIUS(s.radius.Losses()), Index: metrics.Index(s.nat.IndexStats()), Barrier: s.nat.Barrier(), Fill: metrics.Fill(s.nat.Fill()), Strays: s.nat.Strays().Count, Drops: drops,
		Learned: metrics.Learned(s.nat.MappingFill()), Flowtables: flowtables(s.nat.Flowtables()),
	}
	uses := map[string]*inspect.PortUse{}
	for _, u := range s.manager.Backend().LastPortUse() {
		uses[u.Group] = &u
	}
	mapped := s.manager.Backend().MappingCounts()
	for _, g := range status.Groups {
		blocks := map[string]int{"used": 0, "held": 0, "free": 0}
		for _, p := range pools {
			if p.Group == g.Name {
				blocks["used"] += p.Used
				blocks["held"] += p.Held
				blocks["free"] += p.Free
			}
		}
		var use inspect.PortUse
		if u := uses[g.Name]; u != nil {
			use = *u
		}
		snapshot.Groups = append(snapshot.Groups, metrics.Group{
			Name: g.Name, Subscribers: g.Subscribers, Pending: g.Pending, FeedLag: g.FeedLag, Blocks: blocks,
			FeedGaps: g.FeedGaps, FeedFill: g.FeedFill,
			Bindings:     map[string]int{"active": g.Active, "draining": g.Draining, "cut": g.Cut, "held": g.Held},
			Mappings:     mapped[g.Name],
			RemovalsHeld: g.RemovalsHeld, Owner: s.manager.OwnsNAT(g.Name),
			Ports: use.Total(), Users: use.Current, PeakUsers: use.Peaks,
		})
	}
	return snapshot
}

func flowtables(f nftnat.Flowtables) metrics.Flowtables {
	others := len(f.Others)
	m := metrics.Flowtables{Own: f.Mode == nftnat.OwnFlowtable, Accepted: others}
	if f.Refused {
		m.Accepted, m.Refused = 0, others
	}
	return m
}
