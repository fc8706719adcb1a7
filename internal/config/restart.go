package config

import (
	"reflect"
	"slices"
)

// Reloaded returns the keys that a reload applies: all that are neither in
// readAtStart nor in readOnce.
func Reloaded() []string { return []string{"radius.clients", "grpc.roles", "groups"} }

// readAtStart holds the keys that are read at the start only.
var readAtStart = map[string]func(*Config) any{
	"node":                          func(c *Config) any { return c.Node },
	"redis.url":                     func(c *Config) any { return []any{c.Redis.URLs, c.Redis.Embedded} },
	"redis.mode":                    func(c *Config) any { return c.Redis.Mode },
	"radius.listen":                 func(c *Config) any { return c.RADIUS.Listen },
	"radius.status_server":          func(c *Config) any { return c.RADIUS.StatusServer },
	"radius.infer_realms":           func(c *Config) any { return c.RADIUS.InferRealms },
	"radius.radsec.listen":          func(c *Config) any { return c.RADIUS.RadSec.Listen },
	"radius.radsec.cert_file":       func(c *Config) any { return c.RADIUS.RadSec.TLS.CertFile },
	"radius.radsec.key_file":        func(c *Config) any { return c.RADIUS.RadSec.TLS.KeyFile },
	"radius.radsec.client_ca_file":  func(c *Config) any { return c.RADIUS.RadSec.TLS.ClientCAFile },
	"radius.radsec.idle_timeout":    func(c *Config) any { return c.RADIUS.RadSec.IdleTimeout },
	"radius.radsec.max_connections": func(c *Config) any { return c.RADIUS.RadSec.MaxConnections },
	"radius.radsec.max_connections_per_client": func(c *Config) any {
		return c.RADIUS.RadSec.MaxConnectionsPerClient
	},
	"grpc.listen":             func(c *Config) any { return c.GRPC.Listen },
	"grpc.tls.cert_file":      func(c *Config) any { return c.GRPC.TLS.CertFile },
	"grpc.tls.key_file":       func(c *Config) any { return c.GRPC.TLS.KeyFile },
	"grpc.tls.client_ca_file": func(c *Config) any { return c.GRPC.TLS.ClientCAFile },
	"grpc.insecure":           func(c *Config) any { return c.GRPC.Insecure },

	"grpc.insecure_clients": func(c *Config) any { return c.GRPC.InsecureClients },
	"grpc.socket":           func(c *Config) any { return c.GRPC.Socket },
	"grpc.socket_group":     func(c *Config) any { return c.GRPC.SocketGroup },
	"grpc.local_role":       func(c *Config) any { return c.GRPC.LocalRole },

	"grpc.max_connections":                func(c *Config) any { return c.GRPC.MaxConnections },
	"grpc.max_connections_per_peer":       func(c *Config) any { return c.GRPC.MaxConnectionsPerPeer },
	"grpc.max_streams":                    func(c *Config) any { return c.GRPC.MaxStreams },
	"grpc.max_streams_per_peer":           func(c *Config) any { return c.GRPC.MaxStreamsPerPeer },
	"grpc.call_timeout":                   func(c *Config) any { return c.GRPC.CallTimeout },
	"grpc.stall_timeout":                  func(c *Config) any { return c.GRPC.StallTimeout },
	"audit.file":                          func(c *Config) any { return c.Audit.File },
	"audit.syslog":                        func(c *Config) any { return c.Audit.Syslog },
	"audit.retention.entries":             func(c *Config) any { return c.Audit.Retention.Entries },
	"audit.retention.age":                 func(c *Config) any { return c.Audit.Retention.Age },
	"export":                              func(c *Config) any { return c.Export },
	"history":                             func(c *Config) any { return c.History },
	"http.listen":                         func(c *Config) any { return c.HTTP.Listen },
	"http.console":                        func(c *Config) any { return c.HTTP.Console },
	"http.tls.cert_file":                  func(c *Config) any { return c.HTTP.TLS.CertFile },
	"http.tls.key_file":                   func(c *Config) any { return c.HTTP.TLS.KeyFile },
	"http.anonymous_role":                 func(c *Config) any { return c.HTTP.AnonymousRole },
	"http.hosts":                          func(c *Config) any { return c.HTTP.Hosts },
	"nat.backend":                         func(c *Config) any { return c.NAT.Backend },
	"nat.netns":                           func(c *Config) any { return c.NAT.NetNS },
	"nat.table":                           func(c *Config) any { return c.NAT.Table },
	"nat.inside_interfaces":               func(c *Config) any { return c.NAT.InsideInterfaces },
	"nat.max_ungated_sessions_per_second": func(c *Config) any { return c.NAT.MaxUngatedSessionsPerSecond },
	"nat.max_mappings":                    func(c *Config) any { return c.NAT.MaxMappings },
	"nat.max_sessions_per_subscriber":     func(c *Config) any { return c.NAT.MaxSessionsPerSubscriber },
	"nat.outside_interfaces":              func(c *Config) any { return c.NAT.OutsideInterfaces },
	"pcp.listen":                          func(c *Config) any { return c.PCP.Listen },
	"pcp.anycast":                         func(c *Config) any { return c.PCP.Anycast },
	"log.level":                           func(c *Config) any { return c.Log.Level },
	"log.format":                          func(c *Config) any { return c.Log.Format },
	"nat.flowtables":                      func(c *Config) any { return c.NAT.Flowtables },
	"nat.outside_to_others":               func(c *Config) any { return c.NAT.OutsideToOthers },
}

