package system

import (
	"context"
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/rig"
)

// The groups of these tests: east is removed, or loses prefixes.
const (
	groupDefault = "  - {name: default, inside: [100.64.0.0/11], outside: [198.51.100.0/29], hold: 2s}\n"
	groupEast    = "  - {name: east, inside: [100.96.0.0/12, 100.112.0.0/12], outside: [198.51.100.16/32, 198.51.100.24/29], hold: 2s, block_size: 256}\n"
)

var eve, mallory = netip.MustParseAddr("100.96.0.1"), netip.MustParseAddr("100.112.0.1")

func withGroups(groups string) func(config string) string {
	return func(config string) string { return config[:strings.Index(config, "groups:")] + "groups:\n" + groups }
}

// drainsWorld has alice in default, eve and mallory in east, each in one of its inside and
// outside prefixes.
func drainsWorld(t *testing.T) *world {
	t.Helper()
	w := start(t, rig.Options{Lab: netlab.Options{
		Subscribers: []netip.Addr{alice, eve, mallory},
		Pool:        []netip.Prefix{netip.MustParsePrefix("198.51.100.0/27")},
	}})
	w.reload(groupDefault+groupEast, true)
	w.online(sessionOf(alice, "a-1"))
	e, m := w.online(sessionOf(eve, "e-1")), w.online(sessionOf(mallory, "m-1"))
	if e.OutsideAddress != "198.51.100.16" || m.OutsideAddress != "198.51.100.24" {
		t.Fatalf("eve has %s, mallory %s: want one in each prefix", e.OutsideAddress, m.OutsideAddress)
	}
	return w
}

// draining lists the outside prefixes that drain, from `sessionctl pool list`.
func (w *world) draining() string {
	w.t.Helper()
	var list []string
	for line := range strings.Lines(w.ctl("-o", "json", "pool", "list")) {
		var p struct {
			Group         string
			OutsidePrefix string `json:"outside_prefix"`
			Draining      bool
		}
		w.must(json.Unmarshal([]byte(line), &p))
		if p.Draining {
			list = append(list, p.Group+" "+p.OutsidePrefix)
		}
	}
	return strings.Join(list, ", ")
}

func (w *world) awaitDraining(want string) {
	w.t.Helper()
	w.soon(15*time.Second, func(ctx context.Context) error {
		return w.Until(ctx, "the draining pools to be "+want, func() (bool, error) { return w.draining() == want, nil })
	})
}

// TestDrainedGroupSurvivesRestart_I7: a group that a reload removed is served until it is
// empty, across kill -9 and restarts, and then forgotten.
func TestDrainedGroupSurvivesRestart_I7(t *testing.T) {
	w := drainsWorld(t)
	fa, fe, fm := w.flow(alice), w.flow(eve), w.flow(mallory)
	w.reload(groupDefault, true)
	for range 2 {
		w.must(w.Daemon.Kill())
		w.must(w.Daemon.Start(w.ctx))
		w.passes(fa, "alice")
		w.passes(fe, "eve, whose group drains")
		w.passes(fm, "mallory, whose group drains")
		if got := w.draining(); got != "east 198.51.100.16/32, east 198.51.100.24/29" {
			t.Fatalf("draining: %q", got)
		}
	}
	w.flow(eve) // she keeps her block, for new flows too
	if table := w.ctl("pool", "list"); !strings.Contains(table, "DRAINING") || !strings.Contains(table, "yes") {
		t.Errorf("pool list:\n%s", table)
	}
	w.must(w.Offline(w.ctx, sessionOf(eve, "e-1")))
	w.gone(eve)
	w.awaitDraining("east 198.51.100.24/29")
	w.must(w.Daemon.Kill())
	w.must(w.Daemon.Start(w.ctx))
	w.passes(fm, "mallory, once more")
	if _, err := w.Redis.CLI(w.ctx, "DEL", "sessiond:{east}:sub:"+mallory.String()); err != nil {
		t.Fatal(err)
	}
	w.gone(mallory)
	w.awaitDraining("")
	w.soon(10*time.Second, func(ctx context.Context) error {
		return w.Until(ctx, "the group to be forgotten", func() (bool, error) {
			return w.redis("EXISTS", "sessiond:{east}:served", "sessiond:{east}:owner") == "0", nil
		})
	})
	if groups := w.redis("SMEMBERS", "sessiond:groups"); groups != "default" {
		t.Errorf("groups in Redis: %q", groups)
	}
	w.reload(groupDefault+strings.ReplaceAll(groupEast, "east", "west"), true)
	w.online(sessionOf(eve, "e-2"))
}

