package main

import (
	"log/slog"
	"net/netip"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/config"
	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/lsn"
	"github.com/sessiond/sessiond/internal/nftnat"
	"github.com/sessiond/sessiond/internal/radiusacct"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb"
)

// This file turns the configuration into what each package asks for.

func lsnGroups(groups []config.Group) []lsn.GroupConfig {
	configs := make([]lsn.GroupConfig, len(groups))
	for i, g := range groups {
		configs[i] = lsn.GroupConfig{
			Name: g.Name, Inside: g.Inside, Outside: g.Outside,
			FirstPort: lsn.Port(g.FirstPort), LastPort: lsn.Port(g.LastPort),
			BlockSize: g.BlockSize, Hold: g.Hold,
		}
	}
	return configs
}

func databaseGroups(groups []config.Group) []subscriberdb.Group {
	stored := make([]subscriberdb.Group, len(groups))
	for i, g := range groups {
		stored[i] = subscriberdb.Group{Name: g.Name, Inside: g.Inside, RecordTTL: g.RecordTTL}
	}
	return stored
}

func databaseOptions(c config.Config, client redis.UniversalClient, observe func(string, subscriber.Verdict), log *slog.Logger) subscriberdb.Options {
	return subscriberdb.Options{
		Observe: observe,
		Client:  client, Groups: databaseGroups(c.Groups), Node: c.Node, Logger: log,
	}
}

func natOptions(c config.Config, log *slog.Logger) nftnat.Options {
	var inside, outside []netip.Prefix
	for _, g := range c.Groups {
		inside = append(inside, g.Inside...)
		outside = append(outside, g.Outside...)
	}
	return nftnat.Options{
		NetNS: c.NAT.NetNS, Table: c.NAT.Table,
		InsideInterfaces: c.NAT.InsideInterfaces, OutsideInterfaces: c.NAT.OutsideInterfaces,
		InsidePrefixes: inside, OutsidePrefixes: outside,
		Timeouts: nftnat.Timeouts(firstSettings(c.Settings).IdleTimeouts), Logger: log,
	}
}

func firstSettings(c config.Settings) inspect.Settings {
	return inspect.Settings{
		SubscriberSessionRemoval: c.SubscriberSessionRemoval,
		IdleTimeouts: inspect.IdleTimeouts{
			TCPEstablished: c.TCPEstablished, TCPTransitory: c.TCPTransitory, UDP: c.UDP, ICMP: c.ICMP,
		},
	}
}

func radiusClients(clients []config.RADIUSClient) []radiusacct.Client {
	converted := make([]radiusacct.Client, len(clients))
	for i, c := range clients {
		converted[i] = radiusacct.Client{
			Name: c.Name, Prefix: c.Prefix, Secret: c.Secret, PreviousSecret: c.PreviousSecret,
			Certificate:                 radiusacct.Certificate{SAN: c.Certificate.SAN, Fingerprint: c.Certificate.Fingerprint},
			RequireMessageAuthenticator: c.RequireMessageAuthenticator,
			AcknowledgeIncomplete:       c.AcknowledgeIncomplete,
			IgnoreStatusServer:          !c.StatusServer,
		}
	}
	return converted
}

// radsecOptions returns nil without RadSec.
func radsecOptions(c config.RadSec) *radiusacct.RadSec {
	if c.TLS.CertFile == "" {
		return nil
	}
	return &radiusacct.RadSec{
		Listen: c.Listen, CertFile: c.TLS.CertFile, KeyFile: c.TLS.KeyFile, ClientCAFile: c.TLS.ClientCAFile,
		IdleTimeout: c.IdleTimeout, MaxConnections: c.MaxConnections,
		MaxConnectionsPerClient: c.MaxConnectionsPerClient,
	}
}
