package doctor

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"time"
)

// The sysctls that are looked at, besides those of each interface.
const (
	ipForward       = "net.ipv4.ip_forward"
	conntrackEvents = "net.netfilter.nf_conntrack_events"
	conntrackMax    = "net.netfilter.nf_conntrack_max"
	conntrackCount  = "net.netfilter.nf_conntrack_count"
	conntrackHash   = "net.netfilter.nf_conntrack_buckets"
	conntrackAcct   = "net.netfilter.nf_conntrack_acct"
	conntrackLoose  = "net.netfilter.nf_conntrack_tcp_loose"
	conntrackHelper = "net.netfilter.nf_conntrack_helper"
	icmpTimeout     = "net.netfilter.nf_conntrack_icmp_timeout"
	tcpTimeout      = "net.netfilter.nf_conntrack_tcp_timeout_established"
	udpTimeout      = "net.netfilter.nf_conntrack_udp_timeout_stream"
	reversePathAll  = confOf + "all.rp_filter"
)

// Sysctls returns the names of the sysctls that the checks look at, for some interfaces.
func Sysctls(interfaces []string) []string {
	names := []string{ipForward, conntrackEvents, conntrackMax, conntrackCount, conntrackHash, conntrackAcct,
		conntrackLoose, conntrackHelper, icmpTimeout, tcpTimeout, udpTimeout, reversePathAll}
	for _, name := range interfaces {
		names = append(names, reversePathOf(name), forwardingOf(name))
	}
	return names
}

// confOf begins the names of the sysctls of interfaces.
const confOf = "net.ipv4.conf."

func reversePathOf(name string) string { return confOf + name + ".rp_filter" }

func forwardingOf(name string) string { return confOf + name + ".forwarding" }

var sysctlChecks = []Check{
	{"forwarding", "net.ipv4.ip_forward, and forwarding of each interface", checkForwarding},
	{"modules", "features of the kernel, by a start in a namespace of its own", checkMissing},
	{"events", "net.netfilter.nf_conntrack_events", checkEvents},
	{"conntrack-size", "nf_conntrack_max, against the subscribers that the pools have room for, and the present entries", checkTableSize},
	{"conntrack-buckets", "nf_conntrack_buckets, against nf_conntrack_max", checkBuckets},
	{"tcp-loose", "net.netfilter.nf_conntrack_tcp_loose", checkLoose},
	{"accounting", "net.netfilter.nf_conntrack_acct", checkAccounting},
	{"timeouts", "idle timeouts of the namespace that sessiond sets", checkTimeouts},
	{"reverse-path", "rp_filter of inside and outside interfaces", checkReversePath},
	{"helpers", "conntrack helpers (ALGs) of others", checkHelpers},
}

// number returns a sysctl as a number; ok is false where it is not known.
func (f *Facts) number(name string) (n int, ok bool) {
	n, err := strconv.Atoi(f.Sysctls[name])
	return n, err == nil
}

// is reports whether a sysctl is known and has the value.
func (f *Facts) is(name string, value int) bool {
	n, ok := f.number(name)
	return ok && n == value
}

// setting returns a finding whose remedy is a sysctl of the NAT's namespace.
func (f *Facts) setting(s Severity, name string, value int, why string) Finding {
	assignment := fmt.Sprintf("%s=%d", slashed(name), value)
	return Finding{
		Severity: s, Found: fmt.Sprintf("%s is %s", name, f.Sysctls[name]), Why: why,
		Command: f.Config.inNamespace("sysctl -w " + Quote(assignment)), Note: lasting(assignment),
	}
}

func lasting(assignment string) string {
	return "for the next boot, write " + assignment + " into /etc/sysctl.d/sessiond.conf"
}

// slashed returns the name of a sysctl as sysctl(8) takes it: a name of an interface that has a dot,
// as that of a VLAN, needs slashes.
func slashed(name string) string {
	for _, setting := range []string{".rp_filter", ".forwarding"} {
		rest, ofLink := strings.CutPrefix(name, confOf)
		if link, ok := strings.CutSuffix(rest, setting); ofLink && ok && strings.Contains(link, ".") {
			return strings.ReplaceAll(confOf, ".", "/") + link + "/" + setting[1:]
		}
	}
	return name
}

