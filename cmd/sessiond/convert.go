package main

import (
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/access"
	"github.com/sessiond/sessiond/internal/config"
	"github.com/sessiond/sessiond/internal/control"
	"github.com/sessiond/sessiond/internal/guard"
	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/lsn"
	"github.com/sessiond/sessiond/internal/metrics"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/nftnat"
	"github.com/sessiond/sessiond/internal/radiusacct"
	"github.com/sessiond/sessiond/internal/radiusacct/radsec"
	"github.com/sessiond/sessiond/internal/radiusacct/wire"
	"github.com/sessiond/sessiond/internal/session"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb"
)

// This file converts the configuration into the options of each package.

func lsnGroups(groups []config.Group) []lsn.GroupConfig {
	configs := make([]lsn.GroupConfig, len(groups))
	for i, g := range groups {
		configs[i] = lsn.GroupConfig{
			Name: g.Name, Inside: g.Inside, Outside: g.Outside, Draining: g.Draining,
			FirstPort: nat.Port(g.FirstPort), LastPort: nat.Port(g.LastPort),
			BlockSize: g.BlockSize, MaxBlocks: g.MaxBlocks, Hold: g.Hold, Deterministic: g.Deterministic,
			Grace: g.Removal.Grace, GraceCauses: g.Removal.GraceCauses,
			Limits: limits(g.Limits), Learned: learned(&g), Timeouts: timeouts(&g), NoNAT: noNAT(&g), Static: staticPorts(&g),
		}
	}
	return configs
}

func staticPorts(g *config.Group) lsn.StaticPorts {
	s := lsn.StaticPorts{First: nat.Port(g.Static.First), Last: nat.Port(g.Static.Last), PerOwner: g.Static.PerOwner}
	if g.PCP.Enabled {
		s.PCP = lsn.PCP{On: true, Mappings: g.PCP.Mappings, ThirdParty: g.PCP.ThirdParty}
	}
	for _, m := range g.Static.Mappings {
		s.Mappings = append(s.Mappings, nat.Mapping{
			Group: g.Name, Kind: nat.MappingStatic, Configured: true, Owner: nat.Owner{UserName: m.User, Inside: m.Inside},
			InsidePort: nat.Port(m.InsidePort), Outside: nat.Endpoint{Protocol: protocols[m.Protocol], AddrPort: m.Outside},
		})
	}
	return s
}

func limits(l config.Limits) nat.Limits {
	return nat.Limits{
		Sessions: l.Sessions, NewSessionsPerSecond: l.NewSessionsPerSecond, TCPPorts: l.TCPPorts, UDPPorts: l.UDPPorts, Reserve: l.Reserve,
	}
}

func databaseGroups(c config.Config) []subscriberdb.Group {
	stored := make([]subscriberdb.Group, len(c.Groups))
	for i, g := range c.Groups {
		stored[i] = subscriberdb.Group{
			Name: g.Name, Inside: g.Inside, RecordTTL: g.RecordTTL, ClientTTL: clientTTL(c.RADIUS.Clients),
			Guard: guard.Limits(g.Guard),
		}
	}
	return stored
}

// clientTTL returns the record_ttl of the clients that have one, and of their
// realms, because a session carries the name of its realm. A session from
// before its client joined the realm carries the client's name.
func clientTTL(clients []config.RADIUSClient) map[string]time.Duration {
	own := map[string]time.Duration{}
	for _, c := range clients {
		if c.RecordTTL == nil {
			continue
		}
		own[c.Name] = *c.RecordTTL
		if c.Realm != "" {
			own[c.Realm] = *c.RecordTTL
		}
	}
	return own
}

func guards(groups []config.Group) map[string]guard.Limits {
	limits := make(map[string]guard.Limits, len(groups))
	for _, g := range groups {
		limits[g.Name] = guard.Limits(g.Guard)
	}
	return limits
}

