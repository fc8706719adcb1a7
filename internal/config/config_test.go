package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/natlog"
)

const example = "../../sessiond.example.yaml"

// minimal has the required keys only.
const minimal = `
radius:
  clients:
    - name: bng1
      prefix: 192.0.2.0/24
      secret: testing123
nat:
  inside_interfaces: [s0]
  outside_interfaces: [i0]
groups:
  - name: default
    inside: [100.64.0.0/10]
    outside: [198.51.100.0/28]
`

func mustParse(t *testing.T, text string) (Config, []string) {
	t.Helper()
	c, warnings, err := Parse("test.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c, warnings
}

// TestReferenceHasTheDefaults: the values in the reference equal those of a
// file without these keys.
func TestReferenceHasTheDefaults(t *testing.T) {
	got, warnings, err := Load(example)
	if err != nil || warnings != nil {
		t.Fatal(err, warnings)
	}
	want, _ := mustParse(t, minimal)
	want.Node = "cgn1" // the only optional key whose default is not fixed
	if !reflect.DeepEqual(got, want) {
		t.Errorf("reference: %+v\ndefaults:  %+v", got, want)
	}
}

// TestReferenceHasEveryKey: the reference has every key that the loader lists
// as known.
func TestReferenceHasEveryKey(t *testing.T) {
	text, err := os.ReadFile(example)
	if err != nil {
		t.Fatal(err)
	}
	for _, section := range []string{
		"x: 1", "redis: {x: 1}", "radius: {x: 1}", "radius: {clients: [{x: 1}]}", "radius: {radsec: {x: 1}}",
		"radius: {clients: [{certificate: {x: 1}}]}", "grpc: {x: 1}", "grpc: {tls: {x: 1}}", "grpc: {roles: [{x: 1}]}",
		"http: {x: 1}", "history: {x: 1}", "history: {retention: {x: 1}}", "export: {x: 1}", "export: {spool: {x: 1}}", "export: {ipfix: [{x: 1}]}", "export: {netflow9: [{x: 1}]}", "export: {syslog: [{x: 1}]}", "export: {http: [{x: 1}]}", "nat: {x: 1}", "settings: {x: 1}", "settings: {idle_timeouts: {x: 1}}", "groups: [{x: 1}]",
		"groups: [{guard: {x: 1}}]", "groups: [{no_nat: [{x: 1}]}]", "groups: [{removal: {x: 1}}]", "groups: [{limits: {x: 1}}]", "groups: [{static_mappings: [{x: 1}]}]", "groups: [{outside: [{x: 1}]}]", "log: {x: 1}",
	} {
		_, _, err := Parse("test.yaml", []byte(section))
		known := regexp.MustCompile(`x: unknown key; known here: (.*)`).FindStringSubmatch(err.Error())
		if known == nil {
			t.Fatalf("%s: %v", section, err)
		}
		for _, key := range strings.Split(known[1], ", ") {
			if !regexp.MustCompile(`(?m)^[^#\n]*\b` + key + `:|^\s*# ` + key + `:`).Match(text) {
				t.Errorf("%s: key %s is not in the reference", section, key)
			}
		}
	}
}

// TestReferenceMarksDefaults: a value marked as default is the default:
// removing its line changes nothing.
func TestReferenceMarksDefaults(t *testing.T) {
	data, err := os.ReadFile(example)
	if err != nil {
		t.Fatal(err)
	}
	want, _, err := Parse(example, data)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(data), "\n")
	marked := 0
	for i, line := range lines {
		if !strings.Contains(line, "# default") {
			continue
		}
		marked++
		rest := strings.Join(slices.Delete(slices.Clone(lines), i, i+1), "\n")
		rest = regexp.MustCompile(`(?m)^(redis|http):\n((\s*#.*)?\n)*(\S|\z)`).ReplaceAllString(rest, "$4") // sections left empty
		if got, _, err := Parse(example, []byte(rest)); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q is not the default: %v", line, err)
		}
	}
	if marked < 15 {
		t.Errorf("only %d values are marked as defaults", marked)
	}
}

// fingerprint is in the form that openssl prints.
var fingerprint = strings.Repeat("AB:", 31) + "AB"

// twoRealms are two realms of two clients each.
const twoRealms = `    - {name: p1, realm: a, prefix: 10.0.0.1/32, secret: a, nas_identity: both, record_ttl: 1h}
    - {name: p2, realm: a, prefix: 10.0.0.2/32, secret: b, nas_identity: both, record_ttl: 1h, acknowledge_incomplete: true}
    - {name: p3, realm: b, prefix: 10.0.0.3/32, secret: c, restarts: ignore, services: count, service_marks: [26-1-1]}
    - {name: p4, realm: b, prefix: 10.0.0.4/32, secret: c, restarts: ignore, services: count, service_marks: [26-1-1]}
`

