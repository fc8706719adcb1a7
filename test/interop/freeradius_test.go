package interop

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/rig"
	"github.com/sessiond/sessiond/internal/testenv"
)

// proxySecret is shared by NASes and the proxy in front of sessiond.
const proxySecret = "between-nas-and-proxy"

// freeradius describes one FreeRADIUS process, for testdata/radiusd.conf.
type freeradius struct {
	Dir, Host         string         // directory of its files, and its address
	Server            netip.AddrPort // sessiond
	Secret, NASSecret string         // shared with sessiond, and with NASes

	Port    uint16 // port for the NASes' accounting; 0 for none
	Spool   string // directory of the detail file
	Write   bool   // the NASes' requests go to the detail file, not to sessiond
	Relay   bool   // the requests in the detail file go to sessiond
	Checked bool   // it sends Status-Server when sessiond does not answer
}

// freeradius starts a FreeRADIUS of the test's own in front of sessiond.
func (w *world) freeradius(f freeradius) *rig.Program {
	w.t.Helper()
	f.Dir = w.t.TempDir()
	f.Host, f.Server = w.host.String(), w.server
	f.Secret, f.NASSecret = rig.Secret, proxySecret
	w.generate("testdata/radiusd.conf", filepath.Join(f.Dir, "radiusd.conf"), f)
	return w.program("Ready to process requests", "freeradius", "-f", "-l", "stdout", "-d", f.Dir, "-n", "radiusd")
}

// viaProxy sends accounting requests to a proxy, and checks that each is answered.
func (w *world) viaProxy(port uint16, requests ...string) {
	w.t.Helper()
	r := w.radclient(w.at(port), "acct", proxySecret, requests...)
	if r.accepted != len(requests) {
		w.t.Fatalf("the proxy answered %d of %d requests:\n%s", r.accepted, len(requests), tail(r.log))
	}
}

// TestFreeRADIUSProxy_ACCT11_SES16: FreeRADIUS adds its own Proxy-State after those of
// earlier proxies and gets them all back, and a restart of one NAS behind it does not end
// the sessions of another.
func TestFreeRADIUSProxy_ACCT11_SES16(t *testing.T) {
	w := start(t, testenv.Root|testenv.Radclient|testenv.Freeradius|testenv.Tshark)
	proxy := w.freePort().Port()
	w.freeradius(freeradius{Port: proxy, Spool: t.TempDir()})
	c := w.capture(w.server)

	r := w.radclient(w.at(proxy), "acct", proxySecret, request("Start", "a-1", "alice", alice, "Proxy-State = 0x6e6173"))
	if r.accepted != 1 {
		t.Fatalf("not answered:\n%s", r.log)
	}
	w.viaProxy(proxy, nasRequest("bng-2", "Start", "a-1", "bob", bob)) // the same Acct-Session-Id (SES-01)
	w.block(alice)
	kept := w.block(bob)
	w.viaProxy(proxy, request("Interim-Update", "a-1", "alice", alice, "Acct-Input-Octets = 5"))
	w.wants(alice, map[string]string{"input_octets": "5", "nas": rig.NAS})

	w.viaProxy(proxy, restart(rig.NAS, "Accounting-On"))
	w.soon("alice to be offline", func() bool { return len(w.record(alice)) == 0 })
	w.wants(bob, map[string]string{"user_name": "bob", "nas": "bng-2"})
	if b := w.block(bob); b != kept {
		t.Errorf("bob's binding was %+v and is %+v", kept, b)
	}

	c.judged(4, 0)
	states := c.tshark(rig.Secret, "radius.Proxy_State", "radius.Proxy_State")
	if len(states) != 8 {
		t.Errorf("%d packets with a Proxy-State, want 4 requests and 4 replies: %q", len(states), states)
	}
	for i := 0; i+1 < len(states); i += 2 {
		if states[i][1:] != states[i+1][1:] { // all but the packet code
			t.Errorf("request has Proxy-States %q, reply %q", states[i], states[i+1])
		}
	}
}

