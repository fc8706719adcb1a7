package system

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"layeh.com/radius/rfc2866"

	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/radiusacct/acctclient"
	"github.com/sessiond/sessiond/internal/rig"
)

// sharedAddress has one outside address, so that neighbours share it.
var sharedAddress = netlab.Options{Pool: []netip.Prefix{netip.MustParsePrefix("198.51.100.7/32")}}

// TestRemoval tests every way in which a record ends. The live flow dies in both directions
// and does not come back, and nothing of the address is left in conntrack or nftables. The
// neighbour on the same outside address loses nothing.
func TestRemoval(t *testing.T) {
	ends := map[string]func(*world, rig.Session){
		"Stop_DEL01_DEL02_DEL03": func(w *world, s rig.Session) {
			w.must(w.Offline(w.ctx, s))
		},
		"sessionctl_DEL08": func(w *world, s rig.Session) {
			w.ctl("subscriber", "delete", s.Inside.String(), "--yes")
		},
		"redis-cli_DEL_DEL08": func(w *world, s rig.Session) {
			out, err := w.Redis.CLI(w.ctx, "DEL", recordKey(s.Inside))
			w.must(err)
			if out != "1" {
				w.t.Fatalf("redis-cli DEL: %q", out)
			}
		},
		"expiry_DEL09": func(w *world, s rig.Session) {
			_, err := w.Redis.CLI(w.ctx, "PEXPIRE", recordKey(s.Inside), "1")
			w.must(err)
			w.soon(5*time.Second, func(ctx context.Context) error { // documented bound for expiry
				return w.AwaitNothing(ctx, s.Inside)
			})
		},
		"Accounting-Off_SES15": func(w *world, s rig.Session) {
			// The neighbour comes from another NAS in this case, see below.
			w.must(w.Send(w.ctx, accountingOff(rig.NAS)))
		},
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			w := start(t, rig.Options{Lab: sharedAddress})
			a := sessionOf(alice, "a-1")
			block := w.online(a)
			neighbour := w.onlineBehind("bng-2", sessionOf(bob, "b-1"))
			fa, fb := w.flow(alice), w.flow(bob)
			if !block.Covers(fa.Source()) || !neighbour.Covers(fb.Source()) {
				t.Fatalf("seen as %v and %v, want within %+v and %+v (NAT-02)", fa.Source(), fb.Source(), block, neighbour)
			}
			w.passes(fa, "alice")

			end(w, a)

			w.gone(alice)
			w.dead(fa, "alice")
			w.passes(fb, "bob") // DEL-07
			w.gone(alice)       // the probe's segments created nothing anew (DEL-04)
			w.soon(5*time.Second, func(ctx context.Context) error {
				_, err := w.AwaitState(ctx, alice, "HELD")
				return err
			})
			w.soon(10*time.Second, func(ctx context.Context) error { return w.awaitFree(ctx, alice) })
		})
	}
}

// TestTraffic_NAT02_NAT21: all protocols of a subscriber come from its one outside address
// and its own ports.
func TestTraffic_NAT02_NAT21(t *testing.T) {
	w := start(t, rig.Options{})
	block := w.online(sessionOf(alice, "a-1"))
	echo, err := w.Lab.StartEcho(netip.AddrPortFrom(w.Lab.Remotes[0], 0))
	w.must(err)
	local := netip.AddrPortFrom(alice, 0)

	tcp, err := w.Lab.Subscriber.AskTCP(w.ctx, local, echo.Addr())
	w.must(err)
	udp, err := w.Lab.Subscriber.AskUDP(w.ctx, local, echo.Addr())
	w.must(err)
	ping, err := w.Lab.Ping(w.ctx, alice, 7) // an id outside every block
	w.must(err)
	for name, seen := range map[string]netip.AddrPort{
		"tcp": tcp, "udp": udp, "icmp": netip.AddrPortFrom(ping.Source, ping.ID),
	} {
		if !block.Covers(seen) {
			t.Errorf("%s is seen as %v, want within %+v", name, seen, block)
		}
	}
}