func TestValues(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "s"), []byte("from a file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, old, text string
		get             func(Config) any
		want            any
	}{
		{"secret file", "secret: testing123", "secret_file: s", func(c Config) any { return string(c.RADIUS.Clients[0].Secret) }, "from a file"},
		{"previous secret", "secret: testing123", "secret: new\n      previous_secret: old", func(c Config) any { return string(c.RADIUS.Clients[0].PreviousSecret) }, "old"},
		{"previous secret file", "secret: testing123", "secret: new\n      previous_secret_file: s", func(c Config) any { return string(c.RADIUS.Clients[0].PreviousSecret) }, "from a file"},
		{"acknowledge incomplete", "secret: testing123", "secret: a\n      acknowledge_incomplete: true", func(c Config) any { return c.RADIUS.Clients[0].AcknowledgeIncomplete }, true},
		{"no Status-Server of a client", "secret: testing123", "secret: a\n      status_server: false", func(c Config) any { return c.RADIUS.Clients[0].StatusServer || !c.RADIUS.StatusServer }, false},
		{"own record TTL", "secret: testing123", "secret: a\n      record_ttl: 24h", func(c Config) any { return *c.RADIUS.Clients[0].RecordTTL }, 24 * time.Hour},
		{"no expiry of a client's", "secret: testing123", "secret: a\n      record_ttl: 0s", func(c Config) any { return *c.RADIUS.Clients[0].RecordTTL }, time.Duration(0)},
		{"no Status-Server", "radius:", "radius:\n  status_server: false", func(c Config) any { return c.RADIUS.StatusServer }, false},
		{"RadSec", "radius:", "radius:\n  radsec: {cert_file: s, key_file: s, listen: ['[::1]:0']}", func(c Config) any { return c.RADIUS.RadSec.Listen[0] }, "[::1]:0"},
		{"RadSec limits", "radius:", "radius:\n  radsec: {idle_timeout: 90s, max_connections: 3, max_connections_per_client: 2}", func(c Config) any { return c.RADIUS.RadSec.IdleTimeout }, 90 * time.Second},
		{"client by fingerprint alone", "prefix: 192.0.2.0/24\n      secret: testing123", "certificate: {fingerprint: '" + fingerprint + "'}\n  radsec: {cert_file: s, key_file: s}", func(c Config) any { return c.RADIUS.Clients[0].Certificate.Fingerprint[31] }, byte(0xab)},
		{"client by name", "secret: testing123", "secret: a\n      certificate: {san: bng1.example}\n  radsec: {cert_file: s, key_file: s, client_ca_file: s}", func(c Config) any { return c.RADIUS.Clients[0].Certificate.SAN }, "bng1.example"},
		{"numeric secret", "testing123", "0123", func(c Config) any { return string(c.RADIUS.Clients[0].Secret) }, "0123"},
		{"address as prefix", "192.0.2.0/24", "2001:db8::1", func(c Config) any { return c.RADIUS.Clients[0].Prefixes[0].String() }, "2001:db8::1/128"},
		{"several prefixes", "prefix: 192.0.2.0/24", "prefixes: [192.0.2.0/25, 2001:db8::1]", func(c Config) any { return fmt.Sprint(c.RADIUS.Clients[0].Prefixes) }, "[192.0.2.0/25 2001:db8::1/128]"},
		{"prefixes beside the prefix", "secret: testing123", "secret: a\n      prefixes: [198.51.100.9]", func(c Config) any { return fmt.Sprint(c.RADIUS.Clients[0].Prefixes) }, "[192.0.2.0/24 198.51.100.9/32]"},
		{"prefix within a prefix", "secret: testing123", "secret: a\n      prefixes: [192.0.2.9]", func(c Config) any { return len(c.RADIUS.Clients[0].Prefixes) }, 2},
		{"realm", "secret: testing123", "secret: a\n      realm: core", func(c Config) any { return c.RADIUS.Clients[0].Realm }, "core"},
		{"realm named like its client", "secret: testing123", "secret: a\n      realm: bng1", func(c Config) any { return c.RADIUS.Clients[0].Realm }, "bng1"},
		{"NAS identity", "secret: testing123", "secret: a\n      nas_identity: both", func(c Config) any { return c.RADIUS.Clients[0].NASIdentity }, "both"},
		{"restarts", "secret: testing123", "secret: a\n      restarts: confirm", func(c Config) any { return c.RADIUS.Clients[0].Restarts }, "confirm"},
		{"services", "secret: testing123", "secret: a\n      services: count", func(c Config) any { return c.RADIUS.Clients[0].Services }, "count"},
		{"as ever", "", "", func(c Config) any {
			d := c.RADIUS.Clients[0]
			return d.NASIdentity + " " + d.Restarts + " " + d.Services + d.Realm
		}, "identifier believe ignore"},
		{"service marks", "secret: testing123", "secret: a\n      service_marks: [26-2352-190]", func(c Config) any { return c.RADIUS.Clients[0].ServiceMarks[0] }, VendorAttribute{2352, 190}},
		{"sources with secrets of their own", "nat:", "    - {name: bng1, prefix: 198.51.100.0/24, secret: other}\nnat:", func(c Config) any {
			return c.RADIUS.Clients[1].Name + " " + string(c.RADIUS.Clients[1].Secret)
		}, "bng1 other"},
		{"client known by certificate too", "nat:", "    - {name: bng1, certificate: {fingerprint: '" + fingerprint + "'}}\n  radsec: {cert_file: s, key_file: s}\nnat:", func(c Config) any { return len(c.RADIUS.Clients) }, 2},
		{"two realms of two", "nat:", twoRealms + "nat:", func(c Config) any { return len(c.RADIUS.Clients) }, 5},
		{"several urls", "", "redis: {url: ['redis://a:1', 'redis://b:1'], mode: cluster}\n", func(c Config) any { return len(c.Redis.URLs) }, 2},
		{"embedded", "", "redis: {url: embedded}\n", func(c Config) any { return c.Redis.Embedded && c.Redis.URLs == nil }, true},
		{"unix redis", "", "redis: {url: unix:///run/redis.sock}\n", func(c Config) any { return c.Redis.URLs[0] }, "unix:///run/redis.sock"},
		{"unix grpc", "", "grpc: {listen: 'unix:/run/s.sock'}\n", func(c Config) any { return c.GRPC.Listen }, "unix:/run/s.sock"},
		{"insecure grpc", "", "grpc: {listen: ':7900', insecure: true}\n", func(c Config) any { return c.GRPC.Insecure }, true},
		{"grpc by TLS for everybody", "", "grpc: {listen: ':7900', insecure_clients: true, tls: {cert_file: s, key_file: s}}\n", func(c Config) any { return c.GRPC.InsecureClients }, true},
		{"grpc by TLS on loopback", "", "grpc: {tls: {cert_file: s, key_file: s}}\n", func(c Config) any { return c.GRPC.InsecureClients }, false},
		{"grpc by certificates", "", "grpc: {listen: ':7900', tls: {cert_file: s, key_file: s, client_ca_file: s}}\n", func(c Config) any { return c.GRPC.Socket }, ""},
		{"grpc socket by itself", "", "grpc: {local_role: viewer}\n", func(c Config) any { return c.GRPC.Listen + " " + c.GRPC.Socket + " " + c.GRPC.LocalRole }, "127.0.0.1:7900 /run/sessiond/grpc.sock viewer"},
		{"grpc address alone", "", "grpc: {listen: '127.0.0.1:0'}\n", func(c Config) any { return c.GRPC.Socket }, ""},
		{"grpc socket beside the usual address", "", "grpc: {listen: '127.0.0.1:7900'}\n", func(c Config) any { return c.GRPC.Socket }, "/run/sessiond/grpc.sock"},
		{"no grpc socket", "", "grpc: {socket: ''}\n", func(c Config) any { return c.GRPC.Socket }, ""},
		{"grpc socket and address", "", "grpc: {listen: '127.0.0.1:0', socket: /run/s.sock, socket_group: noc}\n", func(c Config) any { return c.GRPC.Socket + " " + c.GRPC.SocketGroup }, "/run/s.sock noc"},
		{"audit file beside the configuration", "", "audit: {file: audit.json}\n", func(c Config) any { return c.Audit.File }, filepath.Join(dir, "audit.json")},
		{"audit", "", "audit: {file: /var/log/a, syslog: 'udp://192.0.2.5', retention: {entries: 0, age: 24h}}\n", func(c Config) any { return c.Audit },
			Audit{File: "/var/log/a", Syslog: "udp://192.0.2.5", Retention: AuditRetention{Age: 24 * time.Hour}}},
		{"export", "", `export:
  ipfix: [{collector: 'tls://c', observation_domain: 7, template_interval: 10s, user_name: fixed}]
  netflow9: [{collector: 'udp://192.0.2.5', source_id: 4294967295}]
  syslog: [{collector: 'udp://192.0.2.5', pen: 99}]
  http: [{url: 'https://c/a', batch: 50}]
  interim_interval: 1h
  spool: {path: spool, size: 512MiB}
`, func(c Config) any { return fmt.Sprintf("%+v", c.Export) }, fmt.Sprintf("%+v", Export{Collectors: []Collector{
			{Protocol: natlog.IPFIX, Target: "tls://c", Domain: 7, TemplateInterval: 10 * time.Second, FixedNames: true},
			{Protocol: natlog.NetFlow9, Target: "udp://192.0.2.5", Domain: 1<<32 - 1}, {Protocol: natlog.Syslog, Target: "udp://192.0.2.5", PEN: 99},
			{Protocol: natlog.HTTP, Target: "https://c/a", Batch: 50},
		}, Interim: time.Hour, SpoolPath: filepath.Join(dir, "spool"), SpoolSize: 512 << 20})},
		{"history", "", "history: {path: h, retention: {age: 30d, size: 10GiB}, interim_interval: 1h, signing_key_file: /k}\n", func(c Config) any { return c.History },
			History{Path: filepath.Join(dir, "h"), MaxAge: 30 * 24 * time.Hour, MaxOctets: 10 << 30, Interim: time.Hour, SigningKey: "/k"}},
		{"history for ever", "", "history: {path: /h, retention: {age: 0s}}\n", func(c Config) any { return c.History.MaxAge }, time.Duration(0)},
		{"grpc limits", "", "grpc: {max_connections: 1, max_connections_per_peer: 2, max_streams: 3, max_streams_per_peer: 4, stall_timeout: 5s}\n", func(c Config) any {
			return fmt.Sprint(c.GRPC.MaxConnections, c.GRPC.MaxConnectionsPerPeer, c.GRPC.MaxStreams, c.GRPC.MaxStreamsPerPeer, c.GRPC.StallTimeout)
		}, "1 2 3 4 5s"},
		{"no expiry", "", "    record_ttl: 0s\n", func(c Config) any { return c.Groups[0].RecordTTL }, time.Duration(0)},
		{"ports", "", "    port_range: 2048-4095\n", func(c Config) any { return [2]uint16{c.Groups[0].FirstPort, c.Groups[0].LastPort} }, [2]uint16{2048, 4095}},
		{"mapping and filtering as ever", "", "", func(c Config) any { return c.Groups[0].Mapping + " " + c.Groups[0].Filtering }, " address_and_port_dependent"},
		{"mapping", "", "    mapping: endpoint_independent\n", func(c Config) any { return c.Groups[0].Mapping + " " + c.Groups[0].Filtering }, "endpoint_independent address_and_port_dependent"},
		{"full cone", "", "    filtering: endpoint_independent\n", func(c Config) any { return c.Groups[0].Mapping + " " + c.Groups[0].Filtering }, "endpoint_independent endpoint_independent"},
		{"strict mapping", "", "    mapping: endpoint_independent\n    port_overloading: false\n", func(c Config) any { return c.Groups[0].Overload }, false},
		{"mappings", "nat:", "nat:\n  max_mappings: 7", func(c Config) any { return c.NAT.MaxMappings }, 7},
		{"flowtables", "nat:", "nat:\n  flowtables: own", func(c Config) any { return c.NAT.Flowtables }, "own"},
		{"flowtables as ever", "", "", func(c Config) any { return c.NAT.Flowtables }, "refuse"},
		{"observe", "", "settings: {subscriber_session_removal: observe}\n", func(c Config) any { return c.Settings.SubscriberSessionRemoval }, "observe"},
		{"removal as before", "", "settings: {subscriber_session_removal: false}\n", func(c Config) any { return c.Settings.SubscriberSessionRemoval }, "off"},
		{"removal as on the command line", "", "settings: {subscriber_session_removal: on}\n", func(c Config) any { return c.Settings.SubscriberSessionRemoval }, "on"},
		{"deterministic", "[100.64.0.0/10]", "[100.64.0.0/24]\n    deterministic: true", func(c Config) any { return c.Groups[0].Deterministic }, true},
		{"grace", "", "    removal: {grace: 30s}\n", func(c Config) any { return c.Groups[0].Removal.Grace }, 30 * time.Second},
		{"no NAT", "", "    no_nat: [{prefix: 203.0.113.0/24}, {prefix: 192.0.2.1, protocol: udp, ports: 5060-5069}, {prefix: 192.0.2.2, protocol: tcp, ports: 443}]\n", func(c Config) any { return fmt.Sprint(c.Groups[0].NoNAT) }, "[{203.0.113.0/24  0 65535} {192.0.2.1/32 udp 5060 5069} {192.0.2.2/32 tcp 443 443}]"},
		{"NAT for all", "", "    no_nat: []\n", func(c Config) any { return len(c.Groups[0].NoNAT) }, 0},
		{"static ports", "", "    port_range: 1024-59999\n    static_ports: 60000-65535\n    static_mappings_per_owner: 4\n    static_mappings: [{user: alice, protocol: tcp, inside_port: 22, outside: '198.51.100.1:60022'}, {inside: 100.64.0.7, protocol: udp, inside_port: 53, outside: '198.51.100.1:60022'}]\n", func(c Config) any { return fmt.Sprint(c.Groups[0].Static) }, "{60000 65535 4 [{alice invalid IP tcp 22 198.51.100.1:60022} { 100.64.0.7 udp 53 198.51.100.1:60022}]}"},
		{"PCP", "", "    port_range: 1024-59999\n    static_ports: 60000-65535\n    pcp: {enabled: true, nat_pmp: true, map: false, peer: false, third_party: [192.0.2.0/24], nonce: lenient, min_lifetime: 60s, max_lifetime: 1h, mappings: 4, announce: 3}\n", func(c Config) any { return fmt.Sprint(c.Groups[0].PCP) }, "{true true false false [192.0.2.0/24] lenient 1m0s 1h0m0s 4 3}"},
		{"PCP by default", "", "    port_range: 1024-59999\n    static_ports: 60000-65535\n    pcp: {enabled: true}\n", func(c Config) any { return fmt.Sprint(c.Groups[0].PCP, c.PCP) }, "{true false true true [] strict 2m0s 24h0m0s 16 10} {[] true}"},
		{"well-known static ports", "", "    static_ports: 1-1023\n", func(c Config) any { return c.Groups[0].Static.Last }, uint16(1023)},
		{"static ports behind the last whole block", "", "    port_range: 1024-60001\n    static_ports: 59904-60001\n", func(c Config) any { return c.Groups[0].Static.First }, uint16(59904)},
		{"no ALG", "", "    alg: []\n", func(c Config) any { return len(c.Groups) }, 1},
		{"grace causes", "", "    removal: {grace_causes: [lost-carrier, 19, User-Request]}\n", func(c Config) any { return fmt.Sprint(c.Groups[0].Removal.GraceCauses) }, "[2 19 1]"},
		{"guard", "", "    guard: {minimum: 0, removed: 2.5%, expired: 0%, nas_restart: 50 %, window: 60s}\n", func(c Config) any { return c.Groups[0].Guard }, Guard{0, 0.025, 0, 0.5, time.Minute}},
		{"guard by default", "", "    guard: {expired: 100%}\n", func(c Config) any { return c.Groups[0].Guard }, Guard{100, 0.1, 1, 1, 15 * time.Minute}},
		{"limits", "", "    limits: {sessions: 750, new_sessions_per_second: 200, tcp_ports: 400, udp_ports: 300, reserve: 500}\n", func(c Config) any { return c.Groups[0].Limits }, Limits{750, 200, 400, 300, 500}},
		{"reserve alone", "", "    limits: {reserve: 500}\n", func(c Config) any { return c.Groups[0].Limits }, Limits{Reserve: 500}},
		{"no limits by default", "", "", func(c Config) any { return c.Groups[0].Limits }, Limits{}},
		{"json log", "", "log: {format: json, level: debug}\n", func(c Config) any { return c.Log.Level.String() + c.Log.Format }, "DEBUGjson"},
		{"dialled interfaces", "[s0]", "[s0, 'ppp*']", func(c Config) any { return fmt.Sprint(c.NAT.InsideInterfaces) }, "[s0 ppp*]"},
		{"outside that drains", "[198.51.100.0/28]", "[198.51.100.0/29, {prefix: 198.51.100.8/29, draining: true}, {prefix: 203.0.113.0/32, draining: false}]", func(c Config) any {
			return fmt.Sprint(c.Groups[0].Outside, c.Groups[0].Draining)
		}, "[198.51.100.0/29 203.0.113.0/32] [198.51.100.8/29]"},
		{"memory needs no interfaces", "inside_interfaces: [s0]\n  outside_interfaces: [i0]", "backend: memory", func(c Config) any { return c.NAT.Backend }, "memory"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, _, err := Parse(filepath.Join(dir, "test.yaml"), []byte(edit(tt.old, tt.text)))
			if err != nil {
				t.Fatal(err)
			}
			if got := tt.get(c); got != tt.want {
				t.Errorf("%v, want %v", got, tt.want)
			}
		})
	}
}