// TestFreeRADIUSStatus_ACCT18: FreeRADIUS marks a stopped sessiond as dead, sends
// Status-Server, and uses it again once it answers.
func TestFreeRADIUSStatus_ACCT18(t *testing.T) {
	w := start(t, testenv.Root|testenv.Radclient|testenv.Freeradius)
	proxy := w.freePort().Port()
	f := w.freeradius(freeradius{Port: proxy, Spool: t.TempDir(), Checked: true})
	w.must(w.Daemon.Kill())
	lost := w.runRadclient(w.at(proxy), "acct", proxySecret,
		[]string{request("Start", "a-1", "alice", alice)}, "-r", "1", "-t", "1")
	if lost.accepted != 0 {
		t.Errorf("answered without sessiond:\n%s", lost.log)
	}
	w.await(f, "zombie")
	w.must(w.Daemon.Start(w.ctx))
	w.await(f, "alive")
	if n := w.counted("status_server", "ok"); n == 0 {
		t.Error("sessiond counts no answer to Status-Server")
	}
	if n := w.records(); n > 1 {
		t.Errorf("status checks made records: %d", n)
	}
	w.viaProxy(proxy, request("Start", "a-1", "alice", alice))
	w.wants(alice, map[string]string{"user_name": "alice"})
}

// TestFreeRADIUSRelay_ACCT16_SES13: events from while sessiond was down arrive late,
// through a detail file, with their own time: that of Event-Timestamp, or else the one that
// FreeRADIUS puts into Acct-Delay-Time.
func TestFreeRADIUSRelay_ACCT16_SES13(t *testing.T) {
	w := start(t, testenv.Root|testenv.Radclient|testenv.Freeradius|testenv.Tshark)
	port := w.freePort().Port()
	w.must(w.Daemon.Kill())
	f := w.freeradius(freeradius{Port: port, Spool: t.TempDir(), Write: true, Relay: true})
	c := w.capture(w.server)
	now := time.Now()
	stamped := now.Add(-10 * time.Minute)

	w.viaProxy(port,
		request("Start", "a-1", "alice", alice, "Acct-Delay-Time = 300"),
		request("Start", "b-1", "bob", bob, fmt.Sprint("Event-Timestamp = ", stamped.Unix())),
		request("Start", "c-1", "carol", carol))
	w.await(f, "zombie") // it has tried without success
	w.must(w.Daemon.Start(w.ctx))
	w.soon("the relay to deliver", func() bool { return w.records() == 3 })

	w.began(alice, now.Add(-300*time.Second))
	w.began(bob, stamped)
	w.began(carol, now)
	c.judged(3, 0)
	delays := c.tshark(rig.Secret, `radius.code == 4 && radius.User_Name == "alice"`, "radius.Acct_Delay_Time")
	if len(delays) < 2 || slices.Equal(delays[:1], delays[len(delays)-1:]) {
		t.Errorf("FreeRADIUS sent alice's Start with code and Acct-Delay-Time %q, want a growing delay", delays)
	}
}

// TestFreeRADIUSRelayBadClock_SES13: the NAS's clock is wrong, and FreeRADIUS computes an
// absurd delay from it: half a century, or, below zero, 136 years. The subscriber, at an
// address whose last holder's Stop was lost, is online all the same.
func TestFreeRADIUSRelayBadClock_SES13(t *testing.T) {
	clocks := map[string]time.Time{"1970": time.Unix(1000, 0), "a day ahead": time.Now().Add(24 * time.Hour)}
	for name, clock := range clocks {
		t.Run(name, func(t *testing.T) {
			w := start(t, testenv.Radclient|testenv.Freeradius)
			port := w.freePort().Port()
			w.freeradius(freeradius{Port: port, Spool: t.TempDir(), Write: true, Relay: true})
			w.account(w.server, request("Start", "a-1", "alice", alice, "Acct-Delay-Time = 3600"))

			stamp := fmt.Sprint("Event-Timestamp = ", clock.Unix())
			w.viaProxy(port, nasRequest("bng-2", "Start", "b-1", "bob", alice, stamp))
			w.soon("the relay to deliver", func() bool { return w.counted("start", "ok") == 2 })
			w.wants(alice, map[string]string{"user_name": "bob", "nas": "bng-2"})
			w.began(alice, time.Now())
		})
	}
}