// TestDrainedGroupKeepsLimits_NAT05_NAT28_I7: the subscribers of a group that was taken out keep
// its limits and idle timeouts, after a reload and after restarts.
func TestDrainedGroupKeepsLimits_NAT05_NAT28_I7(t *testing.T) {
	w := drainsWorld(t)
	bound := strings.Replace(groupEast, "block_size", "limits: {sessions: 5}, idle_timeouts: {udp: 7m}, block_size", 1)
	w.reload(groupDefault+bound, true)
	echo, err := w.Lab.StartEcho(netip.AddrPortFrom(w.Lab.Remotes[0], 7100))
	w.must(err)
	if got := w.ask(eve, echo.Addr(), 5000, 5); got != 5 {
		t.Fatalf("%d of 5 sessions began", got)
	}
	w.reload(groupDefault, true)
	stays := func(when string, first uint16) {
		t.Helper()
		w.must(w.Until(w.ctx, when+" the limit to be programmed", func() (bool, error) {
			set, err := w.Lab.CGN.Output(w.ctx, "nft", "list", "set", "ip", "sessiond", "limit_sessions")
			return strings.Contains(string(set), eve.String()), err
		}))
		if got := w.ask(eve, echo.Addr(), first, 2); got != 0 {
			t.Errorf("%s %d sessions begin at the limit", when, got)
		}
		table, err := w.Lab.CGN.Output(w.ctx, "nft", "list", "table", "ip", "sessiond")
		w.must(err)
		if !strings.Contains(string(table), "420") && !strings.Contains(string(table), "7m") { // in its policy
			t.Errorf("%s the table has no timeout of 7m", when)
		}
	}
	stays("after a reload", 6000)
	for first := uint16(6100); first < 6300; first += 100 {
		w.must(w.Daemon.Kill())
		w.must(w.Daemon.Start(w.ctx))
		stays("after a kill", first)
	}
	w.killSessions(eve)
	w.must(w.Until(w.ctx, "the limit to be over", func() (bool, error) {
		return w.ask(eve, echo.Addr(), 6400, 1) == 1, nil
	}))
}

// TestDrainsWithoutReload_I7_I9: a group or prefix that is removed from the configuration
// while sessiond is down drains too, also without Redis at the start. Put back, it serves
// all subscribers again.
func TestDrainsWithoutReload_I7_I9(t *testing.T) {
	for _, c := range []struct{ name, groups, draining string }{
		{"group", groupDefault, "east 198.51.100.16/32, east 198.51.100.24/29"},
		{"prefixes", groupDefault + "  - {name: east, inside: [100.112.0.0/12], outside: [198.51.100.24/29], hold: 2s, block_size: 256}\n", "east 198.51.100.16/32"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := drainsWorld(t)
			fe, fm := w.flow(eve), w.flow(mallory)
			w.must(w.Daemon.Kill())
			w.must(w.Daemon.Edit(withGroups(c.groups)))
			w.must(w.Redis.Kill())
			w.must(w.Daemon.Launch(w.ctx))
			w.soon(20*time.Second, func(ctx context.Context) error {
				return w.Until(ctx, "the table to be looked at", func() (bool, error) {
					code, _, err := w.Daemon.Get(ctx, "/readyz")
					return code == 503, err
				})
			})
			w.passes(fe, "eve, Redis away")
			w.passes(fm, "mallory, Redis away")
			w.flow(eve)
			w.must(w.Redis.Start(w.ctx))
			w.must(w.Daemon.AwaitReady(w.ctx))
			w.passes(fe, "eve, her prefix drains")
			w.passes(fm, "mallory")
			if got := w.draining(); got != c.draining {
				t.Errorf("draining: %q, want %q", got, c.draining)
			}
			w.must(w.Offline(w.ctx, sessionOf(mallory, "m-1")))
			w.gone(mallory)
			w.reload(groupDefault+groupEast, true)
			w.awaitDraining("")
			w.passes(fe, "eve, her prefix put back")
			w.online(sessionOf(mallory, "m-2"))
			w.must(w.Offline(w.ctx, sessionOf(eve, "e-1")))
			w.gone(eve)
		})
	}
}

