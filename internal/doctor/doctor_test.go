package doctor

import (
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

func prefixes(texts ...string) (list []netip.Prefix) {
	for _, t := range texts {
		list = append(list, netip.MustParsePrefix(t))
	}
	return list
}

// sound returns the facts of a machine on which nothing is to be mended.
func sound() *Facts {
	return &Facts{
		Config: Config{
			File: "/etc/sessiond/sessiond.yaml", Namespace: "cgn", Inside: []string{"s0"}, Outside: []string{"i0"}, Flowtables: "refuse",
			Groups: []Group{{Name: "default", Inside: prefixes("100.64.0.0/10"), Outside: prefixes("198.51.100.0/28"), BlockSize: 512, Blocks: 2016}},
			ICMP:   time.Minute, TCP: 7440 * time.Second, UDP: 300 * time.Second,
		},
		Sysctls: map[string]string{
			ipForward: "1", conntrackEvents: "2", conntrackMax: "262144", conntrackCount: "1000", conntrackHash: "262144", conntrackAcct: "1", conntrackLoose: "1",
			icmpTimeout: "60", tcpTimeout: "432000", udpTimeout: "120", reversePathAll: "0",
			"net.ipv4.conf.s0.rp_filter": "1", "net.ipv4.conf.i0.rp_filter": "1", "net.ipv4.conf.s0.forwarding": "1", "net.ipv4.conf.i0.forwarding": "1",
		},
		Links: []Link{
			{Name: "s0", Up: true, Addresses: prefixes("100.64.0.1/10")}, {Name: "i0", Up: true, Addresses: prefixes("203.0.113.1/24")},
			{Name: "mgmt", Addresses: prefixes("192.0.2.1/24")},
		},
		Routes: []Route{
			{To: netip.MustParsePrefix("0.0.0.0/0"), Device: "i0"}, {To: netip.MustParsePrefix("100.64.0.0/10"), Device: "s0"},
			{To: netip.MustParsePrefix("198.51.100.0/28"), Blackhole: true},
		},
		Programmed: true,
		Redis: []Redis{{
			Address: "127.0.0.1:6379", CLI: "redis-cli -h 127.0.0.1 -p 6379", Version: "7.0.15", AppendOnly: true, Fsync: "everysec", Policy: "noeviction",
			Memory: 100, EventsKnown: true, Configurable: true, User: "sessiond", Latency: time.Millisecond,
		}},
		Clock: &Clock{Synchronized: true},
		Files: []File{{Path: "/etc/sessiond/sessiond.yaml", Mode: 0o640, Secret: true}},
	}
}

// TestChecks changes one thing of a sound machine, and names the findings that follow:
// "severity check: a part of the text => a part of the command".
func TestChecks(t *testing.T) {
	t.Parallel()
	nat := Chain{Family: "ip", Table: "nat", Name: "POSTROUTING", Type: "nat", Hook: hookPostrouting, Priority: 100}
	masquerade := Rule{Family: "ip", Table: "nat", Chain: "POSTROUTING", Handle: 7, Translates: true}
	forward := Chain{Family: "inet", Table: "filter", Name: "forward", Type: "filter", Hook: hookForward, PolicyDrop: true}
	with := func(r Rule, change func(*Rule)) Rule { change(&r); return r }
	tests := map[string]struct {
		change func(*Facts)
		want   []string
	}{
		"sound": {func(*Facts) {}, nil},
		"no forwarding": {func(f *Facts) { f.Sysctls[ipForward] = "0" },
			[]string{"must forwarding: ip_forward is 0 => ip netns exec cgn sysctl -w net.ipv4.ip_forward=1"}},
		"no forwarding, nor a barrier": {func(f *Facts) { f.Sysctls[ipForward], f.Open = "0", []string{"i0"} },
			[]string{"must forwarding: ip_forward is 0 => sessiond --config /etc/sessiond/sessiond.yaml --barrier && ip netns exec cgn sysctl -w net.ipv4.ip_forward=1"}},
		"no forwarding of an interface": {func(f *Facts) { f.Sysctls["net.ipv4.conf.s0.forwarding"] = "0" },
			[]string{"must forwarding: s0.forwarding is 0 => sysctl -w net.ipv4.conf.s0.forwarding=1"}},
		"no forwarding of another interface": {func(f *Facts) { f.Sysctls["net.ipv4.conf.mgmt.forwarding"] = "0" }, nil},
		"a VLAN": {func(f *Facts) {
			f.Config.Namespace, f.Config.Inside, f.Links[0].Name, f.Routes[1].Device = "", []string{"s0.7"}, "s0.7", "s0.7"
			f.Sysctls["net.ipv4.conf.s0.7.forwarding"] = "0"
		}, []string{"must forwarding: s0.7.forwarding => sysctl -w net/ipv4/conf/s0.7/forwarding=1"}},
		"a module": {func(f *Facts) {
			f.Missing = []Missing{{Module: "nft_nat", Err: "the kernel module nft_nat is missing"}}
		},
			[]string{"must modules: nft_nat => modprobe nft_nat"}},
		"a feature": {func(f *Facts) { f.Missing = []Missing{{Err: "not supported"}} }, []string{"must modules: not supported => "}},
		"no events": {func(f *Facts) { f.Sysctls[conntrackEvents] = "0" },
			[]string{"must events: events is 0 => sysctl -w net.netfilter.nf_conntrack_events=1"}},
		"a small table": {func(f *Facts) { f.Sysctls[conntrackMax] = "65536" },
			[]string{"should conntrack-size: room for 2016 subscribers, who have 129024 sessions => sysctl -w net.netfilter.nf_conntrack_max=131072"}},
		"a table without a limit": {func(f *Facts) { f.Sysctls[conntrackMax] = "0" }, nil},
		"a full table": {func(f *Facts) { f.Sysctls[conntrackCount] = "240000" },
			[]string{"must conntrack-size: 240000 entries are there => nf_conntrack_max=524288"}},
		"few inside addresses": {func(f *Facts) {
			f.Config.Groups[0].Inside, f.Sysctls[conntrackMax] = prefixes("100.64.0.0/24"), "16384"
		}, nil},
		"few buckets": {func(f *Facts) { f.Sysctls[conntrackHash] = "16384" },
			[]string{"should conntrack-buckets: 16384, with room for 262144 entries => nf_conntrack_buckets=131072"}},
		"not loose": {func(f *Facts) { f.Sysctls[conntrackLoose] = "0" },
			[]string{"should tcp-loose: is 0 => nf_conntrack_tcp_loose=1"}},
		"no counters": {func(f *Facts) { f.Sysctls[conntrackAcct] = "0" },
			[]string{"should accounting: is 0 => nf_conntrack_acct=1"}},
		"a short timeout": {func(f *Facts) { f.Sysctls[icmpTimeout], f.Sysctls[udpTimeout] = "30", "30" },
			[]string{"should timeouts: icmp_timeout is 30 => nf_conntrack_icmp_timeout=60"}},
		"a short timeout, before the first start": {func(f *Facts) { f.Sysctls[icmpTimeout], f.Programmed = "30", false }, nil},
		"short timeouts beside a flowtable": {func(f *Facts) { f.Sysctls[tcpTimeout], f.Config.Flowtables = "60", "own" },
			[]string{
				"should timeouts: timeout_established is 60 => nf_conntrack_tcp_timeout_established=7440",
				"should timeouts: timeout_stream is 120 => nf_conntrack_udp_timeout_stream=300",
			}},
		"a strict outside interface of two": {func(f *Facts) {
			f.Config.Outside = append(f.Config.Outside, "i1")
			f.Links = append(f.Links, Link{Name: "i1", Up: true})
		}, []string{"should reverse-path: i0 is strict => sysctl -w net.ipv4.conf.i0.rp_filter=2"}},
		"a strict outside interface without the default route": {func(f *Facts) {
			f.Config.Outside = append(f.Config.Outside, "i1")
			f.Links = append(f.Links, Link{Name: "i1", Up: true})
			f.Routes[0].Device, f.Sysctls[reversePathAll], f.Sysctls["net.ipv4.conf.i1.rp_filter"] = "i1", "1", "2"
		}, []string{"must reverse-path: i0 is strict => net.ipv4.conf.i0.rp_filter=2"}},
		"a strict inside interface without a route": {func(f *Facts) {
			f.Config.Inside, f.Links[0].Name, f.Routes[1].Device = []string{"s0", "s1"}, "s1", "s1"
			f.Links = append(f.Links, Link{Name: "s0", Up: true})
		}, []string{"must reverse-path: s0 is strict => net.ipv4.conf.s0.rp_filter=2"}},
		"helpers": {func(f *Facts) { f.Sysctls[conntrackHelper], f.Helpers = "1", []string{"table t, ct helper ftp"} },
			[]string{"should helpers: helper is 1 => nf_conntrack_helper=0", "should helpers: ct helper ftp => "}},

		"a masquerade": {func(f *Facts) { f.Chains, f.Rules = []Chain{nat}, []Rule{masquerade} },
			[]string{"must translations: ip nat POSTROUTING handle 7 => ip netns exec cgn nft delete rule ip nat POSTROUTING handle 7"}},
		"a masquerade behind ours": {func(f *Facts) {
			behind := nat
			behind.Priority = 101
			f.Chains, f.Rules = []Chain{behind}, []Rule{masquerade}
		}, nil},
		"a masquerade of containers": {func(f *Facts) {
			f.Chains = []Chain{nat}
			f.Rules = []Rule{
				with(masquerade, func(r *Rule) { r.Source = netip.MustParsePrefix("172.17.0.0/16") }),
				with(masquerade, func(r *Rule) { r.Output = "docker0" }),
				with(masquerade, func(r *Rule) { r.Input = "mgmt" }),
			}
		}, nil},
		"a masquerade of some subscribers": {func(f *Facts) {
			f.Chains = []Chain{nat}
			f.Rules = []Rule{with(masquerade, func(r *Rule) { r.Source, r.Output = netip.MustParsePrefix("100.100.0.0/16"), "i*" })}
		}, []string{"must translations: handle 7 => handle 7"}},
		"a masquerade with conditions": {func(f *Facts) {
			f.Chains, f.Rules = []Chain{nat}, []Rule{with(masquerade, func(r *Rule) { r.Narrow = true })}
		}, []string{"should translations: may translate => "}},
		"notrack with conditions": {func(f *Facts) {
			f.Rules = []Rule{{Family: "inet", Table: "raw", Chain: "pre", Handle: 3, Untracked: true, Narrow: true}}
		}, []string{"should untracked: may keep packets => "}},
		"notrack": {func(f *Facts) {
			f.Rules = []Rule{{Family: "inet", Table: "raw", Chain: "pre", Handle: 3, Untracked: true}}
		},
			[]string{"must untracked: inet raw pre handle 3 => nft delete rule inet raw pre handle 3"}},
		"masked events": {func(f *Facts) { f.Rules = []Rule{{Family: "inet", Table: "raw", Chain: "pre", Handle: 3, Quiet: true}} },
			[]string{"should quiet: inet raw pre handle 3 => nft delete rule inet raw pre handle 3"}},
		"a firewall that drops all": {func(f *Facts) { f.Chains = []Chain{forward} },
			[]string{`must firewall: inet filter forward => nft insert rule inet filter forward 'iifname "s0" oifname "i0" counter accept' && ip netns exec cgn nft insert rule inet filter forward 'iifname "i0" oifname "s0" counter accept' && ip netns exec cgn nft insert rule inet filter forward 'iifname "s0" oifname "s0" counter accept'`}},
		"a firewall that accepts both ways": {func(f *Facts) {
			rule := Rule{Family: "inet", Table: "filter", Chain: "forward", Accepts: true}
			f.Chains, f.Rules = []Chain{forward}, []Rule{with(rule, func(r *Rule) { r.Input = "s*" }), with(rule, func(r *Rule) { r.Output = "s0" })}
		}, nil},
		"a firewall that accepts one way": {func(f *Facts) {
			rule := Rule{Family: "inet", Table: "filter", Chain: "forward", Accepts: true}
			f.Chains, f.Rules = []Chain{forward}, []Rule{with(rule, func(r *Rule) { r.Input = "s0" }), with(rule, func(r *Rule) { r.Narrow = true })}
		}, []string{"should firewall: not all of: iifname \"i0\" oifname \"s0\" => iifname"}},
		"a flowtable": {func(f *Facts) {
			f.Flowtables = []Flowtable{{Family: "inet", Table: "fast", Name: "ft", Devices: []string{"i0", "s0"}}}
			f.Rules = []Rule{{Family: "inet", Table: "fast", Chain: "fwd", Handle: 4, Flowtable: "ft"}, {Family: "inet", Table: "x", Chain: "fwd", Handle: 5, Flowtable: "ft"}}
		}, []string{"must flowtables: inet fast ft => ip netns exec cgn nft delete rule inet fast fwd handle 4 && ip netns exec cgn nft delete flowtable inet fast ft"}},
		"an accepted flowtable": {func(f *Facts) {
			f.Flowtables, f.Config.Flowtables = []Flowtable{{Family: "inet", Table: "fast", Name: "ft", Devices: []string{"i0"}}}, "accept"
			f.Sysctls[udpTimeout] = "300"
		}, nil},
		"an accepted flowtable in hardware": {func(f *Facts) {
			f.Flowtables, f.Config.Flowtables = []Flowtable{{Family: "inet", Table: "fast", Name: "ft", Devices: []string{"i0"}, Hardware: true}}, "accept"
			f.Sysctls[udpTimeout] = "300"
		}, []string{"must flowtables: inet fast ft => nft delete flowtable inet fast ft"}},
		"a flowtable of other interfaces": {func(f *Facts) {
			f.Flowtables = []Flowtable{{Family: "inet", Table: "fast", Name: "ft", Devices: []string{"mgmt"}}}
		}, nil},

		"no interface": {func(f *Facts) { f.Config.Inside = []string{"s0", "s1", "ppp*"} },
			[]string{"must interfaces: s1 does not exist in namespace cgn => ", "should interfaces: ppp* => "}},
		"an interface that is down": {func(f *Facts) { f.Links[1].Up = false },
			[]string{"must interfaces: i0 is down => ip link set dev i0 up"}},
		"an address of a pool": {func(f *Facts) { f.Links[2].Addresses = prefixes("198.51.100.3/32") },
			[]string{"must addresses: 198.51.100.3/32 on mgmt => ip address del 198.51.100.3/32 dev mgmt"}},
		"an address of a pool, by which a link lives": {func(f *Facts) { f.Links[1].Addresses = prefixes("198.51.100.1/28") },
			[]string{"must addresses: 198.51.100.1/28 on i0 => "}},
		"a link within an inside prefix": {func(f *Facts) { f.Links[1].Addresses = prefixes("100.64.9.1/24") },
			[]string{"must addresses: overlaps the inside prefixes => "}},
		"another default route": {func(f *Facts) { f.Routes[0].Device, f.Sysctls["net.ipv4.conf.i0.rp_filter"] = "mgmt", "0" },
			[]string{"must routes: no default route => "}},
		"no default route": {func(f *Facts) { f.Routes, f.Sysctls["net.ipv4.conf.i0.rp_filter"] = f.Routes[1:], "0" },
			[]string{`must routes: no default route => ip route replace default via "$GATEWAY" dev i0`}},
		"no route to subscribers": {func(f *Facts) { f.Routes[1].Device, f.Sysctls["net.ipv4.conf.s0.rp_filter"] = "i0", "0" },
			[]string{`must routes: 100.64.0.0/10 => ip route replace 100.64.0.0/10 via "$BNG" dev s0`}},
		"subscribers who dial in": {func(f *Facts) {
			f.Config.Inside, f.Links[0].Name, f.Routes = []string{"ppp*"}, "ppp0", []Route{f.Routes[0], f.Routes[2]}
		}, nil},
		"a pool without a blackhole": {func(f *Facts) { f.Routes = f.Routes[:2] },
			[]string{"should routes: 198.51.100.0/28 => ip route replace blackhole 198.51.100.0/28 proto 93"}},
		"a pool without a blackhole, before the first start": {func(f *Facts) { f.Routes, f.Programmed = f.Routes[:2], false }, nil},
		"a pool that others route": {func(f *Facts) { f.Routes[2] = Route{To: f.Routes[2].To, Device: "mgmt"} },
			[]string{"should routes: a route to mgmt => ip route replace blackhole 198.51.100.0/28 proto 93"}},
		"a pool that is the network of a link": {func(f *Facts) {
			f.Links[2].Addresses, f.Routes[2] = prefixes("198.51.100.3/28"), Route{To: f.Routes[2].To, Device: "mgmt"}
		}, []string{"must addresses: on mgmt => ", "should routes: a route to mgmt => "}},
		"no barrier": {func(f *Facts) { f.Open = []string{"i0"} },
			[]string{"should barrier: no barrier on i0 => sessiond --config /etc/sessiond/sessiond.yaml --barrier"}},
		"no barrier, before the first start": {func(f *Facts) { f.Open, f.Programmed = []string{"i0"}, false },
			[]string{"must barrier: no barrier on i0 => --barrier"}},

		"no Redis": {func(f *Facts) { f.Redis = []Redis{{Address: "10.0.0.1:6379", Err: "connection refused"}} },
			[]string{"must redis: 10.0.0.1:6379 does not answer: connection refused => "}},
		"a replica":    {func(f *Facts) { f.Redis[0].Replica = true }, []string{"must redis: is a replica => "}},
		"an old Redis": {func(f *Facts) { f.Redis[0].Version = "6.2.14" }, []string{"must redis-version: 6.2.14 => "}},
		"nothing on disk": {func(f *Facts) { f.Redis[0].AppendOnly = false },
			[]string{"must redis-persistence: nothing is kept on disk => redis-cli -h 127.0.0.1 -p 6379 CONFIG SET appendonly yes"}},
		"snapshots": {func(f *Facts) {
			f.Redis[0].AppendOnly, f.Redis[0].Snapshots, f.Redis[0].ConfigFile = false, true, "/etc/redis/redis.conf"
		}, []string{"must redis-persistence: only snapshots => CONFIG SET appendonly yes && redis-cli -h 127.0.0.1 -p 6379 CONFIG REWRITE"}},
		"no fsync": {func(f *Facts) { f.Redis[0].Fsync = "no" }, []string{"should redis-persistence: appendfsync is no => CONFIG SET appendfsync everysec"}},
		"eviction": {func(f *Facts) { f.Redis[0].Policy = "allkeys-lru" },
			[]string{"must redis-eviction: allkeys-lru => CONFIG SET maxmemory-policy noeviction"}},
		"a full Redis": {func(f *Facts) { f.Redis[0].MaxMemory = 120 }, []string{"must redis-eviction: 100 of 120 octets => CONFIG SET maxmemory 200"}},
		"no notices": {func(f *Facts) {
			f.Redis[0].Events, f.Redis[0].EventsLacking, f.Redis[0].Configurable = "Kl", "Egxe", false
		}, []string{"should redis-notifications: lacks Egxe => CONFIG SET notify-keyspace-events KlEgxe"}},
		"no notices yet":  {func(f *Facts) { f.Redis[0].EventsLacking = "Egxe" }, nil},
		"unknown notices": {func(f *Facts) { f.Redis[0].EventsKnown = false }, []string{"should redis-notifications: may not read => ACL SETUSER sessiond '+config|get'"}},
		"no rights": {func(f *Facts) { f.Redis[0].Refused, f.Redis[0].EventsKnown = []string{"xadd", "memory|usage"}, false },
			[]string{"must redis-rights: the user sessiond may not use the commands xadd, memory|usage => ACL SETUSER sessiond +xadd '+memory|usage'"}},
		"no keys": {func(f *Facts) {
			f.Redis[0].RefusedKeys, f.Redis[0].RefusedEvents = []string{"sessiond:settings"}, true
		}, []string{"must redis-rights: may not use keys such as sessiond:settings, nor the channels => ACL SETUSER sessiond '~sessiond:*' '~{sessiond:settings}:*' '&__keyevent@*'"}},
		"a slow Redis":   {func(f *Facts) { f.Redis[0].Latency = 12 * time.Millisecond }, []string{"should redis-latency: 12ms => "}},
		"a clock behind": {func(f *Facts) { f.Redis[0].Ahead = -3 * time.Second }, []string{"should redis-clock: 3s behind => timedatectl"}},
		"a clock ahead":  {func(f *Facts) { f.Redis[0].Ahead = 3 * time.Second }, []string{"should redis-clock: 3s ahead of => timedatectl"}},

		"no time server": {func(f *Facts) { f.Clock.Synchronized = false }, []string{"should time: no time server => timedatectl set-ntp true"}},
		"readable secrets": {func(f *Facts) { f.Files[0].Mode, f.Files[0].Path = 0o644, "/etc/my isp.yaml" },
			[]string{"must files: 0644 => chmod o-rwx '/etc/my isp.yaml'"}},
		"readable, without secrets": {func(f *Facts) { f.Files[0] = File{Path: "/etc/x", Mode: 0o644} }, nil},
		"writable":                  {func(f *Facts) { f.Files[0].Mode = 0o660 }, []string{"must files: 0660 => chmod go-w /etc/sessiond/sessiond.yaml"}},
		"unread":                    {func(f *Facts) { f.Clock, f.Unread = nil, []Unread{{"the clock", "denied"}} }, []string{"should unread: the clock could not be read: denied => "}},
	}
	seen := map[string]bool{}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f := sound()
			tt.change(f)
			found := Examine(f)
			if len(found) != len(tt.want) {
				t.Fatalf("found %+v, want %q", found, tt.want)
			}
			for i, want := range tt.want {
				head, command, _ := strings.Cut(want, " => ")
				head, text, _ := strings.Cut(head, ": ")
				got := found[i]
				if string(got.Severity)+" "+got.Check != head || !strings.Contains(got.Found, text) || !strings.Contains(got.Command, command) || command == "" && got.Command != "" {
					t.Errorf("found %+v, want %s", got, want)
				}
				if got.Why == "" || got.Command == "" && got.Note == "" {
					t.Errorf("%+v does not say why, or what to do", got)
				}
				if out, err := exec.Command("sh", "-n", "-c", got.Command).CombinedOutput(); err != nil {
					t.Errorf("%s: %v %s", got.Command, err, out)
				}
				seen[got.Check] = true
			}
			if Mends(found) != slices.ContainsFunc(tt.want, func(w string) bool { return strings.HasPrefix(w, "must") }) {
				t.Errorf("mends: %t", Mends(found))
			}
		})
	}
	for _, c := range Checks() {
		if !seen[c.Name] {
			t.Errorf("no test of the check %s", c.Name)
		}
		if c.About == "" {
			t.Errorf("the check %s does not say what it looks at", c.Name)
		}
	}
}