// edit replaces a part of the minimal file, or adds to its end.
func edit(old, text string) string {
	if old == "" {
		return minimal + text
	}
	return strings.Replace(minimal, old, text, 1)
}

func TestWarnsBelowRFCMinima(t *testing.T) {
	_, warnings := mustParse(t, edit("", `    hold: 2s
settings:
  idle_timeouts:
    tcp_established: 10s
    tcp_transitory: 5s
    udp: 3s
    icmp: 1s
`))
	for i, want := range []string{
		"test.yaml:14: groups[0].hold: 2s is below the 2m0s of RFC 6888 REQ-8",
		"test.yaml:17: settings.idle_timeouts.tcp_established: 10s is below the 2h4m0s of RFC 5382 REQ-5",
		"test.yaml:18: settings.idle_timeouts.tcp_transitory: 5s is below the 4m0s of RFC 5382 REQ-5",
		"test.yaml:19: settings.idle_timeouts.udp: 3s is below the 2m0s of RFC 4787 REQ-5",
		"test.yaml:20: settings.idle_timeouts.icmp: 1s is below the 1m0s of RFC 5508 REQ-2",
	} {
		if i >= len(warnings) || warnings[i] != want {
			t.Fatalf("warnings %q, want %q", warnings, want)
		}
	}
}

