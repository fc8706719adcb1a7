package system

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/rig"
)

// limited reloads with other limits of the only group.
func (w *world) limited(limits string) {
	w.t.Helper()
	w.reload("  - {name: default, inside: [100.64.0.0/10], outside: [198.51.100.0/28], hold: 2s, limits: {"+limits+"}}\n", true)
}

// ask sends datagrams of new flows, and returns the number of those that were answered.
func (w *world) ask(from netip.Addr, echo netip.AddrPort, first uint16, n int) (answered int) {
	for port := range uint16(n) {
		ctx, cancel := context.WithTimeout(w.ctx, 700*time.Millisecond)
		if _, err := w.Lab.Subscriber.AskUDP(ctx, netip.AddrPortFrom(from, first+port), echo); err == nil {
			answered++
		}
		cancel()
	}
	return answered
}

// TestLimitsOfAGroup_NAT28_NAT32_NAT33 goes through the whole program: a reload gives a group
// limits; at them nothing new begins, and what stands goes on; watchers, metrics and the log are
// told once; a kill and a restart change nothing; and the removal leaves no element.
func TestLimitsOfAGroup_NAT28_NAT32_NAT33(t *testing.T) {
	w := start(t, rig.Options{})
	w.online(sessionOf(alice, "a-1"))
	w.online(sessionOf(bob, "b-1"))
	echo, err := w.Lab.StartEcho(netip.AddrPortFrom(w.Lab.Remotes[0], 7100))
	w.must(err)
	standing := w.flow(alice)
	const series = `sessiond_limit_reached_total{group="default",limit="sessions"}`
	w.shows(series, "0")
	w.limited("sessions: 5")
	if got := w.ask(alice, echo.Addr(), 5000, 4); got != 4 {
		t.Errorf("%d of 4 sessions began below the limit", got)
	}
	w.must(w.Until(w.ctx, "the limit to be programmed", func() (bool, error) {
		set, err := w.Lab.CGN.Output(w.ctx, "nft", "list", "set", "ip", "sessiond", "limit_sessions")
		return strings.Contains(string(set), alice.String()), err
	}))
	if got := w.ask(alice, echo.Addr(), 6000, 3); got != 0 {
		t.Errorf("%d sessions began at the limit", got)
	}
	w.shows(series, "1")
	if log := w.Daemon.Log(); strings.Count(log, "is refused new sessions at a limit") != 1 || !strings.Contains(log, `"inside":"`+alice.String()+`","limit":"sessions"`) {
		t.Error("the log does not say once that alice is at the limit")
	}
	if got := w.ask(bob, echo.Addr(), 5000, 3); got != 3 {
		t.Errorf("%d of 3 sessions of another began", got)
	}
	w.passes(standing, "alice, at the limit")

	w.must(w.Daemon.Kill())
	w.must(w.Daemon.Start(w.ctx))
	if got := w.ask(alice, echo.Addr(), 6100, 2); got != 0 {
		t.Errorf("%d sessions began at the limit after a kill", got)
	}
	w.passes(standing, "alice, at the limit after a kill")
	w.limited("sessions: 8")
	if got := w.ask(alice, echo.Addr(), 6200, 3); got != 3 {
		t.Errorf("%d of 3 sessions began under a higher limit", got)
	}
	w.must(w.Offline(w.ctx, sessionOf(alice, "a-1")))
	w.gone(alice)
	table, err := w.Lab.CGN.Output(w.ctx, "nft", "list", "table", "ip", "sessiond")
	w.must(err)
	if strings.Contains(string(table), alice.String()) {
		t.Errorf("the table names alice: %s", table)
	}
	w.ctl("reconcile")
}
