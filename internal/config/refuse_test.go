package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// realmOf is a realm of two clients, of which the second has another setting.
func realmOf(other string) string {
	return "    - {name: p1, realm: core, prefix: 10.0.0.1/32, secret: a}\n" +
		"    - {name: p2, realm: core, prefix: 10.0.0.2/32, secret: a, " + other + "}\n"
}

// TestRefused_NAT41_ACCT04_SES22: each mistake is refused with file, line, key and advice.
func TestRefused_NAT41_ACCT04_SES22(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "empty"), []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "full"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "test.yaml")
	for _, tt := range []struct{ name, old, text, want string }{
		{"syntax", "radius:", "radius: [", ":7: not valid YAML"},
		{"two documents", "", "---\na: 1\n", ":15: a second YAML document"},
		{"not a mapping", minimal, "- a\n", ":1: is a list; write keys"},
		{"empty file", minimal, "", ":1: groups: is missing"},
		{"unknown key", "", "    holt: 1s\n", ":14: groups[0].holt: unknown key; known here: alg, block_size, deterministic, filtering, guard, hold,"},
		{"key twice", "", "    name: other\n", ":14: groups[0].name: is there twice"},
		{"share without sign", "", "    guard: {removed: 10}\n", ":14: groups[0].guard.removed: \"10\" is not a share; write it such as 10%"},
		{"share above all", "", "    guard: {expired: 101%}\n", "groups[0].guard.expired: 101% is no share; write 0% to 100%"},
		{"share of nothing", "", "    guard: {nas_restart: NaN%}\n", "groups[0].guard.nas_restart: NaN% is no share"},
		{"negative minimum", "", "    guard: {minimum: -1}\n", "groups[0].guard.minimum: -1 is too small; write at least 0"},
		{"no window", "", "    guard: {window: 0s}\n", "groups[0].guard.window: 0s is too short; write at least 1s"},
		{"reserve above the limit", "", "    limits: {sessions: 500, reserve: 750}\n", ":14: groups[0].limits.reserve: 750 is more than sessions, 500; write at most that"},
		{"negative limit", "", "    limits: {sessions: -1}\n", "groups[0].limits.sessions: -1 is too small; write at least 0"},
		{"more ports than there are", "", "    limits: {udp_ports: 65536}\n", "groups[0].limits.udp_ports: 65536 is too large; write at most 65535"},
		{"rate of no machine", "", "    limits: {new_sessions_per_second: 10000001}\n", "groups[0].limits.new_sessions_per_second: 10000001 is too large; write at most 10000000"},
		{"no value", "secret: testing123", "secret:", ":6: radius.clients[0].secret: has no value"},
		{"alias", "[s0]", "*x", "an alias"},
		{"mapping for value", "", "redis: {url: [redis://a:1]}\n", ":14: redis.url[0]: is a mapping; write a single value, in quotes when it has a colon"},
		{"list for value", "name: bng1", "name: [a]", ":4: radius.clients[0].name: is a list; write a single value"},
		{"value for list", "[s0]", "s0", ":8: nat.inside_interfaces: is a single value; write a list"},
		{"empty list", "[s0]", "[]", ":8: nat.inside_interfaces: is an empty list"},

		{"redis scheme", "", "redis: {url: 'http://:hunter2@a/'}\n", ":14: redis.url: redis: invalid URL scheme"},
		{"redis url", "", "redis: {url: 'redis://:hunter2@a:b:c'}\n", ":14: redis.url: "},
		{"redis list without mode", "", "redis: {url: [redis://a, redis://b]}\n", ":14: redis.mode: is missing; several urls"},
		{"redis mode", "", "redis: {mode: ring}\n", ":14: redis.mode: \"ring\" is not known; write one of: sentinel, cluster"},
		{"embedded and more", "", "redis: {url: [embedded, redis://a]}\n", "redis.url: embedded stands alone"},

		{"no clients", "clients:", "listen: [':1']\nx:", ":2: radius.clients: is missing"},
		{"empty secret", "testing123", `""`, ":6: radius.clients[0].secret: the secret is empty"},
		{"no secret", "secret: testing123", "require_message_authenticator: true", ":4: radius.clients[0].secret: is missing"},
		{"both secrets", "secret: testing123", "secret: a\n      secret_file: empty", "secret_file: stands beside secret"},
		{"unreadable secret", "secret: testing123", "secret_file: nowhere", ":6: radius.clients[0].secret_file: cannot read " + dir + "/nowhere: no such file or directory"},
		{"empty secret file", "secret: testing123", "secret_file: empty", ":6: radius.clients[0].secret_file: the secret is empty"},
		{"no secret file", "secret: testing123", "secret_file: ''", ":6: radius.clients[0].secret_file: is empty"},
		{"client of two minds", "nat:", "    - {name: bng1, prefix: 192.0.3.0/24, secret: a, record_ttl: 1h}\nnat:", ":7: radius.clients[1].record_ttl: is not as in radius.clients[0] (line 4); one name is one client: write the same in both, or leave it out in both"},
		{"client with and without Status-Server", "nat:", "    - {name: bng1, prefix: 192.0.3.0/24, secret: a, status_server: false}\nnat:", ":7: radius.clients[1].status_server: is not as in radius.clients[0] (line 4)"},
		{"client of two bounds", "nat:", "    - {name: bng1, prefix: 192.0.3.0/24, secret: a, inside: [100.64.0.0/24]}\nnat:", ":7: radius.clients[1].inside: is not as in radius.clients[0] (line 4)"},
		{"client of two limits", "nat:", "    - {name: bng1, prefix: 192.0.3.0/24, secret: a, max_subscribers: 5}\nnat:", ":7: radius.clients[1].max_subscribers: is not as in radius.clients[0] (line 4)"},
		{"client of two groups", "nat:", "    - {name: bng1, prefix: 192.0.3.0/24, secret: a, groups: [default]}\nnat:", ":7: radius.clients[1].groups: is not as in radius.clients[0] (line 4)"},
		{"bound to no group", "secret: testing123", "secret: testing123\n      groups: [default, nobody]", `:7: radius.clients[0].groups[1]: "nobody" is no group; write the name of one that stands under groups`},
		{"bound to IPv6", "secret: testing123", "secret: testing123\n      inside: ['2001:db8::/32']", ":7: radius.clients[0].inside[0]: 2001:db8::/32 is not IPv4"},
		{"client in two realms", "nat:", "    - {name: bng1, prefix: 192.0.3.0/24, secret: a, realm: core}\nnat:", ":7: radius.clients[1].realm: is not as in radius.clients[0] (line 4)"},
		{"realm of two minds, TTL", "nat:", realmOf("record_ttl: 1h") + "nat:", ":8: radius.clients[2].record_ttl: is not as in radius.clients[1] (line 7); one realm has the same NASes"},
		{"realm of two minds, identity", "nat:", realmOf("nas_identity: both") + "nat:", ":8: radius.clients[2].nas_identity: is not as in"},
		{"realm of two minds, restarts", "nat:", realmOf("restarts: ignore") + "nat:", ":8: radius.clients[2].restarts: is not as in"},
		{"realm of two minds, services", "nat:", realmOf("services: count") + "nat:", ":8: radius.clients[2].services: is not as in"},
		{"realm of two minds, marks", "nat:", realmOf("service_marks: [26-1-1]") + "nat:", ":8: radius.clients[2].service_marks: is not as in"},
		{"realm named like a client outside", "nat:", "    - {name: p1, realm: bng1, prefix: 10.0.0.1/32, secret: a}\nnat:", ":7: radius.clients[1].realm: bng1 is the name of the client in radius.clients[0] (line 4), which is not of this realm"},
		{"realm", "secret: testing123", "secret: a\n      realm: 'a b'", ":7: radius.clients[0].realm: \"a b\" is not a name here"},
		{"NAS identity", "secret: testing123", "secret: a\n      nas_identity: name", ":7: radius.clients[0].nas_identity: \"name\" is not known; write one of: identifier, address, both"},
		{"restarts", "secret: testing123", "secret: a\n      restarts: 'yes'", ":7: radius.clients[0].restarts: \"yes\" is not known; write one of: believe, ignore, confirm"},
		{"services", "secret: testing123", "secret: a\n      services: all", ":7: radius.clients[0].services: \"all\" is not known; write one of: ignore, count"},
		{"service mark", "secret: testing123", "secret: a\n      service_marks: [26-2011]", ":7: radius.clients[0].service_marks[0]: \"26-2011\" is no vendor's attribute; write 26"},
		{"service mark too large", "secret: testing123", "secret: a\n      service_marks: [26-2011-256]", ":7: radius.clients[0].service_marks[0]: \"26-2011-256\" is no vendor's attribute; a vendor has"},
		{"no prefixes", "secret: testing123", "secret: a\n      prefixes: []", ":7: radius.clients[0].prefixes: is an empty list"},
		{"prefix twice in a client", "secret: testing123", "secret: a\n      prefixes: [192.0.2.0/24]", ":7: radius.clients[0].prefixes[0]: 192.0.2.0/24 is there twice, in radius.clients[0].prefix (line 5) too"},
		{"bad one of prefixes", "prefix: 192.0.2.0/24", "prefixes: [192.0.2.0/24, x]", ":5: radius.clients[0].prefixes[1]: \"x\" is not a prefix"},
		{"prefixes without secret", "prefix: 192.0.2.0/24\n      secret: testing123", "prefixes: [192.0.2.0/24]", ":4: radius.clients[0].secret: is missing"},
		{"client prefix twice", "nat:", "    - {name: bng2, prefix: 192.0.2.0/24, secret: a}\nnat:", ":7: radius.clients[1].prefix: 192.0.2.0/24 is there twice"},
		{"client prefix", "192.0.2.0/24", "192.0.2.0/33", ":5: radius.clients[0].prefix: \"192.0.2.0/33\" is not a prefix"},
		{"host bits", "192.0.2.0/24", "192.0.2.1/24", "192.0.2.1/24 has host bits; did you mean 192.0.2.0/24?"},
		{"mapped", "192.0.2.0/24", "'::ffff:192.0.2.0/120'", "IPv4 in disguise"},
		{"client name", "name: bng1", "name: 'a b'", ":4: radius.clients[0].name: \"a b\" is not a name here"},
		{"secret for nothing", "prefix: 192.0.2.0/24", "certificate: {san: a}", "radius.clients[0].secret: is for datagrams, which need a prefix"},
		{"both previous secrets", "secret: testing123", "secret: a\n      previous_secret: b\n      previous_secret_file: test.yaml", "previous_secret_file: stands beside previous_secret"},
		{"previous secret alone", "prefix: 192.0.2.0/24\n      secret: testing123", "certificate: {san: a}\n      previous_secret: b", "previous_secret: stands without secret"},
		{"empty previous secret", "secret: testing123", "secret: a\n      previous_secret: ''", ":7: radius.clients[0].previous_secret: the secret is empty"},
		{"certificate without RadSec", "secret: testing123", "secret: a\n      certificate: {san: b}", "radius.radsec.cert_file: is missing; the certificate of client bng1"},
		{"SAN without CA", "secret: testing123", "secret: a\n      certificate: {san: b}\n  radsec: {cert_file: full, key_file: full}", "radius.radsec.client_ca_file: is missing; the SAN of client bng1"},
		{"fingerprint", "secret: testing123", "secret: a\n      certificate: {fingerprint: 'AB:CD'}", ":7: radius.clients[0].certificate.fingerprint: \"AB:CD\" is not a SHA-256 fingerprint"},
		{"certificate twice", "nat:", "    - {name: b, certificate: {san: x}}\n    - {name: c, certificate: {san: x}}\nnat:", ":8: radius.clients[2].certificate: is there twice"},
		{"half RadSec", "radius:", "radius:\n  radsec: {cert_file: full}", ":3: radius.radsec: has one of cert_file and key_file"},
		{"no connections", "radius:", "radius:\n  radsec: {max_connections: 0}", ":3: radius.radsec.max_connections: 0 is too small"},
		{"bad bool", "secret: testing123", "secret: a\n      require_message_authenticator: yes", "\"yes\" is neither true nor false"},
		{"client's record TTL", "secret: testing123", "secret: a\n      record_ttl: never", ":7: radius.clients[0].record_ttl: \"never\" is not a duration; write a number with its unit"},
		{"negative record TTL of a client", "secret: testing123", "secret: a\n      record_ttl: -1s", ":7: radius.clients[0].record_ttl: -1s is too short"},
		{"radius listen", "radius:", "radius:\n  listen: ['1.2.3.4']", ":3: radius.listen[0]: \"1.2.3.4\" is not host:port"},
		{"radius listen twice", "radius:", "radius:\n  listen: [':1', ':1']", ":3: radius.listen[1]: :1 is there twice"},
		{"listen host", "", "http: {listen: 'a.b:1'}\n", ":14: http.listen: \"a.b\" is not an address"},
		{"listen port", "", "http: {listen: ':65536'}\n", ":14: http.listen: \"65536\" is not a port"},

		{"grpc in the open", "", "grpc: {listen: 0.0.0.0:7900}\n", ":14: grpc.listen: 0.0.0.0:7900 can be reached from elsewhere in plain text"},
		{"grpc by TLS for everybody", "", "grpc: {listen: ':7900', tls: {cert_file: full, key_file: full}}\n", ":14: grpc.tls.client_ca_file: is missing: TLS alone lets everybody who reaches :7900 end every subscriber; write client_ca_file, listen on 127.0.0.1 or unix:PATH, or write grpc.insecure_clients: true"},
		{"grpc by TLS for everybody, said to be insecure", "", "grpc: {listen: ':7900', insecure: true, tls: {cert_file: full, key_file: full}}\n", "grpc.tls.client_ca_file: is missing"},
		{"grpc socket", "", "grpc: {socket: grpc.sock}\n", ":14: grpc.socket: \"grpc.sock\" is not an absolute path"},
		{"grpc socket too long", "", "grpc: {socket: /" + strings.Repeat("x", 107) + "}\n", "longer than the 107 octets"},
		{"local role", "", "grpc: {local_role: root}\n", ":14: grpc.local_role: \"root\" is not known; write one of: viewer, admin"},
		{"no streams", "", "grpc: {max_streams: 0}\n", ":14: grpc.max_streams: 0 is too small"},
		{"no time to stall", "", "grpc: {stall_timeout: 0s}\n", ":14: grpc.stall_timeout: 0s is too short"},
		{"grpc everywhere", "", "grpc: {listen: ':7900'}\n", "can be reached from elsewhere"},
		{"grpc unix", "", "grpc: {listen: 'unix:'}\n", ":14: grpc.listen: unix: lacks the path"},
		{"grpc unix too long", "", "grpc: {listen: 'unix:/" + strings.Repeat("x", 107) + "'}\n", "longer than the 107 octets"},
		{"half tls", "", "grpc: {tls: {cert_file: empty}}\n", ":14: grpc.tls: has one of cert_file and key_file"},
		{"ca alone", "", "grpc: {tls: {client_ca_file: empty}}\n", ":14: grpc.tls: has client_ca_file without"},
		{"unreadable tls", "", "grpc: {tls: {cert_file: no, key_file: empty}}\n", ":14: grpc.tls.cert_file: cannot read"},

		{"no nat", "nat:\n  inside_interfaces: [s0]\n  outside_interfaces: [i0]\n", "", ":1: nat.inside_interfaces: is missing"},
		{"no interfaces", "outside_interfaces: [i0]", "backend: nftables", ":7: nat.outside_interfaces: is missing"},
		{"backend", "outside_interfaces: [i0]", "backend: iptables", ":9: nat.backend: \"iptables\" is not known; write one of: nftables, memory"},
		{"long interface", "[s0]", "[abcdefghijklmnop]", ":8: nat.inside_interfaces[0]: \"abcdefghijklmnop\" is not an interface name"},
		{"odd interface", "[s0]", "['a/b']", "\"a/b\" is not an interface name"},
		{"interfaces of iptables", "[s0]", "[ppp+]", ":8: nat.inside_interfaces[0]: \"ppp+\" stands for several interfaces, which is not possible here; name each"},
		{"interfaces of nft", "[s0]", "['p*p*']", ":8: nat.inside_interfaces[0]: \"p*p*\" stands for several"},
		{"interfaces by number", "[s0]", "['ppp%d']", ":8: nat.inside_interfaces[0]: \"ppp%d\" stands for several"},
		{"group of interfaces", "[s0]", "['@bng']", ":8: nat.inside_interfaces[0]: \"@bng\" stands for several"},
		{"interface as ip link writes it", "[s0]", "['s0@eth1']", ":8: nat.inside_interfaces[0]: \"s0@eth1\" is how other programs write it"},
		{"interface with an alias", "[s0]", "['s0:1']", "\"s0:1\" is how other programs write it"},
		{"third networks half open", "nat:", "nat:\n  outside_to_others: return", ":8: nat.outside_to_others: \"return\" is not known; write one of: drop, accept"},
		{"flowtables by a switch", "nat:", "nat:\n  flowtables: on", ":8: nat.flowtables: \"on\" is not known; write one of: refuse, accept, own"},
		{"an own flowtable in memory", "outside_interfaces: [i0]", "outside_interfaces: [i0]\n  backend: memory\n  flowtables: own", ":7: nat.flowtables: own needs a kernel; write refuse, or backend: nftables"},
		{"negative sessions", "nat:", "nat:\n  max_sessions_per_subscriber: -1", ":8: nat.max_sessions_per_subscriber: -1 is too small; write at least 0"},
		{"sessions beyond what is counted", "nat:", "nat:\n  max_sessions_per_subscriber: 4294967297", ":8: nat.max_sessions_per_subscriber: 4294967297 is too large; write at most 2147483647"},
		{"too many sessions without a gate", "nat:", "nat:\n  max_ungated_sessions_per_second: 1000001", ":8: nat.max_ungated_sessions_per_second: 1000001 is too large; write at most 1000000, or 0 for no bound"},
		{"no mappings at all", "nat:", "nat:\n  max_mappings: 0", ":8: nat.max_mappings: 0 is out of range; write 1 to 16777216"},
		{"any interface", "[s0]", "['*']", ":8: nat.inside_interfaces[0]: \"*\" is not an interface name"},
		{"any outside interface", "[i0]", "['ppp*']", ":9: nat.outside_interfaces[0]: \"ppp*\" is not the name of one interface"},
		{"interface on both sides by its beginning", "[s0]", "['i*']", ":9: nat.outside_interfaces[0]: i0 is there twice"},
		{"interface in the beginning of another", "[s0]", "[ppp0, 'ppp*']", ":8: nat.inside_interfaces[1]: ppp* is there twice"},
		{"interface on both sides", "[s0]", "[i0]", ":9: nat.outside_interfaces[0]: i0 is there twice"},
		{"table", "[i0]", "[i0]\n  table: 'a b'", ":10: nat.table: \"a b\" is not a name here"},
		{"netns", "[i0]", "[i0]\n  netns: a/b", ":10: nat.netns: \"a/b\" is neither"},

		{"timeout beyond the kernel's", "", "settings: {idle_timeouts: {udp: 4294967296s}}\n", ":14: settings.idle_timeouts.udp: 1193046h28m16s is too long; write at most 596h31m23s"},
		{"endless secret", "secret: testing123", "secret_file: /dev/zero", "radius.clients[0].secret_file: cannot read /dev/zero: it has more than 512 KiB"},
		{"duration", "", "    hold: 120\n", ":14: groups[0].hold: \"120\" is not a duration; write a number with its unit"},
		{"negative", "", "    hold: -1s\n", ":14: groups[0].hold: -1s is too short"},
		{"fraction", "", "    record_ttl: 1500ms\n", ":14: groups[0].record_ttl: 1.5s is not in whole seconds"},
		{"timeout", "", "settings: {idle_timeouts: {udp: 0s}}\n", ":14: settings.idle_timeouts.udp: 0s is too short"},
		{"group's timeout", "", "    idle_timeouts: {udp: 0s}\n", ":14: groups[0].idle_timeouts.udp: 0s is too short"},
		{"unknown timeout", "", "    idle_timeouts: {sctp: 60s}\n", ":14: groups[0].idle_timeouts.sctp: unknown key; known here: icmp, tcp_established,"},
		{"port of no protocol", "", "    port_timeouts: [{port: 53, timeout: 10s}]\n", ":14: groups[0].port_timeouts[0].protocol: is missing"},
		{"port of another protocol", "", "    port_timeouts: [{protocol: icmp, port: 53, timeout: 10s}]\n", ":14: groups[0].port_timeouts[0].protocol: \"icmp\" is not known; write one of: tcp, udp"},
		{"no port", "", "    port_timeouts: [{protocol: udp, port: 0, timeout: 10s}]\n", ":14: groups[0].port_timeouts[0].port: 0 is not a port; write one from 1 to 65535"},
		{"port twice", "", "    port_timeouts: [{protocol: udp, port: 53, timeout: 10s}, {protocol: tcp, port: 53, timeout: 10s}, {protocol: udp, port: 53, timeout: 9s}]\n", ":14: groups[0].port_timeouts[2]: udp port 53 is there twice; keep one"},
		{"port's timeout", "", "    port_timeouts: [{protocol: udp, port: 53, timeout: 0s}]\n", ":14: groups[0].port_timeouts[0].timeout: 0s is too short"},
		{"many ports", "", "    port_timeouts: [" + strings.Repeat("{protocol: udp, port: 53, timeout: 10s}, ", 65) + "]\n", ":14: groups[0].port_timeouts: 65 ports are more than 64; write fewer"},
		{"removal", "", "settings: {subscriber_session_removal: maybe}\n", ":14: settings.subscriber_session_removal: \"maybe\" is not known; write one of: on, off, observe"},
		{"grace", "", "    removal: {grace: -1s}\n", ":14: groups[0].removal.grace: -1s is too short"},
		{"grace cause", "", "    removal:\n      grace_causes: [Lost-Carrier, Lost-Patience]\n", ":15: groups[0].removal.grace_causes[1]: \"Lost-Patience\" is not an Acct-Terminate-Cause; write its number or one of: Admin-Reboot"},
		{"grace cause 0", "", "    removal: {grace_causes: [0]}\n", ":14: groups[0].removal.grace_causes[0]: \"0\" is not an Acct-Terminate-Cause"},
		{"grace cause twice", "", "    removal: {grace_causes: [2, Lost-Carrier]}\n", "grace_causes[1]: Acct-Terminate-Cause 2 is there twice"},
		{"no grace cause", "", "    removal: {grace_causes: []}\n", "groups[0].removal.grace_causes: is an empty list"},
		{"no NAT for whom", "", "    no_nat: [{protocol: tcp}]\n", ":14: groups[0].no_nat[0].prefix: is missing"},
		{"no NAT inside", "", "    no_nat:\n      - prefix: 100.64.1.0/24\n", ":15: groups[0].no_nat[0].prefix: 100.64.1.0/24 overlaps the inside prefix 100.64.0.0/10 (groups[0].inside[0], line 12); write hosts beyond the outside interfaces"},
		{"no NAT to the pool", "", "    no_nat: [{prefix: 0.0.0.0/0}]\n", "groups[0].no_nat[0].prefix: 0.0.0.0/0 overlaps the outside prefix"},
		{"no NAT for IPv6", "", "    no_nat: [{prefix: 2001:db8::/32}]\n", "groups[0].no_nat[0].prefix: 2001:db8::/32 is not IPv4"},
		{"no NAT for GRE", "", "    no_nat: [{prefix: 203.0.113.0/24, protocol: gre}]\n", "groups[0].no_nat[0].protocol: \"gre\" is not known; write one of: tcp, udp, icmp"},
		{"no NAT by ports alone", "", "    no_nat: [{prefix: 203.0.113.0/24, ports: 80}]\n", "groups[0].no_nat[0].ports: ports are of one protocol; write protocol: tcp or protocol: udp beside them"},
		{"no NAT, no port", "", "    no_nat: [{prefix: 203.0.113.0/24, protocol: tcp, ports: http}]\n", "groups[0].no_nat[0].ports: \"http\" is not a port or a port range; write it such as 443 or 5060-5069"},
		{"no NAT, ports turned", "", "    no_nat: [{prefix: 203.0.113.0/24, protocol: tcp, ports: 90-80}]\n", "groups[0].no_nat[0].ports: 90-80 begins after its end"},
		{"no NAT, key", "", "    no_nat: [{prefix: 203.0.113.0/24, port: 80}]\n", "groups[0].no_nat[0].port: unknown key; known here: ports, prefix, protocol"},
		{"ALG", "", "    alg: [ftp]\n", ":14: groups[0].alg[0]: ftp cannot be switched on: the kernel's helper opens outside ports beyond the subscriber's block, which may be another subscriber's; leave the list empty: passive mode (EPSV)"},
		{"second ALG", "", "    alg:\n      - sip\n      - pptp\n", ":16: groups[0].alg[1]: pptp cannot be switched on"},
		{"unknown ALG", "", "    alg: [irc]\n", ":14: groups[0].alg[0]: \"irc\" is no ALG; known here: ftp, pptp, sip, tftp; leave the list empty"},
		{"ALG without a list", "", "    alg: tftp\n", ":14: groups[0].alg: is a single value; write a list"},
		{"removal key", "", "    removal: {graze: 1s}\n", ":14: groups[0].removal.graze: unknown key; known here: grace, grace_causes"},
		{"group name", "name: default", "name: _", ":11: groups[0].name: \"_\" is not a name here"},
		{"outside as a mapping without a prefix", "[198.51.100.0/28]", "[{draining: true}]", ":13: groups[0].outside[0].prefix: is missing"},
		{"draining by word", "[198.51.100.0/28]", "[{prefix: 198.51.100.0/28, draining: soon}]", ":13: groups[0].outside[0].draining: \"soon\" is neither true nor false"},
		{"draining prefix overlaps", "[198.51.100.0/28]", "[198.51.100.0/28, {prefix: 198.51.100.0/29, draining: true}]", ":13: groups[0].outside[1].prefix: 198.51.100.0/29 overlaps the outside prefix"},
		{"too many blocks with those that drain", "", "    block_size: 1\n  - {name: b, inside: [9.0.0.0/8], outside: [11.0.0.1/32, {prefix: 12.0.0.0/8, draining: true}], block_size: 1}\n", "are more than 134217728"},
		{"group twice", "", "  - {name: default, inside: [10.0.0.0/8], outside: [203.0.113.0/24]}\n", ":14: groups[1].name: default is there twice"},
		{"no outside", "outside: [", "block_size: 512 #", ":11: groups[0].outside: is missing"},
		{"inside overlaps", "[100.64.0.0/10]", "[100.64.0.0/10, 100.65.0.0/16]", ":12: groups[0].inside[1]: 100.65.0.0/16 overlaps the inside prefix 100.64.0.0/10 (groups[0].inside[0], line 12)"},
		{"inside overlaps other group", "", "  - {name: b, inside: [100.64.1.0/24], outside: [203.0.113.0/24]}\n", ":14: groups[1].inside[0]: 100.64.1.0/24 overlaps the inside prefix"},
		{"outside overlaps", "", "  - {name: b, inside: [10.0.0.0/8], outside: [198.51.100.0/24]}\n", ":14: groups[1].outside[0]: 198.51.100.0/24 overlaps the outside prefix 198.51.100.0/28"},
		{"outside inside inside", "198.51.100.0/28", "100.64.3.0/28", ":13: groups[0].outside[0]: 100.64.3.0/28 overlaps the inside prefix"},
		{"IPv6 inside", "100.64.0.0/10", "'2001:db8::/32'", ":12: groups[0].inside[0]: 2001:db8::/32 is not IPv4"},
		{"multicast", "198.51.100.0/28", "224.0.0.0/28", "is not of addresses that hosts can have"},
		{"port below 1024", "", "    port_range: 1023-65535\n", ":14: groups[0].port_range: port 1023 is below 1024"},
		{"ports backwards", "", "    port_range: 3000-2000\n", "3000-2000 begins after its end"},
		{"ports", "", "    port_range: 1024\n", ":14: groups[0].port_range: \"1024\" is not a port range"},
		{"port too high", "", "    port_range: 1024-65536\n", "is not a port range"},
		{"block size", "", "    block_size: 500\n", ":14: groups[0].block_size: 500 is not a power of two from 1 to 32768; write one such as 256"},
		{"unknown mapping", "", "    mapping: address_dependent\n", ":14: groups[0].mapping: \"address_dependent\" is not known; write one of: endpoint_independent"},
		{"unknown filtering", "", "    filtering: full_cone\n", ":14: groups[0].filtering: \"full_cone\" is not known; write one of: address_and_port_dependent, endpoint_independent"},
		{"strict without mappings", "", "    port_overloading: false\n", ":14: groups[0].port_overloading: false needs learned mappings"},
		{"max blocks", "", "    max_blocks: 65\n", ":14: groups[0].max_blocks: 65 is not a number of blocks from 1 to 64"},
		{"several blocks with learned mappings", "", "    max_blocks: 2\n    filtering: endpoint_independent\n", ":14: groups[0].max_blocks: a learned mapping may outlast the sessions that a block is given back for"},
		{"no blocks", "", "    max_blocks: 0\n", ":14: groups[0].max_blocks: 0 is not a number of blocks from 1 to 64"},
		{"block size text", "", "    block_size: many\n", "\"many\" is not a whole number"},
		{"no block", "", "    port_range: 1025-1535\n", ":14: groups[0].port_range: no whole block of 512 ports, aligned to its size"},
		{"too many blocks", "", "    block_size: 1\n  - {name: b, inside: [9.0.0.0/8], outside: [11.0.0.0/8], block_size: 1}\n", "are more than 134217728"},
		{"too small for deterministic mode", "", "    deterministic: true\n", ":14: groups[0].deterministic: each of 4194304 inside addresses needs a block of its own, and 16 outside addresses have 2016 of 512 ports; write at most 2016 inside addresses, at least 33289 outside addresses, or a smaller block_size (no smaller block_size is enough)"},
		{"deterministic with smaller blocks", "[100.64.0.0/10]", "[100.64.0.0/19, 100.65.0.0/20]\n    deterministic: true", ":13: groups[0].deterministic: each of 12288 inside addresses needs a block of its own, and 16 outside addresses have 2016 of 512 ports; write at most 2016 inside addresses, at least 98 outside addresses, or a smaller block_size (block_size 64)"},
		{"deterministic and draining", "[198.51.100.0/28]", "[198.51.100.0/29, {prefix: 198.51.100.8/29, draining: true}]\n    deterministic: true", ":14: groups[0].deterministic: blocks follow the order of the outside prefixes, so none of them can drain (198.51.100.8/29)"},
		{"deterministic with several blocks", "[100.64.0.0/10]", "[100.64.0.0/24]\n    deterministic: true\n    max_blocks: 2", ":14: groups[0].max_blocks: 2 blocks are not possible with deterministic, which gives each inside address the block of its number; write 1 and a larger block_size, or take deterministic out"},
		{"deterministic perhaps", "", "    deterministic: perhaps\n", ":14: groups[0].deterministic:"},
		{"log level", "", "log: {level: loud}\n", ":14: log.level: \"loud\" is not known; write one of: debug, info, warn, error"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := Parse(file, []byte(edit(tt.old, tt.text)))
			if err == nil {
				t.Fatal("accepted")
			}
			if !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), file+":") {
				t.Errorf("%v\nwant %s", err, tt.want)
			}
			if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "testing123") {
				t.Errorf("tells a secret: %v", err)
			}
		})
	}
}
