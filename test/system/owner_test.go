package system

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/ownership"
	"github.com/sessiond/sessiond/internal/rig"
)

// neighbour makes a second daemon, its configuration changed by old and new texts.
func (w *world) neighbour(replace ...string) *rig.Daemon {
	w.t.Helper()
	d, err := w.Neighbour(strings.NewReplacer(replace...).Replace)
	w.must(err)
	w.t.Cleanup(func() {
		if w.t.Failed() {
			w.t.Logf("the neighbour printed:\n%s", tail(d.Log(), 12_000))
		}
	})
	return d
}

// elsewhere makes a second daemon for the same group in another namespace, as on another
// node.
func (w *world) elsewhere() (*rig.Daemon, *netlab.Lab) {
	w.t.Helper()
	lab := w.lab()
	return w.neighbour("node: rig", "node: other", w.Lab.CGN.Name(), lab.CGN.Name()), lab
}

// lab makes one more lab.
func (w *world) lab() *netlab.Lab {
	w.t.Helper()
	lab, err := netlab.New(netlab.Options{Subscribers: []netip.Addr{alice, bob}})
	w.must(err)
	w.t.Cleanup(func() {
		if err := lab.Close(); err != nil {
			w.t.Error(err)
		}
	})
	return lab
}

// refused checks that the daemon ends by itself, with the reasons in its log.
func (w *world) refused(d *rig.Daemon, says ...string) {
	w.t.Helper()
	code, err := d.Refuse(w.ctx)
	w.must(err)
	for _, text := range says {
		if !strings.Contains(d.Log(), text) {
			w.t.Errorf("refused without saying %q", text)
		}
	}
	if code != 1 {
		w.t.Errorf("exit code %d, want 1", code)
	}
	if w.t.Failed() {
		w.t.Fatalf("it printed:\n%s", d.Log())
	}
}

func ruleset(w *world, n *netlab.Namespace) string {
	w.t.Helper()
	out, err := n.Output(w.ctx, "nft", "-a", "list", "ruleset")
	w.must(err)
	routes, err := n.Output(w.ctx, "ip", "route", "show", "type", "blackhole")
	w.must(err)
	barrier, err := n.Output(w.ctx, "tc", "filter", "show", "dev", netlab.OutsideInterface, "egress")
	w.must(err)
	return string(out) + string(routes) + string(barrier)
}

// sysctls lists the settings of IPv4 and of conntrack that belong to a namespace. Files
// that it cannot write there belong to the machine, or are counters.
func sysctls(w *world, n *netlab.Namespace) string {
	w.t.Helper()
	var all strings.Builder
	list := func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil || info.Mode()&0o600 != 0o600 {
			return err
		}
		value, err := os.ReadFile(path)
		fmt.Fprintf(&all, "%s %s %v\n", path, bytes.TrimSpace(value), err)
		return nil
	}
	w.must(n.Do(func() error {
		return errors.Join(filepath.WalkDir("/proc/sys/net/ipv4", list), filepath.WalkDir("/proc/sys/net/netfilter", list))
	}))
	return all.String()
}

// database lists the keys of Redis and their values, except the leases and probes, which
// show the daemon that serves, or could write, now: they expire within 10 s, and a start
// needs them before it can be refused for another reason. TTLs are left out.
func database(w *world) string {
	w.t.Helper()
	const list = `
		local held = {}
		for _, key in ipairs(redis.call('KEYS', '*')) do
			if not key:find(':owner$') and not key:find(':probe:') then
				held[#held + 1] = key .. ' ' .. redis.call('TYPE', key).ok .. ' ' .. redis.sha1hex(redis.call('DUMP', key))
			end
		end
		table.sort(held)
		return table.concat(held, '\n')`
	return w.redis("EVAL", list, "0")
}

// everything returns all state that a refused start must leave unchanged.
func everything(w *world) string {
	w.t.Helper()
	return ruleset(w, w.Lab.CGN) + sysctls(w, w.Lab.CGN) + database(w)
}