// TestFreeRADIUSRelayLateStop_SES06: a Stop that was delayed in a detail file arrives after
// the address has gone to another subscriber, and ends no session.
func TestFreeRADIUSRelayLateStop_SES06(t *testing.T) {
	w := start(t, testenv.Radclient|testenv.Freeradius)
	spool := t.TempDir()
	port := w.freePort().Port()
	w.freeradius(freeradius{Port: port, Spool: spool, Write: true})
	w.account(w.server, request("Start", "a-1", "alice", alice, "Acct-Delay-Time = 60"))
	w.viaProxy(port, request("Stop", "a-1", "alice", alice, "Acct-Session-Time = 60"))
	w.wants(alice, map[string]string{"user_name": "alice"}) // the Stop is in the file

	w.account(w.server, request("Start", "b-1", "bob", alice)) // the same address
	w.wants(alice, map[string]string{"user_name": "bob", "acct_session_id": "b-1"})
	block := w.block(alice)

	w.freeradius(freeradius{Spool: spool, Relay: true})
	w.soon("the Stop to arrive", func() bool { return w.counted("stop", "no_record") == 1 })
	w.wants(alice, map[string]string{"user_name": "bob", "acct_session_id": "b-1"})
	if b := w.block(alice); b != block || b.UserName != "bob" {
		t.Errorf("the binding was %+v and is %+v", block, b)
	}
}

// TestFreeRADIUSRelayLateOn_SES15: a delayed Accounting-On ends the sessions from before
// the restart, and not those that have begun since.
func TestFreeRADIUSRelayLateOn_SES15(t *testing.T) {
	w := start(t, testenv.Radclient|testenv.Freeradius)
	spool := t.TempDir()
	port := w.freePort().Port()
	w.freeradius(freeradius{Port: port, Spool: spool, Write: true})
	w.account(w.server, request("Start", "a-1", "alice", alice, "Acct-Delay-Time = 3600"))
	w.viaProxy(port, restart(rig.NAS, "Accounting-On")+", Acct-Delay-Time = 600")
	w.account(w.server, request("Start", "b-1", "bob", bob))
	kept := w.block(bob)

	w.freeradius(freeradius{Spool: spool, Relay: true})
	w.soon("alice to be offline", func() bool { return len(w.record(alice)) == 0 })
	w.wants(bob, map[string]string{"user_name": "bob"})
	if b := w.block(bob); b != kept {
		t.Errorf("bob's binding was %+v and is %+v", kept, b)
	}
}

// TestFreeRADIUSRelayCopies_SES02_SES10: a relay sends again the requests that the NAS
// itself has sent to sessiond. An online session stays unchanged, and an ended one stays
// ended.
func TestFreeRADIUSRelayCopies_SES02_SES10(t *testing.T) {
	w := start(t, testenv.Radclient|testenv.Freeradius)
	spool := t.TempDir()
	port := w.freePort().Port()
	w.freeradius(freeradius{Port: port, Spool: spool, Write: true})
	began := time.Now().Add(-time.Hour)
	requests := []string{
		request("Start", "b-1", "bob", bob, fmt.Sprint("Event-Timestamp = ", began.Unix())),
		request("Start", "a-1", "alice", alice, "Acct-Delay-Time = 3600"),
		request("Interim-Update", "a-1", "alice", alice, "Acct-Delay-Time = 1800, Acct-Session-Time = 1800"),
		request("Stop", "a-1", "alice", alice, "Acct-Session-Time = 3600"),
	}
	w.account(w.server, requests...)
	kept := w.block(bob)
	w.offline(alice)

	w.viaProxy(port, requests...)
	w.freeradius(freeradius{Spool: spool, Relay: true})
	w.soon("the last copy to arrive", func() bool { return w.counted("stop", "no_record") == 1 })
	w.offline(alice)
	w.began(bob, began)
	if b := w.block(bob); b != kept {
		t.Errorf("bob's binding was %+v and is %+v", kept, b)
	}
}