// TestWarnsOfLimitsOutOfReach: a limit of sessions above the bound of all groups causes a
// warning, one at the bound, or without a bound, does not.
func TestWarnsOfLimitsOutOfReach(t *testing.T) {
	for name, tt := range map[string]struct{ bound, limit, want string }{
		"above": {"1000", "1001", "test.yaml:12: groups[0].limits.sessions: 1001 is more than nat.max_sessions_per_subscriber, 1000, which is in force here too; raise that as well"},
		"at":    {"1000", "1000", ""},
		"none":  {"0", "1001", ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, warnings := mustParse(t, edit("nat:", "nat:\n  max_sessions_per_subscriber: "+tt.bound)+"    limits: {sessions: "+tt.limit+"}\n")
			if got := strings.Join(warnings, "\n"); got != tt.want {
				t.Errorf("warnings %q, want %q", got, tt.want)
			}
		})
	}
}

// TestWarnsOfFlowtables: allowed flowtables cause a warning, and those of others one for each group
// that they would harm.
func TestWarnsOfFlowtables(t *testing.T) {
	for mode, want := range map[string]int{"refuse": 0, "own": 1, "accept": 3} {
		_, warnings := mustParse(t, edit("nat:", "nat:\n  flowtables: "+mode)+"    mapping: endpoint_independent\n    no_nat: [{prefix: 203.0.113.0/24}]\n")
		if len(warnings) != want {
			t.Errorf("%s: warnings %q, want %d", mode, warnings, want)
		}
		for _, w := range warnings {
			if !strings.Contains(w, ":8: nat.flowtables: is "+mode) {
				t.Errorf("%s: %q", mode, w)
			}
		}
	}
}