// TestDrainOfUpgrade: bindings of an earlier version, which did not store the served
// configuration, drain as well.
func TestDrainOfUpgrade(t *testing.T) {
	w := drainsWorld(t)
	fe := w.flow(eve)
	w.must(w.Daemon.Kill())
	w.redis("DEL", "sessiond:{east}:served", "sessiond:groups")
	w.must(w.Daemon.Edit(withGroups(groupDefault + "  - {name: east, inside: [100.112.0.0/12], outside: [198.51.100.24/29], hold: 2s, block_size: 256}\n")))
	w.must(w.Daemon.Start(w.ctx))
	w.passes(fe, "eve")
	if got := w.draining(); got != "east 198.51.100.16/32" {
		t.Errorf("draining: %q", got)
	}
	w.must(w.Offline(w.ctx, sessionOf(eve, "e-1")))
	w.gone(eve)
	w.awaitDraining("")
}

// TestDrainGivenAway_I1_I9: a start is refused if the configuration gives blocks in use to
// another group, or divides them differently; NAT goes on. An explicit option ends the
// bindings.
func TestDrainGivenAway_I1_I9(t *testing.T) {
	w := drainsWorld(t)
	fa, fe := w.flow(alice), w.flow(eve)
	w.must(w.Daemon.Kill())
	for name, c := range map[string]struct{ groups, says string }{
		"inside":     {groupDefault + "  - {name: west, inside: [100.96.0.0/12], outside: [198.51.100.8/29], hold: 2s}\n", "group west: inside address 100.96.0.1: in use"},
		"outside":    {groupDefault + "  - {name: west, inside: [100.80.0.0/16], outside: [198.51.100.16/32], hold: 2s}\n", "group west: outside address 198.51.100.16: in use"},
		"block size": {groupDefault + strings.Replace(groupEast, "block_size: 256", "block_size: 512", 1), "block_size cannot change now"},
	} {
		groups := strings.Replace(c.groups, "[100.64.0.0/11]", "[100.64.0.0/12]", 1)
		w.must(w.Daemon.Edit(withGroups(groups)))
		code, err := w.Daemon.Refuse(w.ctx)
		w.must(err)
		if log := w.Daemon.Log(); code != 1 || !strings.Contains(log, c.says) || !strings.Contains(log, "--discard-unconfigured") {
			t.Errorf("%s: exit code %d, want a refusal that says %q:\n%s", name, code, c.says, log)
		}
		w.passes(fe, "eve, after the refusal for "+name)
	}
	w.must(w.Daemon.Edit(withGroups(groupDefault + "  - {name: west, inside: [100.96.0.0/12], outside: [198.51.100.8/29], hold: 2s}\n")))
	w.Daemon.Args = []string{"--discard-unconfigured"}
	w.must(w.Daemon.Start(w.ctx))
	w.dead(fe, "eve, discarded")
	w.passes(fa, "alice")
	if groups := w.redis("SMEMBERS", "sessiond:groups"); strings.Contains(groups, "east") {
		t.Errorf("groups in Redis: %q", groups)
	}
	w.online(sessionOf(eve, "e-2"))
}
