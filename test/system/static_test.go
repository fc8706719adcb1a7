package system

import (
	"context"
	"encoding/json"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/rig"
)

// staticMapping is a mapping as sessionctl shows it.
type staticMapping struct {
	OutsideAddress string `json:"outside_address"`
	OutsidePort    uint16 `json:"outside_port"`
	PresentAddress string `json:"present_address"`
	InForce        bool   `json:"in_force"`
}

func (w *world) readMapping(line string) (m staticMapping) {
	w.t.Helper()
	w.must(json.Unmarshal([]byte(line), &m))
	return m
}

func (m staticMapping) outside() netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(m.OutsideAddress), m.OutsidePort)
}

// TestStaticMappings_NAT02_DEL02_I6_I7 goes through the whole program: a host outside reaches a
// subscriber by UDP and TCP at ports that sessionctl gave it, without a packet of the subscriber
// before; nobody does the moment the record is deleted. The ports are the same after a reconnect
// with another inside address, after kill -9, and after Redis was emptied; a deletion ends their
// sessions.
func TestStaticMappings_NAT02_DEL02_I6_I7(t *testing.T) {
	w := start(t, rig.Options{PortRange: "1024-59999"})
	group := "  - {name: default, inside: [100.64.0.0/10], outside: [198.51.100.0/28], port_range: 1024-59999, hold: 2s, "
	w.reload(group+"static_ports: 50000-60999}\n", false)
	w.reload(group+"static_ports: 60000-60999}\n", true)
	first := sessionOf(alice, "a-1")
	b := w.online(first)
	game := w.readMapping(w.ctl("mapping", "create", ":5000", "--owner", first.User, "--protocol", "udp", "-o", "json"))
	web := w.readMapping(w.ctl("mapping", "create", ":8080", "--owner", first.User, "--protocol", "tcp", "-o", "json"))
	if game.OutsideAddress != b.OutsideAddress || game.OutsidePort < 60000 || !game.InForce || !web.InForce {
		t.Fatalf("made %+v and %+v, want ports of %v in force", game, web, b.OutsideAddress)
	}
	if out := w.ctl("binding", "lookup", game.outside().String()); !strings.Contains(out, first.User) {
		t.Errorf("a lookup of the port finds %s", out)
	}
	w.shows(`sessiond_mappings{group="default",kind="static"}`, "2")

	var host *net.UDPConn
	strangers := uint16(7300)
	reached := func(at *net.UDPConn, within time.Duration) bool {
		strangers++
		host = w.socket(w.Lab.Internet, netip.AddrPortFrom(w.Lab.Remotes[1], strangers))
		_, ok := w.arrives(host, game.outside(), at, within)
		return ok
	}
	const soon, silence = 5 * time.Second, 700 * time.Millisecond
	served := func(inside netip.Addr, when string) {
		t.Helper()
		echo, err := w.Lab.Subscriber.StartEcho(netip.AddrPortFrom(inside, 8080))
		w.must(err)
		defer echo.Close()
		strangers++
		client := netip.AddrPortFrom(w.Lab.Remotes[0], strangers)
		ctx, cancel := context.WithTimeout(w.ctx, soon)
		defer cancel()
		if seen, err := w.Lab.Internet.AskTCP(ctx, client, web.outside()); err != nil || seen != client {
			t.Errorf("%s, the server sees its client as %v, %v; want %v", when, seen, err, client)
		}
	}
	subscriber := w.socket(w.Lab.Subscriber, netip.AddrPortFrom(alice, 5000))
	if !reached(subscriber, soon) {
		t.Error("no host reaches the mapped UDP port")
	}
	served(alice, "at first")
	if seen, ok := w.arrives(subscriber, host.LocalAddr().(*net.UDPAddr).AddrPort(), host, soon); !ok || seen != game.outside() {
		t.Errorf("the answer comes from %v, %t", seen, ok)
	}

	w.must(w.Offline(w.ctx, first))
	w.gone(alice)
	if reached(subscriber, silence) {
		t.Error("a host reaches the subscriber after its record")
	}
	w.must(w.Daemon.Kill())
	w.must(w.Daemon.Start(w.ctx))
	second := sessionOf(bob, "a-2")
	second.User = first.User
	w.online(second)
	moved := w.socket(w.Lab.Subscriber, netip.AddrPortFrom(bob, 5000))
	if !reached(moved, soon) {
		t.Error("no host reaches the mapped port after a kill and a reconnect with another address")
	}
	served(bob, "after the reconnect")

	w.must(w.Daemon.Kill())
	if !reached(moved, soon) {
		t.Error("no host reaches the mapped port while no daemon runs")
	}
	w.must(w.Daemon.Start(w.ctx))
	if !reached(moved, soon) {
		t.Error("no host reaches the mapped port after a kill")
	}
	if out := w.ctl("-o", "json", "reconcile", "--dry-run"); out != "" {
		t.Errorf("there is drift:\n%s", out)
	}

	w.redis("flushall")
	w.soon(20*time.Second, func(ctx context.Context) error {
		return w.Until(ctx, "the mappings to be stored again", func() (bool, error) {
			return strings.TrimSpace(w.redis("hlen", "sessiond:{default}:mappings")) == "2", nil
		})
	})
	w.must(w.Daemon.Kill())
	w.must(w.Daemon.Start(w.ctx))
	if !reached(moved, soon) {
		t.Error("no host reaches the mapped port after Redis was emptied")
	}
	served(bob, "after Redis was emptied")

	if out := w.ctl("mapping", "delete", game.outside().String(), "--protocol", "udp", "--yes", "-o", "json"); strings.Contains(out, `"sessions_ended":0`) {
		t.Errorf("the deletion ended no session: %s", out)
	}
	if _, ok := w.arrives(host, game.outside(), moved, silence); ok {
		t.Error("a session of a deleted mapping goes on")
	}
	if reached(moved, silence) {
		t.Error("a host reaches a deleted mapping")
	}
	served(bob, "beside a deleted mapping")
	if listed, err := w.Lab.CGN.Output(w.ctx, "conntrack", "-L", "-p", "udp"); err != nil || strings.Contains(string(listed), "dport="+game.outside().String()[strings.IndexByte(game.outside().String(), ':')+1:]+" ") {
		t.Errorf("conntrack has entries of the deleted mapping: %s, %v", listed, err)
	}
	w.must(w.Offline(w.ctx, second))
	w.gone(bob)
	w.ctl("reconcile")
}