// TestWarnsOfOpenControl: a listener that is open on purpose causes a warning
// of the risk.
func TestWarnsOfOpenControl(t *testing.T) {
	for _, how := range []string{"insecure", "insecure_clients"} {
		text := "grpc: {listen: ':7900', " + how + ": true}\n"
		if how == "insecure_clients" {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "s"), []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
			text = "grpc: {listen: ':7900', insecure_clients: true, tls: {cert_file: " + dir + "/s, key_file: " + dir + "/s}}\n"
		}
		_, warnings := mustParse(t, edit("", text))
		want := "test.yaml:14: grpc." + how + ": whoever reaches :7900 can end every subscriber"
		if len(warnings) != 1 || !strings.HasPrefix(warnings[0], want) {
			t.Errorf("warnings %q, want %q", warnings, want)
		}
	}
}

// TestConsole: where it is not written there is a console only if gRPC lets the same users
// read; where it is written in spite of that there is one, with a warning.
func TestConsole(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(dir, "s")
	if err := os.WriteFile(secret, []byte("0123456789012345678901234567890123456789"), 0o600); err != nil {
		t.Fatal(err)
	}
	tls := func(more string) string { return "tls: {cert_file: " + secret + ", key_file: " + secret + more + "}" }
	token := "roles: [{role: viewer, token_file: " + secret + "}]"
	const network, machine, nobody = "whoever reaches ", "every user of this machine reads at ", "nobody can read it: who has not signed in"
	for text, want := range map[string]struct {
		role   string // of anonymous visitors; "" where there is no console
		warned string // of http.console
	}{
		"":                                          {role: "viewer"},
		"http: {listen: 'localhost:1'}\n":           {role: "viewer"},
		"http: {listen: '[::1]:1'}\n":               {role: "viewer"},
		"http: {console: true}\n":                   {role: "viewer"},
		"http: {console: false}\n":                  {},
		"http: {listen: ':7901'}\n":                 {},
		"http: {listen: '192.0.2.1:7901'}\n":        {},
		"http: {listen: ':7901', console: false}\n": {},
		"http: {listen: ':7901', console: true, hosts: [cgn1, '::1']}\n": {role: "viewer", warned: network + ":7901"},

		"grpc: {local_role: none}\n":                                              {},
		"grpc: {local_role: operator}\n":                                          {role: "viewer"},
		"grpc: {listen: 'unix:/run/x'}\n":                                         {role: "viewer"},
		"grpc: {listen: 'unix:/run/x', local_role: none}\n":                       {},
		"grpc: {listen: 'unix:/run/x', " + token + "}\n":                          {role: "none"},
		"grpc: {listen: 'unix:/run/x', roles: [{role: viewer, unix_group: x}]}\n": {},
		"grpc: {" + token + "}\n":                                                 {role: "viewer"}, // over loopback TCP everybody reads as ever
		"grpc: {local_role: none, " + token + "}\n":                               {role: "none"},
		"grpc: {" + tls("") + "}\n":                                               {role: "viewer"},
		"grpc: {" + tls(", client_ca_file: "+secret) + "}\n":                      {},
		"grpc: {listen: ':7900', " + tls("") + ", " + token + "}\n":               {role: "none"},
		"grpc: {listen: ':7900', insecure: true}\n":                               {},
		"http: {console: true}\ngrpc: {local_role: none}\n":                       {role: "none", warned: nobody},
		"http: {console: false}\ngrpc: {local_role: none}\n":                      {},
		"http: {listen: ':1', console: true}\ngrpc: {local_role: none}\n":         {role: "viewer", warned: network + ":1"},
		"http: {console: true}\ngrpc: {listen: 'unix:/run/x', " + token + "}\n":   {role: "none"},

		"http: {anonymous_role: none}\n":                                                     {},
		"http: {anonymous_role: none}\ngrpc: {" + token + "}\n":                              {role: "none"},
		"http: {anonymous_role: viewer}\ngrpc: {local_role: none}\n":                         {role: "viewer", warned: machine + "127.0.0.1:7901"},
		"http: {listen: ':1', " + tls("") + "}\ngrpc: {" + token + "}\n":                     {},
		"http: {listen: ':1', console: true, " + tls("") + "}\ngrpc: {" + token + "}\n":      {role: "none"},
		"http: {listen: ':1', console: true, " + tls("") + "}\n":                             {role: "none", warned: nobody},
		"http: {listen: ':1', console: true, anonymous_role: none}\ngrpc: {" + token + "}\n": {role: "none", warned: nobody},
		"http: {listen: ':1', console: true, anonymous_role: viewer, " + tls("") + "}\n":     {role: "viewer", warned: network + ":1"},
	} {
		c, warnings := mustParse(t, edit("", text))
		var warned []string
		for _, w := range warnings {
			if _, told, ok := strings.Cut(w, "test.yaml:14: http.console: "); ok {
				warned = append(warned, told)
			}
		}
		told := len(warned) == 1 && want.warned != "" && strings.HasPrefix(warned[0], want.warned+" ") || len(warned) == 0 && want.warned == ""
		role := ""
		if c.HTTP.Console {
			role = c.HTTP.AnonymousRole
		}
		if role != want.role || !told {
			t.Errorf("%q: console for %q, want %q; warnings %q", text, role, want.role, warnings)
		}
	}
}