func checkForwarding(f *Facts) (found []Finding) {
	if f.is(ipForward, 0) {
		finding := f.setting(Must, ipForward, 1, "the machine forwards no packet: no subscriber reaches the internet")
		if len(f.Open) > 0 { // else subscribers' packets would leave untranslated from then on
			finding.Command = f.Config.raiseBarrier() + " && " + finding.Command
		}
		finding.Note = "with sessiond-barrier.service leave it at 0 in /etc/sysctl.d: the service switches it on, behind the barrier"
		return []Finding{finding}
	}
	for _, l := range f.Links {
		if name := forwardingOf(l.Name); f.Config.Serves(l.Name) && f.is(name, 0) {
			found = append(found, f.setting(Must, name, 1, "packets that come in by "+l.Name+" are not forwarded"))
		}
	}
	return found
}

// Serves reports whether an interface is an inside or outside one.
func (c *Config) Serves(name string) bool { return matches(c.Inside, name) || matches(c.Outside, name) }

func checkMissing(f *Facts) (found []Finding) {
	for _, m := range f.Missing {
		finding := Finding{
			Severity: Must, Found: m.Err, Why: "sessiond does not start, or has no barrier, without it",
			Note: "install the kernel package that has it",
		}
		if m.Module != "" {
			finding.Command = "modprobe " + Quote(m.Module)
			finding.Note = "for the next boot, write " + m.Module + " into /etc/modules-load.d/sessiond.conf"
		}
		found = append(found, finding)
	}
	return found
}

func checkEvents(f *Facts) []Finding {
	if !f.is(conntrackEvents, 0) {
		return nil
	}
	return []Finding{f.setting(Must, conntrackEvents, 1,
		"conntrack tells nothing of new sessions: each removal is proved by a walk through the whole table, counts and limits of sessions are wrong")}
}

// Sizes of the conntrack table.
const (
	// ordinarySessions are the sessions of one subscriber at a busy hour that the sizing assumes:
	// `sessionctl session count`, divided by the subscribers, measures them.
	ordinarySessions = 64
	// fullShare is the share of the table from which on sessiond warns, too.
	fullShare = 0.8
	// longestChain is the mean number of entries in one bucket of a full table.
	longestChain = 4
)

// Room returns the number of subscribers that can have a block, each with an inside address and a
// block of its own, and of their sessions at a busy hour.
func (c *Config) Room() (subscribers, sessions int) {
	for _, g := range c.Groups {
		inside := 0
		for _, p := range g.Inside {
			inside += 1 << (32 - p.Bits())
		}
		n := min(inside, g.Blocks)
		subscribers += n
		sessions += n * min(g.BlockSize, ordinarySessions)
	}
	return subscribers, sessions
}

// wantedTable returns the number of entries that the conntrack table should have, a power of two.
func (f *Facts) wantedTable() int {
	_, sessions := f.Config.Room()
	count, _ := f.number(conntrackCount)
	wanted := max(sessions, int(float64(count)/fullShare)+1)
	return 1 << bits.Len(uint(wanted-1))
}

// checkTableSize looks at a limit that is of the whole machine, not of the namespace.
func checkTableSize(f *Facts) []Finding {
	limit, ok := f.number(conntrackMax)
	if !ok || limit == 0 { // 0: no limit
		return nil
	}
	count, _ := f.number(conntrackCount)
	subscribers, sessions := f.Config.Room()
	finding := Finding{Severity: Should, Why: "at the limit the kernel drops new flows of everybody"}
	switch {
	case float64(count) >= fullShare*float64(limit):
		finding.Severity, finding.Found = Must, fmt.Sprintf("%s is %d, and %d entries are there", conntrackMax, limit, count)
	case limit < sessions:
		finding.Found = fmt.Sprintf("%s is %d: the pools have room for %d subscribers, who have %d sessions at a busy hour (%d each)",
			conntrackMax, limit, subscribers, sessions, ordinarySessions)
	default:
		return nil
	}
	assignment := fmt.Sprintf("%s=%d", conntrackMax, f.wantedTable())
	finding.Command, finding.Note = "sysctl -w "+assignment, lasting(assignment)+"; 1,000,000 entries take about 400 MB of the kernel's memory"
	return []Finding{finding}
}

