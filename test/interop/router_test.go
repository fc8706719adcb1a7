package interop

import (
	"encoding/json"
	"net/netip"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/rig"
	"github.com/sessiond/sessiond/internal/testenv"
)

// A router is a world whose sessiond translates in a lab: the software of others is on both
// sides of it, and alice is online.
type router struct {
	*world
	alice  rig.Binding
	remote netip.Addr // of the internet host
}

// startRouter starts a router with more keys of its group, such as "max_blocks: 2".
func startRouter(t *testing.T, needs testenv.Need, keys string) *router {
	t.Helper()
	w := startWith(t, needs|testenv.Root|testenv.Nft|testenv.Conntrack, func(_ *world, o *rig.Options) { o.Memory = false })
	r := &router{world: w, remote: w.Lab.Remotes[0]}
	if keys != "" && !r.reload(keys) {
		t.Fatalf("the keys %s are refused:\n%s", keys, tail(w.Daemon.Log()))
	}
	var err error
	r.alice, err = w.Online(w.ctx, rig.Session{ID: "a-1", User: "alice", Inside: alice})
	w.must(err)
	return r
}

// reload adds keys to the group, and reports whether sessiond takes them.
func (r *router) reload(keys string) bool {
	r.t.Helper()
	taken, err := r.Daemon.Reload(r.ctx, func(config string) string {
		return strings.Replace(config, "{name: default, ", "{name: default, "+keys+", ", 1)
	})
	r.must(err)
	return taken
}

// within returns a command that runs in a namespace, and ends with the test.
func (r *router) within(n *netlab.Namespace, name string, args ...string) *exec.Cmd {
	return exec.CommandContext(r.ctx, "nsenter", slices.Concat([]string{"--net=" + n.Path(), "--", name}, args)...)
}

// serve starts a program in a namespace that runs until the test ends, with all processes that
// it starts, and waits until it prints that it is ready.
func (r *router) serve(n *netlab.Namespace, ready, name string, args ...string) *rig.Program {
	r.t.Helper()
	return r.program(ready, "nsenter", slices.Concat([]string{"--net=" + n.Path(), "--",
		"unshare", "--pid", "--fork", "--kill-child", "--", name}, args)...)
}

// capture captures on an interface of the CGN.
func (r *router) captureOn(iface string) *netlab.Capture {
	r.t.Helper()
	c, err := r.Lab.CGN.Capture(iface)
	r.must(err)
	r.t.Cleanup(func() { _ = c.Close() })
	return c
}

// settled waits until a capture towards the internet has all earlier packets.
func (r *router) settled(outside *netlab.Capture) {
	r.t.Helper()
	r.must(outside.Settle(r.ctx, r.Lab.CGN, r.remote))
}

// leaksNothing checks that no packet with alice's address left. It does not look at what came
// in: the kernel translates fragments in the buffers that the capture shares.
func (r *router) leaksNothing(outside *netlab.Capture) {
	r.t.Helper()
	r.settled(outside)
	if seen := outside.Matching(func(p netlab.Packet) bool { return p.Outgoing && p.Mentions(alice) }); len(seen) > 0 {
		r.t.Errorf("%d packets have alice's inside address, the first is %+v", len(seen), seen[0])
	}
	if lost, err := outside.Dropped(); lost != 0 || err != nil {
		r.t.Errorf("the capture lost %d packets: %v", lost, err)
	}
}

// tuples finds source, destination and destination port, or id, of both tuples of a conntrack
// entry.
var tuples = regexp.MustCompile(`src=(\S+) dst=(\S+) .*?(?:dport|id)=(\d+).* src=\S+ dst=(\S+) .*?(?:dport|id)=(\d+)`)

// audited checks that each of alice's conntrack entries is in her block, and that a reconcile
// finds no session elsewhere (NAT-40). It returns the number of entries.
func (r *router) audited() (count int) {
	r.t.Helper()
	entries, err := r.Lab.CGN.Conntrack(r.ctx, alice)
	r.must(err)
	for _, e := range entries {
		if strings.Contains(e, "src="+netlab.InsideGateway.Addr().String()+" ") {
			continue // of the CGN itself
		}
		count++
		m := tuples.FindStringSubmatch(e)
		if m == nil {
			r.t.Fatalf("cannot read %q", e)
		}
		outside := m[4] + ":" + m[5]
		if m[1] != alice.String() { // that others began
			outside = m[2] + ":" + m[3]
		}
		if seen, err := netip.ParseAddrPort(outside); err != nil || !r.alice.Covers(seen) {
			r.t.Errorf("outside of the block %d-%d: %s", r.alice.FirstPort, r.alice.LastPort, e)
		}
	}
	out, err := r.Daemon.Ctl(r.ctx, "-o", "json", "reconcile")
	r.must(err)
	if strings.Contains(out, "session_") {
		r.t.Errorf("the audit complains: %s", out)
	}
	return count
}

// drops returns the number of packets dropped for a reason.
func (r *router) drops(reason string) (packets int) {
	r.t.Helper()
	out, err := r.Daemon.Ctl(r.ctx, "-o", "json", "drops")
	r.must(err)
	for line := range strings.Lines(out) {
		var drop struct {
			Reason  string      `json:"reason"`
			Packets json.Number `json:"packets"`
		}
		r.must(json.Unmarshal([]byte(line), &drop))
		if drop.Reason == reason {
			n, err := drop.Packets.Int64()
			r.must(err)
			packets += int(n)
		}
	}
	return packets
}