// TestWarnsOfInferredRealms: a warning appears if a client could report another
// one's NAS, and infer_realms is not set.
func TestWarnsOfInferredRealms(t *testing.T) {
	const first = "- {name: bng1, prefix: 192.0.2.0/24, secret: testing123"
	for name, tt := range map[string]struct{ one, two, key, warned string }{
		"two clients":        {two: "name: bng2", warned: ": radius.infer_realms: is not set: client bng2 speaks for a NAS of bng1"},
		"one name":           {two: "name: bng1"},
		"one has a realm":    {one: ", realm: core", two: "name: bng2"},
		"one realm":          {one: ", realm: core", two: "name: bng2, realm: core"},
		"one has bounds":     {one: ", inside: [100.64.0.0/24]", two: "name: bng2", warned: ": radius.infer_realms: is not set"},
		"both have bounds":   {one: ", inside: [100.64.0.0/24]", two: "name: bng2, inside: [100.64.1.0/24]"},
		"the operator knows": {two: "name: bng2", key: "  infer_realms: true\n"},
		"the operator says":  {two: "name: bng2", key: "  infer_realms: false\n"},
	} {
		t.Run(name, func(t *testing.T) {
			text := "radius:\n" + tt.key + "  clients:\n    " + first + tt.one + "}\n    - {" + tt.two + ", prefix: 198.51.100.0/24, secret: testing123}\n"
			rest := minimal[strings.Index(minimal, "nat:"):]
			_, warnings := mustParse(t, text+rest)
			if warned := len(warnings) == 1 && strings.Contains(warnings[0], tt.warned); warned != (tt.warned != "") || len(warnings) > 1 {
				t.Errorf("warnings %q, want %q", warnings, tt.warned)
			}
		})
	}
}