// TestNothingKnown: facts that could not be read are no findings of other checks.
func TestNothingKnown(t *testing.T) {
	t.Parallel()
	if found := Examine(&Facts{}); len(found) > 0 {
		t.Errorf("found %+v", found)
	}
}

func TestText(t *testing.T) {
	t.Parallel()
	if got := Text(nil, 26); got != "26 checks found nothing to mend\n" {
		t.Errorf("%q", got)
	}
	got := Text([]Finding{
		{Check: "forwarding", Severity: Must, Found: "it is off", Why: "nothing passes", Command: "sysctl -w x=1", Note: "write it down"},
		{Check: "time", Severity: Should, Found: "no server", Why: "who knows"},
	}, 26)
	want := `MUST    forwarding: it is off
        why   nothing passes
        mend  sysctl -w x=1
        note  write it down

SHOULD  time: no server
        why   who knows

26 checks: 1 to be mended, 1 should be
`
	if got != want {
		t.Errorf("got\n%s", got)
	}
}

// TestQuote: a shell reads each word back as it was.
func TestQuote(t *testing.T) {
	t.Parallel()
	for _, word := range []string{"", "eth0", "a b", "it's", `"$HOME"`, "~x", "*", "a;b", "net.ipv4=1", "|", "ü"} {
		out, err := exec.Command("sh", "-c", "printf %s "+Quote(word)).Output()
		if err != nil || string(out) != word {
			t.Errorf("%q: %q, %v", word, out, err)
		}
	}
	if fmt.Sprint(Quote("eth0"), Quote("a b")) != "eth0'a b'" {
		t.Error("quotes what needs none, or not what does")
	}
}
