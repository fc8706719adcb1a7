package system

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/rig"
)

// TestTimeoutsOfAGroup_NAT05_NAT18: a reload gives a group timeouts of its own, and by port; they
// hold against a changed live setting, and after a kill, for sessions that begin then. Live
// settings that the group has not go on applying to it. `sessionctl session list` shows them.
func TestTimeoutsOfAGroup_NAT05_NAT18(t *testing.T) {
	w := start(t, rig.Options{})
	w.online(sessionOf(alice, "a-1"))
	plain, err := w.Lab.StartEcho(netip.AddrPortFrom(w.Lab.Remotes[0], 7100))
	w.must(err)
	dns, err := w.Lab.StartEcho(netip.AddrPortFrom(w.Lab.Remotes[0], 7053))
	w.must(err)
	port := uint16(6000)
	lives := func(to netip.AddrPort, want time.Duration) netip.AddrPort {
		t.Helper()
		port++
		from := netip.AddrPortFrom(alice, port)
		_, err := w.Lab.Subscriber.AskUDP(w.ctx, from, to)
		w.must(err)
		w.livesFor(from, want)
		return from
	}
	const group = "  - {name: default, inside: [100.64.0.0/10], outside: [198.51.100.0/28], hold: 2s"
	older := lives(plain.Addr(), 300*time.Second)

	w.reload(group+", idle_timeouts: {udp: 600s}, port_timeouts: [{protocol: udp, port: 7053, timeout: 20s}]}\n", true)
	w.livesFor(older, 300*time.Second)
	lives(plain.Addr(), 600*time.Second)
	lives(dns.Addr(), 20*time.Second)

	w.ctl("settings", "set", "idle_timeouts.udp=900s", "idle_timeouts.tcp_established=8000s", "idle_timeouts.tcp_partial_close=400s")
	lives(plain.Addr(), 600*time.Second)
	f := w.flow(alice)
	w.livesFor(netip.AddrPort{}, 8000*time.Second)
	w.must(f.Close())
	w.livesFor(netip.AddrPort{}, 400*time.Second)

	w.must(w.Daemon.Kill())
	w.must(w.Daemon.Start(w.ctx))
	lives(plain.Addr(), 600*time.Second)
	lives(dns.Addr(), 20*time.Second)

	w.reload(group+", idle_timeouts: {udp: 0s}}\n", false)
	lives(plain.Addr(), 600*time.Second)
	w.reload(group+"}\n", true)
	lives(plain.Addr(), 900*time.Second)
	lives(dns.Addr(), 900*time.Second)
}

// livesFor checks the expiry of alice's session from a port, or of her one of TCP, as sessionctl
// shows it.
func (w *world) livesFor(from netip.AddrPort, want time.Duration) {
	w.t.Helper()
	w.must(w.Until(w.ctx, fmt.Sprintf("the session of %v to live for %v", from, want), func() (bool, error) {
		out, err := w.Daemon.Ctl(w.ctx, "-o", "json", "session", "list", "--inside", alice.String())
		if err != nil {
			return false, err
		}
		for line := range strings.Lines(out) {
			var s struct {
				InsidePort uint16 `json:"inside_port"`
				Protocol   string `json:"protocol"`
				ExpiresIn  string `json:"expires_in"`
			}
			left, err := time.Duration(0), json.Unmarshal([]byte(line), &s)
			if err == nil {
				left, err = time.ParseDuration(s.ExpiresIn)
			}
			if err != nil {
				return false, errors.Join(err, errors.New(line))
			}
			if from.IsValid() && s.InsidePort == from.Port() || !from.IsValid() && strings.HasSuffix(s.Protocol, "TCP") {
				return left <= want && left > want-10*time.Second, nil
			}
		}
		return false, nil
	}))
}