// TestWarnsOfReadableSecrets: a file with secrets that every user can read
// causes a warning, a private one does not.
func TestWarnsOfReadableSecrets(t *testing.T) {
	for name, tt := range map[string]struct {
		old, text string
		modes     map[string]os.FileMode
		want      string
	}{
		"all private":                  {modes: map[string]os.FileMode{"test.yaml": 0o640}},
		"secret in a readable file":    {modes: map[string]os.FileMode{"test.yaml": 0o644}, want: "test.yaml:1: every user of this machine can read "},
		"readable file without secret": {old: "secret: testing123", text: "secret_file: s", modes: map[string]os.FileMode{"test.yaml": 0o644, "s": 0o600}},
		"readable file of a secret":    {old: "secret: testing123", text: "secret_file: s", modes: map[string]os.FileMode{"test.yaml": 0o644, "s": 0o644}, want: "test.yaml:6: radius.clients[0].secret_file: every user of this machine can read "},
		"readable key":                 {text: "grpc: {tls: {cert_file: c, key_file: s}}\n", modes: map[string]os.FileMode{"test.yaml": 0o600, "s": 0o604, "c": 0o644}, want: "test.yaml:14: grpc.tls.key_file: every user"},
		"password of redis":            {old: "secret: testing123", text: "secret_file: s\nredis: {url: 'redis://:pw@a:1/0'}", modes: map[string]os.FileMode{"test.yaml": 0o644, "s": 0o600}, want: "test.yaml:1: every user"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for file, mode := range tt.modes {
				text := "x"
				if file == "test.yaml" {
					text = edit(tt.old, tt.text)
				}
				if err := os.WriteFile(filepath.Join(dir, file), []byte(text), mode); err != nil {
					t.Fatal(err)
				}
				if err := os.Chmod(filepath.Join(dir, file), mode); err != nil { // independent of the umask
					t.Fatal(err)
				}
			}
			warnings := Exposed(filepath.Join(dir, "test.yaml"))
			if got := strings.Join(warnings, "\n"); tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
				t.Errorf("warnings %q, want %q", warnings, tt.want)
			}
		})
	}
}