func databaseOptions(c config.Config, client redis.UniversalClient, m *metrics.Metrics, log *slog.Logger) subscriberdb.Options {
	return subscriberdb.Options{
		OnVerdict: m.Verdict, Refused: m.Refused, Conflict: m.NASConflict,
		Garbage:   func(group string, kind subscriberdb.Garbage) { m.Garbage(group, string(kind)) },
		Unwritten: m.AuditUnwritten,
		Limited:   func(client string, b subscriberdb.Bound) { m.BoundReached(client, string(b)) },
		Client:    client, Clients: databaseClients(c.RADIUS.Clients), NamedRealms: !c.RADIUS.InferRealms, Groups: databaseGroups(c), Node: c.Node, Logger: log,
		LogNAT: logsNAT(&c),
	}
}

func natOptions(c config.Config, log *slog.Logger) nftnat.Options {
	t := session.TermsOf(lsnGroups(c.Groups), c.NAT.MaxMappings)
	return nftnat.Options{
		NetNS: c.NAT.NetNS, Table: c.NAT.Table,
		InsideInterfaces: c.NAT.InsideInterfaces, OutsideInterfaces: c.NAT.OutsideInterfaces,
		InsidePrefixes: t.Inside, OutsidePrefixes: t.Outside, KeepPrefixes: true, // Redis has the other prefixes still served
		NoNAT:           t.NoNAT,
		OutsideToOthers: c.NAT.OutsideToOthers == "accept", Flowtables: flowtableModes[c.NAT.Flowtables],
		MaxSessions: c.NAT.MaxSessionsPerSubscriber, MaxUngated: c.NAT.MaxUngatedSessionsPerSecond,
		Limits: t.Limits, Mappings: t.Mappings, Static: t.Static, PCP: t.PCP,
		Timeouts: firstSettings(c.Settings).IdleTimeouts, GroupTimeouts: t.Timeouts, Logger: log,
	}
}

var flowtableModes = map[string]nftnat.FlowtableMode{
	"refuse": nftnat.RefuseFlowtables, "accept": nftnat.AcceptFlowtables, "own": nftnat.OwnFlowtable,
}

func timeouts(g *config.Group) nat.GroupTimeouts {
	t := nat.GroupTimeouts{Own: nat.Timeouts(g.IdleTimeouts)}
	for _, p := range g.PortTimeouts {
		t.Ports = append(t.Ports, nat.PortTimeout{Protocol: protocols[p.Protocol], Port: p.Port, Timeout: p.Timeout})
	}
	return t
}

