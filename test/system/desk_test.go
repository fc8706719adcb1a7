package system

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"layeh.com/radius/rfc2866"

	"github.com/sessiond/sessiond/internal/radiusacct/acctclient"
	"github.com/sessiond/sessiond/internal/rig"
)

// TestCustomerOnTheLine goes through the whole program: explain tells of a customer at a limit, of
// the drop of its packets, and after the Stop of its cause; history has the end with its proof, also
// after a restart of the daemon; top finds the busiest by the kernel's sessions.
func TestCustomerOnTheLine(t *testing.T) {
	w := start(t, rig.Options{Hold: time.Minute})
	w.online(sessionOf(alice, "a-1"))
	w.online(sessionOf(bob, "b-1"))
	echo, err := w.Lab.StartEcho(netip.AddrPortFrom(w.Lab.Remotes[0], 7300))
	w.must(err)
	says := func(what string, words []string, args ...string) {
		t.Helper()
		var out string
		w.must(w.Until(w.ctx, what, func() (bool, error) {
			out = w.ctl(args...)
			for _, word := range words {
				if !strings.Contains(out, word) {
					return false, nil
				}
			}
			return true, nil
		}))
	}
	w.reload("  - {name: default, inside: [100.64.0.0/10], outside: [198.51.100.0/28], hold: 60s, limits: {sessions: 3}}\n", true)
	w.must(w.Until(w.ctx, "the limit to be programmed", func() (bool, error) {
		set, err := w.Lab.CGN.Output(w.ctx, "nft", "list", "set", "ip", "sessiond", "limit_sessions")
		return strings.Contains(string(set), alice.String()), err
	}))
	w.ask(alice, echo.Addr(), 5000, 5)
	w.ask(bob, echo.Addr(), 5000, 1)
	says("alice to be explained at her limit", []string{
		"It is at the limit sessions (3)", "over_limit", "0 TCP, 3 UDP, 0 ICMP, 0 other", "Online since", rig.NAS,
	}, "explain", alice.String())
	says("alice to be the busiest", []string{"SESSIONS", "\n3         default  " + alice.String(), "\n1         default  " + bob.String()}, "top")
	w.must(w.Send(w.ctx, acctclient.Request{
		Status: rfc2866.AcctStatusType_Value_Stop, SessionID: "a-1", UserName: sessionOf(alice, "a-1").User, FramedAddress: alice, NASIdentifier: rig.NAS, EventTime: time.Now(),
		TerminateCause: rfc2866.AcctTerminateCause_Value_IdleTimeout,
	}))
	removed := []string{"STOP (Idle-Timeout)", "3 sessions removed, by ", alice.String()}
	says("the end to be told", append(removed, rig.NAS), "subscriber", "history", alice.String())
	says("alice to be explained offline", append(removed, "Nobody is online", "no_gate"), "explain", alice.String())
	code, err := w.Daemon.Stop()
	if w.must(err); code != 0 {
		t.Errorf("stopped with %d", code)
	}
	w.must(w.Daemon.Start(w.ctx))
	says("the end to be told after a restart", removed, "subscriber", "history", "--reason", "stop", "--from", "-1h")
}