// differing returns the lines that are in one of two texts more often than in the other.
func differing(before, after string) string {
	count := map[string]int{}
	for line := range strings.Lines(before) {
		count["- "+line]++
	}
	for line := range strings.Lines(after) {
		if count["- "+line] > 0 {
			count["- "+line]--
		} else {
			count["+ "+line]++
		}
	}
	var lines []string
	for line, n := range count {
		lines = append(lines, strings.Repeat(line, n))
	}
	return strings.Join(lines, "")
}

// TestSecondDaemonOnTheTable_I7_I8: a second daemon on the same table, with another
// configuration and another Redis database, refuses to start and changes nothing; as soon
// as the first is killed a start succeeds.
func TestSecondDaemonOnTheTable_I7_I8(t *testing.T) {
	w := start(t, rig.Options{})
	w.online(sessionOf(alice, "a-1"))
	f := w.flow(alice)
	w.must(w.Daemon.Pause()) // any change from now on is by another
	before := everything(w)
	other := []string{"100.64.0.0/10", "100.64.0.0/11", "198.51.100.0/28", "192.0.2.0/28", "udp: 300s", "udp: 200s", "icmp: 60s", "icmp: 90s"}
	for _, replace := range [][]string{other, append(other, `redis.sock"`, `redis.sock?db=1"`)} {
		second := w.neighbour(replace...)
		w.refused(second, "table ip sessiond is programmed by another sessiond already, process ", "nat.netns")
		if after := everything(w); after != before {
			t.Errorf("the second daemon has changed:\n%s", differing(before, after))
		}
	}
	w.must(w.Daemon.Resume())
	if keys := w.redis("-n", "1", "KEYS", "*"); keys != "" {
		t.Errorf("the second daemon has written into its Redis: %s", keys)
	}
	w.passes(f, "alice")
	if strings.Contains(w.Daemon.Log(), "changed by others") {
		t.Error("the first daemon had to put the table right")
	}

	lab := w.lab()
	beside := w.neighbour(w.Lab.CGN.Name(), lab.CGN.Name(), "name: default", "name: another")
	w.must(beside.Start(w.ctx)) // a namespace and a group of its own
	w.passes(f, "alice, beside another daemon")
	code, err := beside.Stop()
	if w.must(err); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestFailedStartTouchesNothing_I8: a start with another configuration fails because one of
// its addresses is in use. It leaves table, routes, barrier, kernel settings and the
// database as the killed daemon had them.
func TestFailedStartTouchesNothing_I8(t *testing.T) {
	w := start(t, rig.Options{})
	w.online(sessionOf(alice, "a-1"))
	f := w.flow(alice)
	w.must(w.Daemon.Kill())
	before := everything(w)
	datagrams, err := net.ListenPacket("udp4", "127.0.0.1:0")
	w.must(err)
	defer datagrams.Close()
	stream, err := net.Listen("tcp4", "127.0.0.1:0")
	w.must(err)
	defer stream.Close()
	for service, replace := range map[string][]string{
		"radius": {`listen: ["127.0.0.1:0"]`, fmt.Sprintf("listen: [%q]", datagrams.LocalAddr())},
		"http":   {`http: {listen: "127.0.0.1:0"}`, fmt.Sprintf("http: {listen: %q}", stream.Addr())},
		"grpc":   {"grpc: {", fmt.Sprintf("grpc: {listen: %q} #", stream.Addr())},
	} {
		replace = append(replace, "udp: 300s", "udp: 200s", "icmp: 60s", "icmp: 90s", "removal: true", "removal: false", "inside: [100.64.0.0/10]", "inside: [100.64.0.0/10, 10.0.0.0/8]", "outside: [198.51.100.0/28]", "outside: [198.51.100.0/28, 192.0.2.0/28]")
		w.refused(w.neighbour(replace...), service, "address already in use")
		if after := everything(w); after != before {
			t.Errorf("a start that failed for %s has changed:\n%s", service, differing(before, after))
		}
	}
	w.passes(f, "alice")
}

// TestBarrierFirst_I3: the barrier exists before the first request to Redis and before
// there is a table, and stays when that start is ended.
func TestBarrierFirst_I3(t *testing.T) {
	w := start(t, rig.Options{Memory: true})
	lab := w.lab()
	nat := fmt.Sprintf("netns: %q", lab.CGN.Name())
	stands := func() bool {
		out, err := lab.CGN.Output(w.ctx, "tc", "filter", "show", "dev", netlab.OutsideInterface, "egress")
		return err == nil && strings.Contains(string(out), "pref 93 bpf")
	}
	redis, err := net.Listen("tcp4", "127.0.0.1:0")
	w.must(err)
	defer redis.Close()
	d := w.neighbour("backend: memory", nat, "redis: {", fmt.Sprintf("redis: {url: redis://%s} #", redis.Addr()))
	asked := make(chan bool, 1)
	go func() {
		if conn, err := redis.Accept(); err == nil {
			asked <- stands()
			_ = conn.Close()
		}
	}()
	w.must(d.Launch(w.ctx))
	if !<-asked {
		t.Error("there is no barrier when Redis is asked")
	}
	w.must(d.Kill())
	if !stands() {
		t.Error("the barrier went with the daemon")
	}
}

// TestBarrierAlone_I3: `sessiond --barrier` needs no Redis, makes no table, and names
// missing interfaces.
func TestBarrierAlone_I3(t *testing.T) {
	w := start(t, rig.Options{Memory: true})
	lab := w.lab()
	for outside, code := range map[string]int{netlab.OutsideInterface: 0, netlab.OutsideInterface + ", late0": 1} {
		d := w.neighbour("backend: memory", fmt.Sprintf("netns: %q", lab.CGN.Name()),
			"redis: {", `redis: {url: "redis://127.0.0.1:1"} #`, "outside_interfaces: ["+netlab.OutsideInterface, "outside_interfaces: ["+outside)
		d.Args = []string{"--barrier"}
		got, err := d.Refuse(w.ctx)
		w.must(err)
		if got != code {
			t.Errorf("exit code %d, want %d: %s", got, code, d.Log())
		}
		if late := strings.Contains(d.Log(), "late0: no such interface"); late != (code == 1) {
			t.Errorf("of %s it says: %s", outside, d.Log())
		}
	}
	if left := ruleset(w, lab.CGN); !strings.Contains(left, "pref 93 bpf") || strings.Contains(left, "table") || strings.Contains(left, "blackhole") {
		t.Errorf("it left:\n%s", left)
	}
	d := w.neighbour()
	d.Args = []string{"--barrier"}
	if code, err := d.Refuse(w.ctx); err != nil || code != 1 || !strings.Contains(d.Log(), "nat.backend is memory") {
		t.Errorf("without a kernel: exit code %d, %v: %s", code, err, d.Log())
	}
}

// TestKillAndRestartAtOnce_I7: a killed daemon's successor does not wait for its lease.
func TestKillAndRestartAtOnce_I7(t *testing.T) {
	for _, memory := range []bool{false, true} {
		t.Run(fmt.Sprint("memory=", memory), func(t *testing.T) {
			w := start(t, rig.Options{Memory: memory})
			for range 3 {
				w.must(w.Daemon.Kill())
				if left := w.redis("PTTL", "sessiond:{default}:owner"); left == "-2" {
					t.Fatal("the killed daemon has no lease")
				}
				w.soon(ownership.Lease*3/4, w.Daemon.Start)
			}
			_, err := w.Daemon.Stop()
			w.must(err)
			if w.redis("EXISTS", "sessiond:{default}:owner") != "0" {
				t.Error("a daemon that was told to stop kept its lease")
			}
		})
	}
}

// TestSecondDaemonOnTheGroup_I1_I7: a daemon in another namespace refuses to start while
// the first serves the group, and changes nothing there. Once the first is dead it takes
// over within the documented time, and then the first is refused.
func TestSecondDaemonOnTheGroup_I1_I7(t *testing.T) {
	w := start(t, rig.Options{})
	w.online(sessionOf(alice, "a-1"))
	f := w.flow(alice)
	second, lab := w.elsewhere()
	w.refused(second, `node \"rig\"`, "its lease in Redis lasts until", "group default")
	if left := ruleset(w, lab.CGN); strings.Contains(left, "sessiond") || strings.Contains(left, "blackhole") {
		t.Errorf("the refused daemon has left:\n%s", left)
	}
	w.passes(f, "alice")

	w.must(w.Daemon.Kill())
	w.soon(ownership.Lease+20*time.Second, second.Start)
	out, err := second.Ctl(w.ctx, "-o", "json", "binding", "list")
	if w.must(err); !strings.Contains(out, alice.String()) {
		t.Errorf("bindings of the heir: %s", out)
	}
	w.passes(f, "alice, through the kernel of the dead one")
	w.refused(w.Daemon, `node \"other\"`)
	w.passes(f, "alice, after the refusal")
}

// TestTakenOverAtRunTime_I1_I9: a daemon that was paused until another node took over
// changes nothing when it continues, reports this, and leaves its NAT in place.
func TestTakenOverAtRunTime_I1_I9(t *testing.T) {
	w := start(t, rig.Options{})
	w.online(sessionOf(alice, "a-1"))
	f := w.flow(alice)
	second, _ := w.elsewhere()
	w.must(w.Daemon.Pause())
	w.soon(ownership.Lease+20*time.Second, second.Start)
	w.must(w.Daemon.Resume())
	w.soon(20*time.Second, func(ctx context.Context) error {
		return w.Until(ctx, "the first to stand aside", func() (bool, error) {
			code, body, err := w.Daemon.Get(ctx, "/readyz")
			return code == 503 && strings.Contains(body, `node "other"`), err
		})
	})
	if owns, err := w.Daemon.Metric(w.ctx, `sessiond_nat_owner{group="default"}`); err != nil || owns != "0" {
		t.Errorf("sessiond_nat_owner of the first is %q, %v", owns, err)
	}
	if owns, err := second.Metric(w.ctx, `sessiond_nat_owner{group="default"}`); err != nil || owns != "1" {
		t.Errorf("sessiond_nat_owner of the second is %q, %v", owns, err)
	}
	before := ruleset(w, w.Lab.CGN)
	w.must(w.Offline(w.ctx, sessionOf(alice, "a-1"))) // to the first daemon: accounting goes on
	w.soon(10*time.Second, func(ctx context.Context) error {
		return w.Until(ctx, "the second to end alice", func() (bool, error) {
			out, err := second.Ctl(ctx, "-o", "json", "binding", "list", "--inside", alice.String())
			return !strings.Contains(out, "ACTIVE"), err
		})
	})
	w.passes(f, "alice, whom only the second has ended")
	if after := ruleset(w, w.Lab.CGN); after != before {
		t.Errorf("the first has changed its table:\n%s\nbefore:\n%s", after, before)
	}
	if code, err := w.Daemon.Stop(); err != nil || code != 0 {
		t.Errorf("exit code %d, %v", code, err)
	}
	if code, body, err := second.Get(w.ctx, "/readyz"); err != nil || code != 200 {
		t.Errorf("the second is not ready: %d %s %v", code, body, err)
	}
}

// TestEmptiedRedisKeepsTheOwner_I6: after FLUSHALL the owner stays the owner, and a second
// daemon is refused as before.
func TestEmptiedRedisKeepsTheOwner_I6(t *testing.T) {
	w := start(t, rig.Options{})
	w.online(sessionOf(alice, "a-1"))
	f := w.flow(alice)
	line := w.redis("GET", "sessiond:{default}:owner")
	w.redis("FLUSHALL")
	w.soon(15*time.Second, func(ctx context.Context) error {
		return w.Until(ctx, "lease and what is served to be back", func() (bool, error) {
			return w.redis("GET", "sessiond:{default}:owner") == line && w.redis("EXISTS", "sessiond:{default}:served", "sessiond:groups") == "2", nil
		})
	})
	second, _ := w.elsewhere()
	w.refused(second, `node \"rig\"`)
	w.passes(f, "alice")
}