// TestNothingLeaks_DEL05_DEL06_NAT26_I3: before Start and after Stop no packet of the
// address reaches the internet side, translated or not, of any protocol; and a flow begun
// before Start is translated after it.
func TestNothingLeaks_DEL05_DEL06_NAT26_I3(t *testing.T) {
	w := start(t, rig.Options{})
	capture, err := w.Lab.CGN.Capture(netlab.OutsideInterface)
	w.must(err)
	w.Lab.Own(capture)
	echo, err := w.Lab.StartEcho(netip.AddrPortFrom(w.Lab.Remotes[0], 0))
	w.must(err)
	from := netip.AddrPortFrom(alice, 33333)

	w.unanswered(from, echo.Addr())
	w.nothingOf(capture, alice)

	block := w.online(sessionOf(alice, "a-1"))
	seen, err := w.Lab.Subscriber.AskUDP(w.ctx, from, echo.Addr()) // the same five-tuple
	w.must(err)
	if !block.Covers(seen) {
		t.Errorf("flow begun before Start is seen as %v, want within %+v", seen, block)
	}

	w.must(w.Offline(w.ctx, sessionOf(alice, "a-1")))
	w.gone(alice)
	capture.Clear()
	w.unanswered(from, echo.Addr())
	w.nothingOf(capture, alice)
}

// unanswered checks that a datagram and a ping of a closed address get no answer.
func (w *world) unanswered(from, echo netip.AddrPort) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, 300*time.Millisecond)
	defer cancel()
	if seen, err := w.Lab.Subscriber.AskUDP(ctx, from, echo); err == nil {
		w.t.Errorf("a closed address was answered, seen as %v", seen)
	}
	ctx, cancel = context.WithTimeout(w.ctx, 300*time.Millisecond)
	defer cancel()
	if _, err := w.Lab.Ping(ctx, from.Addr(), 77); err == nil {
		w.t.Error("a closed address was answered a ping")
	}
}

// nothingOf checks that only the gateway's own traffic was captured.
func (w *world) nothingOf(c *netlab.Capture, inside netip.Addr) {
	w.t.Helper()
	w.must(c.Settle(w.ctx, w.Lab.CGN, w.Lab.Remotes[0]))
	pool := netip.MustParsePrefix("198.51.100.0/28") // the lab's default
	leaked := c.Matching(func(p netlab.Packet) bool { return p.Mentions(inside) || pool.Contains(p.Source.Addr()) })
	if len(leaked) > 0 {
		w.t.Errorf("%d packets of %s reached the internet side, first: %+v", len(leaked), inside, leaked[0])
	}
}

// TestTakeover_SES06_SES07_I4: a new session on the same address, after a lost Stop, gets
// nothing of the old one's, and a late Stop of the old one does not harm it (SES-06).
func TestTakeover_SES06_SES07_I4(t *testing.T) {
	w := start(t, rig.Options{})
	old := rig.Session{ID: "old", User: "first", Inside: alice}
	before := w.online(old)
	f := w.flow(alice)
	w.passes(f, "first")

	next := rig.Session{ID: "new", User: "second", Inside: alice}
	w.must(w.Report(w.ctx, rfc2866.AcctStatusType_Value_Start, next))
	var now rig.Binding
	w.soon(5*time.Second, func(ctx context.Context) error {
		return w.Until(ctx, "the second user's binding", func() (bool, error) {
			bindings, err := w.Bindings(ctx, alice)
			for _, b := range bindings {
				if b.State == "ACTIVE" && b.UserName == "second" {
					now = b
				}
			}
			return now.State != "", err
		})
	})
	if now.OutsideAddress == before.OutsideAddress && now.FirstPort == before.FirstPort {
		t.Errorf("another user got the block at once: %+v", now)
	}
	w.dead(f, "first")
	g := w.flow(alice)
	w.passes(g, "second")

	w.must(w.Offline(w.ctx, old)) // late Stop
	w.must(w.Report(w.ctx, rfc2866.AcctStatusType_Value_InterimUpdate, next))
	w.passes(g, "second, after the late Stop of the first")
	if b, err := w.AwaitState(w.ctx, alice, "ACTIVE"); err != nil || b != now {
		t.Errorf("binding is %+v (%v), want %+v", b, err, now)
	}
}