// readOnce holds the initial values of settings that Redis keeps. Once the
// database has settings, not even a restart applies them.
var readOnce = map[string]func(*Config) any{
	"settings.subscriber_session_removal":    func(c *Config) any { return c.Settings.SubscriberSessionRemoval },
	"settings.idle_timeouts.tcp_established": func(c *Config) any { return c.Settings.TCPEstablished },
	"settings.idle_timeouts.tcp_transitory":  func(c *Config) any { return c.Settings.TCPTransitory },
	"settings.idle_timeouts.udp":             func(c *Config) any { return c.Settings.UDP },
	"settings.idle_timeouts.icmp":            func(c *Config) any { return c.Settings.ICMP },

	"settings.idle_timeouts.tcp_partial_open":  func(c *Config) any { return c.Settings.TCPPartialOpen },
	"settings.idle_timeouts.tcp_partial_close": func(c *Config) any { return c.Settings.TCPPartialClose },
}

// reachKeys are the keys of readAtStart that decide who reaches gRPC, and as whom.
var reachKeys = []string{
	"grpc.insecure", "grpc.insecure_clients", "grpc.listen", "grpc.local_role", "grpc.socket", "grpc.socket_group",
	"grpc.tls.cert_file", "grpc.tls.client_ca_file", "grpc.tls.key_file",
}

// RolesNeedRestart returns the keys, sorted, because of which the roles of the
// other configuration need a restart: these roles were checked with its own listeners,
// and could give everything to everybody who reaches the listeners in force.
func (c *Config) RolesNeedRestart(other *Config) []string {
	if slices.Equal(c.GRPC.Roles, other.GRPC.Roles) {
		return nil
	}
	return slices.DeleteFunc(c.NeedRestart(other), func(key string) bool {
		// Where there are roles, whoever can open the socket needs one of them.
		harmless := key == "grpc.socket_group" && len(other.GRPC.Roles) > 0
		return harmless || !slices.Contains(reachKeys, key)
	})
}

// NeedRestart returns the keys, sorted, that differ in the other configuration
// and need a restart.
func (c *Config) NeedRestart(other *Config) []string { return c.differing(other, readAtStart) }

// FirstValues returns the keys, sorted, that differ in the other configuration
// and are initial values of live settings.
func (c *Config) FirstValues(other *Config) []string { return c.differing(other, readOnce) }

func (c *Config) differing(other *Config, keys map[string]func(*Config) any) []string {
	var differ []string
	for key, value := range keys {
		if !reflect.DeepEqual(value(c), value(other)) {
			differ = append(differ, key)
		}
	}
	slices.Sort(differ)
	return differ
}
