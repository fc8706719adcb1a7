package conntrack_test

import (
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/sessiond/sessiond/internal/conntrack"
	"github.com/sessiond/sessiond/internal/conntrack/conntracktest"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/testenv"
)

// wire connects a subscriber (100.64.0.1) and an internet host (203.0.113.1) by a router
// that does not track connections yet. It returns their names.
func wire(t *testing.T) (subscriber, router, internet string) {
	subscriber, _ = conntracktest.Namespace(t)
	router, _ = conntracktest.Namespace(t)
	internet, _ = conntracktest.Namespace(t)
	conntracktest.In(t, router, "sh", "-ec", `
		ip link add s0 type veth peer name e0 netns `+subscriber+`
		ip link add i0 type veth peer name e0 netns `+internet+`
		ip addr add 100.64.0.254/24 dev s0
		ip addr add 203.0.113.254/24 dev i0
		ip link set s0 up; ip link set i0 up; ip link set lo up
		sysctl -qw net.ipv4.ip_forward=1`)
	for name, address := range map[string]string{subscriber: "100.64.0", internet: "203.0.113"} {
		conntracktest.In(t, name, "sh", "-ec", `
			ip addr add `+address+`.1/24 dev e0
			ip link set e0 up; ip link set lo up
			ip route add default via `+address+`.254`)
	}
	return subscriber, router, internet
}

// ruleset loads nft rules in a namespace.
func ruleset(t *testing.T, name, rules string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "ip", "netns", "exec", name, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("nft: %v: %s", err, out)
	}
}

const natRules = `
table ip nat {
	chain pre {
		type nat hook prerouting priority dstnat
		ip daddr 198.51.100.1 udp dport 4000 dnat to 100.64.0.1:5000
	}
	chain post {
		type nat hook postrouting priority srcnat
		ip saddr 100.64.0.0/10 snat to 198.51.100.1
	}
}`

// talk makes two outbound UDP sessions and an inbound one.
func talk(t *testing.T, subscriber, internet string) {
	t.Helper()
	conntracktest.In(t, subscriber, "bash", "-c", "echo x > /dev/udp/203.0.113.1/53")
	conntracktest.In(t, subscriber, "bash", "-c", "echo x > /dev/udp/203.0.113.1/123")
	conntracktest.In(t, internet, "bash", "-c", "echo x > /dev/udp/198.51.100.1/4000")
}

func TestRealTraffic_DEL01_DEL02(t *testing.T) {
	testenv.Require(t, testenv.Root|testenv.Conntrack|testenv.Nft)
	subscriber, router, internet := wire(t)
	l := &lab{name: router, table: start(t, conntrack.Options{ // before anything is tracked
		NetNS: router, Inside: []netip.Prefix{insideNet},
	})}
	ruleset(t, router, natRules)
	talk(t, subscriber, internet)
	a := netip.MustParseAddr("100.64.0.1")
	l.waitCount(t, a, 3)
	inbound := 0
	for _, e := range dump(t, l.table) {
		if e.Reply.Src == a && e.Reply.SrcPort == 5000 && e.Orig.DstPort == 4000 {
			inbound++
		}
	}
	if inbound != 1 {
		t.Errorf("%d inbound sessions in the dump, want 1", inbound)
	}
	got, err := l.table.Delete(t.Context(), []netip.Addr{a})
	if err != nil || got[a].Deleted != 3 || got[a].Proof != nat.ProofIndex || l.listed(t, a) != 0 {
		t.Fatalf("Delete = %v, %v; %d left", got, err, l.listed(t, a))
	}
}

// Sessions that begin without a listener end without an event, unless the sysctl is 1: then
// a daemon that starts later receives their end.
func TestSysctlMakesUnwatchedSessionsTellTheirEnd(t *testing.T) {
	testenv.Require(t, testenv.Root|testenv.Conntrack|testenv.Nft)
	subscriber, router, internet := wire(t)
	conntracktest.In(t, router, "sysctl", "-qw", "net.netfilter.nf_conntrack_events=1")
	ruleset(t, router, natRules)
	talk(t, subscriber, internet)
	l := &lab{name: router, table: start(t, conntrack.Options{
		NetNS: router, Inside: []netip.Prefix{insideNet},
	})}
	a := netip.MustParseAddr("100.64.0.1")
	l.waitCount(t, a, 3)
	conntracktest.In(t, router, "conntrack", "-F")
	l.waitCount(t, a, 0)
	if n := l.table.Stats().Rebuilds; n != 1 {
		t.Errorf("%d rebuilds, want the first alone", n)
	}
}