// TestOldStartReadLate_SES07_I4: an old Start that tells only how late it is does not take an
// address over, although this daemon was paused and reads it later than it came.
func TestOldStartReadLate_SES07_I4(t *testing.T) {
	w := start(t, rig.Options{})
	first := acctclient.Request{Status: rfc2866.AcctStatusType_Value_Start, SessionID: "new", UserName: "first", FramedAddress: alice, NASIdentifier: "bng-2", SendDelay: true}
	w.must(w.Send(w.ctx, first))
	began := time.Now()
	if _, err := w.AwaitState(w.ctx, alice, "ACTIVE"); err != nil {
		t.Fatal(err)
	}

	w.must(w.Daemon.Pause())
	const late, paused = 5 * time.Second, 8 * time.Second
	c, err := acctclient.Dial(w.ctx, w.Daemon.RADIUS, "", acctclient.Options{Secret: []byte(rig.Secret), Timeout: time.Minute, Transmissions: 1})
	w.must(err)
	defer c.Close()
	answered := make(chan error, 1)
	old := acctclient.Request{Status: rfc2866.AcctStatusType_Value_Start, SessionID: "old", UserName: "stranger", FramedAddress: alice, NASIdentifier: "bng-3", SendDelay: true}
	sent := time.Now()
	old.DelayTime = sent.Sub(began) + late
	go func() { answered <- c.Account(w.ctx, old) }()
	w.must(w.Until(w.ctx, "the pause to end", func() (bool, error) { return time.Since(sent) > paused, nil }))
	w.must(w.Daemon.Resume())
	w.must(<-answered)
	if user := strings.TrimSpace(w.redis("hget", "sessiond:{default}:sub:"+alice.String(), "user_name")); user != "first" {
		t.Errorf("the record is of %s, want first", user)
	}
}

// TestToggleOff_DEL11: the flow goes on, no new one opens, and the block is freed when the
// last session times out. The toggle survives a restart.
func TestToggleOff_DEL11(t *testing.T) {
	w := start(t, rig.Options{UDPTimeout: 2 * time.Second, Hold: time.Second})
	w.ctl("settings", "set", "subscriber_session_removal=off")
	_, err := w.Daemon.Stop()
	w.must(err)
	w.must(w.Daemon.Start(w.ctx))

	a := sessionOf(alice, "a-1")
	w.online(a)
	f := w.flow(alice)
	w.must(w.Offline(w.ctx, a))
	w.soon(5*time.Second, func(ctx context.Context) error {
		_, err := w.AwaitState(ctx, alice, "DRAINING")
		return err
	})
	w.passes(f, "alice, drained")
	w.cannotOpen(alice)

	w.must(f.Close()) // both ends reset: the entry goes to its closing timeout
	w.killSessions(alice)
	w.soon(5*time.Second, func(ctx context.Context) error { return w.AwaitNothing(ctx, alice) })
	w.soon(10*time.Second, func(ctx context.Context) error { return w.awaitFree(ctx, alice) })
}

// TestToggleOn_CutsDraining: switched on, draining bindings are cut at once.
func TestToggleOn_CutsDraining(t *testing.T) {
	w := start(t, rig.Options{RemovalOff: true})
	a := sessionOf(alice, "a-1")
	w.online(a)
	f := w.flow(alice)
	w.must(w.Offline(w.ctx, a))
	_, err := w.AwaitState(w.ctx, alice, "DRAINING")
	w.must(err)
	w.ctl("settings", "set", "subscriber_session_removal=on")
	w.gone(alice)
	w.dead(f, "alice")
}