func checkBuckets(f *Facts) []Finding {
	limit, ok := f.number(conntrackMax)
	buckets, known := f.number(conntrackHash)
	if !ok || !known || limit <= longestChain*buckets {
		return nil
	}
	assignment := fmt.Sprintf("%s=%d", conntrackHash, 1<<bits.Len(uint(limit/longestChain*2-1)))
	return []Finding{{
		Severity: Should, Found: fmt.Sprintf("%s is %d, with room for %d entries (%s)", conntrackHash, buckets, limit, conntrackMax),
		Why:     fmt.Sprintf("in a full table each packet is compared with more than %d entries", longestChain),
		Command: "sysctl -w " + assignment, Note: lasting(assignment),
	}}
}

func checkLoose(f *Facts) []Finding {
	if !f.is(conntrackLoose, 0) {
		return nil
	}
	return []Finding{f.setting(Should, conntrackLoose, 1,
		"a TCP connection whose entry is gone, as after a flush of nftables or a boot, hangs in silence: the kernel does not take it up again. Removed subscribers stay cut off either way")}
}

func checkAccounting(f *Facts) []Finding {
	if !f.is(conntrackAcct, 0) {
		return nil
	}
	return []Finding{f.setting(Should, conntrackAcct, 1, "packets and bytes of sessions are shown as 0, and sessions that began before it is on stay so")}
}

// checkTimeouts looks at what sessiond sets at its start, once it has set it.
func checkTimeouts(f *Facts) (found []Finding) {
	if !f.Programmed {
		return nil
	}
	timeouts := []struct {
		name   string
		wanted time.Duration
		whose  string
	}{{icmpTimeout, f.Config.ICMP, "ICMP sessions of subscribers"}}
	if f.Config.Flowtables != "refuse" {
		timeouts = append(timeouts, []struct {
			name   string
			wanted time.Duration
			whose  string
		}{{tcpTimeout, f.Config.TCP, "TCP sessions that were in a flowtable"}, {udpTimeout, f.Config.UDP, "UDP sessions that were in a flowtable"}}...)
	}
	for _, t := range timeouts {
		if n, ok := f.number(t.name); ok && time.Duration(n)*time.Second < t.wanted {
			finding := f.setting(Should, t.name, int(t.wanted/time.Second), t.whose+" end before their configured idle timeout of "+t.wanted.String())
			finding.Note = "sessiond sets it at its start: another program changed it since"
			found = append(found, finding)
		}
	}
	return found
}

// Values of rp_filter; the greater one of an interface and of "all" is in force.
const (
	reversePathStrict = 1
	reversePathLoose  = 2
)

func (f *Facts) strict(name string) bool {
	all, _ := f.number(reversePathAll)
	own, known := f.number(reversePathOf(name))
	return known && max(all, own) == reversePathStrict
}

func checkReversePath(f *Facts) (found []Finding) {
	add := func(s Severity, l Link, why string) {
		name := reversePathOf(l.Name)
		finding := f.setting(s, name, reversePathLoose, why)
		finding.Found = fmt.Sprintf("the reverse path filter of %s is strict (%s is %s, that of all %s)", l.Name, name, f.Sysctls[name], f.Sysctls[reversePathAll])
		found = append(found, finding)
	}
	for _, l := range f.Links {
		switch {
		case !f.strict(l.Name):
		case matches(f.Config.Outside, l.Name) && !f.leads(l.Name):
			add(Must, l, "replies from the internet that come in by "+l.Name+" are dropped: no default route leads there")
		case matches(f.Config.Outside, l.Name) && len(f.Config.Outside) > 1:
			add(Should, l, "a reply that comes in by another outside interface than its question left by is dropped")
		case matches(f.Config.Inside, l.Name) && !f.reaches(l.Name):
			add(Must, l, "packets of subscribers that come in by "+l.Name+" are dropped: no route to an inside prefix leads there")
		}
	}
	return found
}

func checkHelpers(f *Facts) (found []Finding) {
	const why = "connections that helpers (ALGs) expect are dropped for subscribers: their outside ports are of no block"
	if f.is(conntrackHelper, 1) {
		found = append(found, f.setting(Should, conntrackHelper, 0, why))
	}
	for _, h := range f.Helpers {
		found = append(found, Finding{
			Severity: Should, Found: "conntrack helper of others: " + h, Why: why,
			Note: "take subscribers out of the rules that assign it, or delete it with its rules",
		})
	}
	return found
}