// protocols are the numbers of the protocols that can be named.
var protocols = map[string]uint8{"": 0, "icmp": unix.IPPROTO_ICMP, "tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP}

func noNAT(g *config.Group) []nat.NoNAT {
	var list []nat.NoNAT
	for _, n := range g.NoNAT {
		list = append(list, nat.NoNAT{Remote: n.Prefix, Protocol: protocols[n.Protocol], First: n.FirstPort, Last: n.LastPort})
	}
	return list
}

func learned(g *config.Group) nat.Learned {
	return nat.Learned{
		EndpointIndependent: g.Mapping == config.EndpointIndependent,
		Open:                g.Filtering == config.EndpointIndependent,
		Strict:              !g.Overload,
	}
}

func grpcLimits(c config.GRPC) control.Limits {
	return control.Limits{
		Connections: c.MaxConnections, ConnectionsPerPeer: c.MaxConnectionsPerPeer,
		Streams: c.MaxStreams, StreamsPerPeer: c.MaxStreamsPerPeer, StallTimeout: c.StallTimeout, CallTimeout: c.CallTimeout,
	}
}

func grants(roles []config.GRPCRole) []control.Grant {
	var all []control.Grant
	for _, r := range roles {
		all = append(all, control.Grant{
			Role: role(r.Role), SAN: r.SAN, UnixGroup: r.UnixGroup, TokenFile: r.TokenFile, Name: r.Name,
		})
	}
	return all
}

func role(name string) access.Role {
	r, _ := access.ParseRole(name) // the configuration was validated
	return r
}

func firstSettings(c config.Settings) inspect.Settings {
	removal, _ := inspect.ParseRemovalMode(c.SubscriberSessionRemoval) // the configuration was validated
	return inspect.Settings{
		Removal:      removal,
		IdleTimeouts: nat.Timeouts(c.IdleTimeouts),
	}
}

var (
	nasIdentities = map[string]wire.NASIdentity{
		"identifier": wire.NASIdentifier, "address": wire.NASAddress, "both": wire.NASBoth,
	}
	restartPolicies = map[string]subscriber.RestartPolicy{
		"believe": subscriber.RestartsBelieved, "ignore": subscriber.RestartsIgnored, "confirm": subscriber.RestartsConfirmed,
	}
)

// bounds returns the inside addresses that a client may report, nil for all.
func bounds(c config.RADIUSClient, groups []config.Group) []netip.Prefix {
	if len(c.Inside)+len(c.Groups) == 0 {
		return nil
	}
	bounds := append([]netip.Prefix{}, c.Inside...) // not nil, although the groups may be empty
	for _, g := range groups {
		if slices.Contains(c.Groups, g.Name) {
			bounds = append(bounds, g.Inside...)
		}
	}
	return bounds
}

// databaseClients returns the realm of each client, "" for none.
func databaseClients(clients []config.RADIUSClient) subscriberdb.Realms {
	realms := make(subscriberdb.Realms, len(clients))
	for _, c := range clients {
		realms[c.Name] = c.Realm
	}
	return realms
}

// places returns the limit of online subscribers of each client that has one.
func places(clients []config.RADIUSClient) map[string]int {
	limits := map[string]int{}
	for _, c := range clients {
		if c.MaxSubscribers > 0 {
			limits[c.Name] = c.MaxSubscribers
		}
	}
	return limits
}

// radiusClients returns an entry for each source of a client.
func radiusClients(configured config.Config) []radiusacct.Client {
	var converted []radiusacct.Client
	for _, c := range configured.RADIUS.Clients {
		client := radiusacct.Client{
			Name: c.Name, Secret: c.Secret, PreviousSecret: c.PreviousSecret,
			Certificate:                 radsec.Certificate{SAN: c.Certificate.SAN, Fingerprint: c.Certificate.Fingerprint},
			RequireMessageAuthenticator: c.RequireMessageAuthenticator,
			AcknowledgeIncomplete:       c.AcknowledgeIncomplete,
			IgnoreStatusServer:          !c.StatusServer,
			Inside:                      bounds(c, configured.Groups),
			Realm:                       c.Realm,
			NASIdentity:                 nasIdentities[c.NASIdentity],
			Restarts:                    restartPolicies[c.Restarts],
			CountServices:               c.Services == "count",
		}
		for _, m := range c.ServiceMarks {
			client.ServiceMarks = append(client.ServiceMarks, wire.VendorAttribute(m))
		}
		if len(c.Prefixes) == 0 {
			converted = append(converted, client)
		}
		for _, client.Prefix = range c.Prefixes {
			converted = append(converted, client)
			client.Certificate = radsec.Certificate{} // only the first entry has it
		}
	}
	return converted
}

func outcomes(all []radiusacct.Outcome) []metrics.Outcome {
	converted := make([]metrics.Outcome, len(all))
	for i, o := range all {
		converted[i] = metrics.Outcome(o)
	}
	return converted
}

// radsecOptions converts the RadSec options, nil without RadSec.
func radsecOptions(c config.RadSec) *radsec.Options {
	if c.TLS.CertFile == "" {
		return nil
	}
	return &radsec.Options{
		Listen: c.Listen, CertFile: c.TLS.CertFile, KeyFile: c.TLS.KeyFile, ClientCAFile: c.TLS.ClientCAFile,
		IdleTimeout: c.IdleTimeout, MaxConnections: c.MaxConnections,
		MaxConnectionsPerClient: c.MaxConnectionsPerClient,
	}
}