// TestPoolExhausted_NAT32_NAT37: a Start without a free block is answered; the subscriber
// waits, and is served when a block is freed.
func TestPoolExhausted_NAT32_NAT37(t *testing.T) {
	w := start(t, rig.Options{
		BlockSize: 512, PortRange: "1024-1535", Hold: time.Second, Lab: sharedAddress,
	})
	a, b := sessionOf(alice, "a-1"), sessionOf(bob, "b-1")
	first := w.online(a)
	f := w.flow(alice)
	w.must(w.Report(w.ctx, rfc2866.AcctStatusType_Value_Start, b))
	w.cannotOpen(bob)
	w.passes(f, "alice")
	w.must(w.Offline(w.ctx, a))
	w.soon(10*time.Second, func(ctx context.Context) error {
		got, err := w.AwaitState(ctx, bob, "ACTIVE")
		if err == nil && got.FirstPort != first.FirstPort {
			t.Errorf("bob got %+v, want the one block there is", got)
		}
		return err
	})
	w.passes(w.flow(bob), "bob")
}

// TestDrainWithoutEvents_DEL11: with removal off, a live session of an ended subscriber is
// drained and not cut if the kernel sends no conntrack events: for all sessions, or for
// some because of an operator's rule. The block is freed when the session has ended.
func TestDrainWithoutEvents_DEL11(t *testing.T) {
	for name, untold := range map[string][]string{
		"events off": {"sysctl", "-qw", "net.netfilter.nf_conntrack_events=0"},
		"ct event":   {"nft", "table ip operator { chain f { type filter hook forward priority -10; ct event set label; }; }"},
	} {
		t.Run(name, func(t *testing.T) {
			w := start(t, rig.Options{RemovalOff: true, Hold: time.Second})
			_, err := w.Lab.CGN.Output(w.ctx, untold[0], untold[1:]...)
			w.must(err)
			a := sessionOf(alice, "a-1")
			w.online(a)
			f := w.flow(alice)
			w.must(w.Offline(w.ctx, a))
			w.soon(5*time.Second, func(ctx context.Context) error {
				_, err := w.AwaitState(ctx, alice, "DRAINING")
				return err
			})
			// Bob drains with nothing open: when he is gone, the sessions were checked.
			b := sessionOf(bob, "b-1")
			w.online(b)
			w.must(w.Offline(w.ctx, b))
			w.soon(10*time.Second, func(ctx context.Context) error { return w.awaitFree(ctx, bob) })
			w.passes(f, "alice, drained")
			w.must(f.Close())
			w.killSessions(alice)
			w.soon(10*time.Second, func(ctx context.Context) error { return w.awaitFree(ctx, alice) })
		})
	}
}

// TestFloodOfTheMachine_I5: a host that sends to the machine's own address all the time,
// from port after port, before its Start and after its Stop, is served and removed like any
// other.
func TestFloodOfTheMachine_I5(t *testing.T) {
	w := start(t, rig.Options{Hold: time.Second})
	conn, err := w.Lab.Subscriber.ListenUDP(netip.AddrPortFrom(alice, 6000))
	w.must(err)
	ctx, cancel := context.WithCancel(w.ctx)
	var task sync.WaitGroup
	task.Go(func() {
		for port := uint16(0); ctx.Err() == nil; port++ {
			_, _ = conn.WriteToUDPAddrPort([]byte("?"), netip.AddrPortFrom(netlab.InsideGateway.Addr(), max(port, 1)))
		}
	})
	t.Cleanup(func() { cancel(); task.Wait(); _ = conn.Close() })
	for i := range 3 {
		a := sessionOf(alice, fmt.Sprint("a-", i))
		w.soon(5*time.Second, func(ctx context.Context) error { _, err := w.Online(ctx, a); return err })
		f := w.flow(alice)
		w.must(w.Offline(w.ctx, a))
		w.soon(10*time.Second, func(ctx context.Context) error { return w.awaitFree(ctx, alice) })
		if out, in := f.Probe(200 * time.Millisecond); out || in {
			t.Errorf("the flow passes after the Stop: out %t, in %t", out, in)
		}
	}
}