func TestErrorsAreAllReported(t *testing.T) {
	_, _, err := Parse("f.yaml", []byte("radius: {listen: [nowhere]}\nhttp: {listen: 1}\nzzz: 1\n"))
	var all Errors
	if !errors.As(err, &all) || len(all) != 7 { // and no clients, no groups, no interfaces on two sides
		t.Fatalf("%d errors: %v", len(all), err)
	}
	for i := 1; i < len(all); i++ {
		if all[i].Line < all[i-1].Line {
			t.Errorf("%v after %v", all[i], all[i-1])
		}
	}
}

func TestLoadUnreadable(t *testing.T) {
	if _, _, err := Load(filepath.Join(t.TempDir(), "none.yaml")); err == nil || !strings.Contains(err.Error(), "none.yaml") {
		t.Error(err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(minimal))
	f.Add([]byte("a: &x {b: *x}\n? [1]\n: !!int 2\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, _, err := Parse("f.yaml", data)
		if err == nil && (len(c.Groups) == 0 || len(c.RADIUS.Clients) == 0) {
			t.Error("accepted without groups or clients")
		}
	})
}

// TestGroupTimeouts_NAT05_NAT18: those of a group are zero where the live settings apply.
func TestGroupTimeouts_NAT05_NAT18(t *testing.T) {
	c, warnings := mustParse(t, edit("", `    idle_timeouts: {udp: 200s, tcp_partial_open: 100s, icmp: 70s}
    port_timeouts: [{protocol: udp, port: 53, timeout: 10s}]
  - {name: other, inside: [10.0.0.0/16], outside: [192.0.2.0/28], idle_timeouts: {icmp: 65s}, port_timeouts: [{protocol: udp, port: 5353, timeout: 10s}, {protocol: tcp, port: 53, timeout: 20s}]}
  - {name: third, inside: [10.1.0.0/16], outside: [192.0.2.16/28], idle_timeouts: {}, port_timeouts: []}
settings: {idle_timeouts: {tcp_partial_close: 300s}}
`))
	g := c.Groups[0]
	if want := (IdleTimeouts{UDP: 200 * time.Second, TCPPartialOpen: 100 * time.Second, ICMP: 70 * time.Second}); g.IdleTimeouts != want {
		t.Errorf("group has %+v, want %+v", g.IdleTimeouts, want)
	}
	if want := []PortTimeout{{"udp", 53, 10 * time.Second}}; !slices.Equal(g.PortTimeouts, want) {
		t.Errorf("ports are %+v, want %+v", g.PortTimeouts, want)
	}
	if c.Groups[2].IdleTimeouts != (IdleTimeouts{}) || c.Settings.TCPPartialClose != 300*time.Second || c.Settings.UDP != 300*time.Second {
		t.Errorf("third group %+v, settings %+v", c.Groups[2], c.Settings)
	}
	want := []string{
		"test.yaml:14: groups[0].idle_timeouts.tcp_partial_open: 1m40s is below the 4m0s of RFC 7857 section 2.1",
		"test.yaml:16: groups[1].port_timeouts[0].timeout: 10s is below the 2m0s of RFC 4787 REQ-5",
		"test.yaml:16: groups[1].port_timeouts[1].timeout: 20s is below the 2h4m0s of RFC 5382 REQ-5",
		"test.yaml:16: groups[1].idle_timeouts.icmp: the kernel has one idle timeout of ICMP for all groups: 1m10s, the longest, is in force here too",
	}
	if !slices.Equal(warnings, want) {
		t.Errorf("warnings are %q, want %q", warnings, want)
	}
}
