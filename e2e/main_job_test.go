//go:build e2e

package e2e

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/labapi"
	"github.com/sessiond/sessiond/internal/netlab"
)

// Bounds of the contract, and of the configuration.
const (
	bound       = time.Second      // Start answered to ACTIVE, record gone to nothing left
	expiryBound = 6 * time.Second  // the same for a record that Redis expires
	holdOver    = 15 * time.Second // the configured hold is 4 s
	idleOver    = 15 * time.Second // the configured idle times are 3 s and 5 s
)

// report makes the BNG send an accounting request of a subscriber's session.
func (s *stack) report(t *testing.T, status, user, session string, inside netip.Addr) {
	t.Helper()
	_, err := s.bng.Account(testContext(t), labapi.Account{Status: status, User: user, Session: session, Address: inside})
	if err != nil {
		t.Fatalf("%s of %s: %v", status, user, err)
	}
}

// online brings a subscriber online and returns its binding.
func (s *stack) online(t *testing.T, user, session string, inside netip.Addr) binding {
	t.Helper()
	s.report(t, "start", user, session, inside)
	b := s.awaitState(t, inside, "ACTIVE", bound)
	if !s.pool.Contains(b.OutsideAddress) || b.FirstPort%s.blockSize != 0 || b.LastPort-b.FirstPort != s.blockSize-1 {
		t.Errorf("%s has no aligned block of the pool: %+v", user, b)
	}
	if got := s.redisCLI(t, "HGET", s.recordKey(inside), "user_name"); got != user {
		t.Errorf("record of %v is of %q, want %q", inside, got, user)
	}
	return b
}

// ask asks the internet host for the address and port at which it sees a subscriber.
func (s *stack) ask(t *testing.T, network string, inside netip.Addr, within time.Duration) (netip.AddrPort, error) {
	t.Helper()
	return s.subscriber.Ask(testContext(t), labapi.Probe{
		Network: network, From: netip.AddrPortFrom(inside, 0), To: s.echo, Milliseconds: int(within.Milliseconds()),
	})
}

func (s *stack) ping(t *testing.T, inside netip.Addr, id uint16, within time.Duration) (payload string, err error) {
	t.Helper()
	return s.subscriber.Ping(testContext(t), labapi.Probe{
		From: netip.AddrPortFrom(inside, id), To: s.echo, Milliseconds: int(within.Milliseconds()),
	})
}

// checkTranslated fails the test unless TCP, UDP and ping of a subscriber are
// seen from its block.
func (s *stack) checkTranslated(t *testing.T, inside netip.Addr, b binding) {
	t.Helper()
	for _, network := range []string{"tcp4", "udp4"} {
		seen, err := s.ask(t, network, inside, 5*time.Second)
		if err != nil || !b.holds(seen) {
			t.Errorf("%s of %v seen from %v, %v; want %+v", network, inside, seen, err, b)
		}
	}
	payload, err := s.ping(t, inside, 77, 5*time.Second)
	if err != nil {
		t.Errorf("ping of %v: %v", inside, err)
		return
	}
	if seen := s.pingSeen(t, payload); !b.holds(seen) {
		t.Errorf("ping of %v seen from %v, want %+v", inside, seen, b)
	}
}

// checkOffline fails the test if a packet of a subscriber gets out, untranslated or from
// the outside addresses and ports that were its own.
func (s *stack) checkOffline(t *testing.T, inside netip.Addr, own func(netip.AddrPort) bool) {
	t.Helper()
	c := s.capture(t)
	for _, network := range []string{"tcp4", "udp4"} {
		if seen, err := s.ask(t, network, inside, 500*time.Millisecond); err == nil {
			t.Errorf("%s of %v seen from %v, want nothing", network, inside, seen)
		}
	}
	if _, err := s.ping(t, inside, 78, 500*time.Millisecond); err == nil {
		t.Errorf("ping of %v was answered", inside)
	}
	s.checkCaptured(t, c, "traffic of an offline subscriber", func(p netlab.Packet) bool {
		return p.Mentions(inside) || !p.Outgoing && own(p.Source)
	})
}

func TestNothingLeavesBeforeStart_I3_DEL05(t *testing.T) {
	s := newStack(t)
	s.checkOffline(t, s.alice, func(a netip.AddrPort) bool { return s.pool.Contains(a.Addr()) })
	if found := s.traces(t, s.alice); len(found) > 0 {
		t.Errorf("of a subscriber never online there is %q", found)
	}
}

// TestFlowBegunBeforeStart_DEL06 sends from one socket address before and after the Start:
// an entry that the kernel tracked before must not stay.
func TestFlowBegunBeforeStart_DEL06(t *testing.T) {
	s := newStack(t)
	p := labapi.Probe{Network: "udp4", From: netip.AddrPortFrom(s.alice, 40000), To: s.echo, Milliseconds: 500}
	if seen, err := s.subscriber.Ask(testContext(t), p); err == nil {
		t.Fatalf("seen from %v before Start", seen)
	}
	session := fmt.Sprintf("before-%d", time.Now().UnixNano())
	block := s.online(t, "alice", session, s.alice)
	p.Milliseconds = 5000
	if seen, err := s.subscriber.Ask(testContext(t), p); err != nil || !block.holds(seen) {
		t.Errorf("seen from %v, %v; want %+v", seen, err, block)
	}
	s.report(t, "stop", "alice", session, s.alice)
	s.awaitNoTrace(t, s.alice, bound)
	s.awaitFree(t, s.alice, holdOver)
}

// TestRemoval ends a subscriber in each possible way. The result must be the same.
func TestRemoval(t *testing.T) {
	for _, c := range []struct {
		name   string
		within time.Duration
		end    func(*stack, *testing.T, string)
	}{
		{"Stop_DEL01_DEL02_DEL03_DEL04", bound, func(s *stack, t *testing.T, session string) {
			s.report(t, "stop", "alice", session, s.alice)
		}},
		{"Delete_DEL08", bound, func(s *stack, t *testing.T, _ string) {
			s.ctl(t, "subscriber", "delete", s.alice.String(), "--yes")
		}},
		{"RawDEL_DEL08", bound, func(s *stack, t *testing.T, _ string) {
			if got := s.redisCLI(t, "DEL", s.recordKey(s.alice)); got != "1" {
				t.Errorf("DEL of the record: %s", got)
			}
		}},
		{"Expiry_DEL09", expiryBound, func(s *stack, t *testing.T, _ string) {
			if got := s.redisCLI(t, "PEXPIRE", s.recordKey(s.alice), "1"); got != "1" {
				t.Errorf("PEXPIRE of the record: %s", got)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStack(t)
			session := fmt.Sprintf("%s-%d", c.name, time.Now().UnixNano())
			s.testRemoval(t, session, c.within, func() { c.end(s, t, session) })
		})
	}
}

// testRemoval brings two subscribers online, ends one of them, and checks both.
func (s *stack) testRemoval(t *testing.T, session string, within time.Duration, end func()) {
	capture := s.capture(t)
	block := s.online(t, "alice", session, s.alice)
	neighbour := s.online(t, "bob", session+"-bob", s.bob)
	if block.OutsideAddress == neighbour.OutsideAddress && block.FirstPort == neighbour.FirstPort {
		t.Errorf("both subscribers have %+v", block)
	}
	s.checkTranslated(t, s.alice, block)
	s.checkTranslated(t, s.bob, neighbour)
	dying, staying := s.openFlow(t, s.alice), s.openFlow(t, s.bob)
	dying.checkAlive(t, "alice")
	staying.checkAlive(t, "bob")
	if !block.holds(dying.source) {
		t.Errorf("flow of alice seen from %v, want %+v", dying.source, block)
	}

	end()
	s.awaitNoTrace(t, s.alice, within)
	s.awaitState(t, s.alice, "HELD", bound)
	s.checkGone(t, dying, block)
	staying.checkAlive(t, "bob") // DEL-07
	s.checkCaptured(t, capture, "untranslated traffic", func(p netlab.Packet) bool {
		return p.Mentions(s.alice) || p.Mentions(s.bob)
	})

	s.awaitFree(t, s.alice, holdOver) // NAT-30
	staying.checkAlive(t, "bob")
	dying.end(t)
	staying.end(t)
	s.report(t, "stop", "bob", session+"-bob", s.bob)
	s.awaitFree(t, s.bob, within+holdOver)
}

// checkGone fails the test if a flow or state of alice exists or comes back.
func (s *stack) checkGone(t *testing.T, dying *flow, block binding) {
	t.Helper()
	dying.checkDead(t, "alice")
	s.checkOffline(t, s.alice, block.holds)
	if found := s.traces(t, s.alice); len(found) > 0 {
		t.Errorf("of alice there is again %q", found)
	}
	if got := s.redisCLI(t, "EXISTS", s.recordKey(s.alice)); got != "0" {
		t.Errorf("record of alice: EXISTS = %s", got)
	}
}

func TestToggleOff_DEL11(t *testing.T) {
	s := newStack(t)
	s.ctl(t, "settings", "set", "subscriber_session_removal=off")
	t.Cleanup(func() { s.ctl(t, "settings", "set", "subscriber_session_removal=on") })
	session := fmt.Sprintf("toggle-%d", time.Now().UnixNano())
	block := s.online(t, "alice", session, s.alice)
	s.checkTranslated(t, s.alice, block)
	living := s.openFlow(t, s.alice)
	living.checkAlive(t, "alice")

	s.report(t, "stop", "alice", session, s.alice)
	s.awaitState(t, s.alice, "DRAINING", bound)
	living.checkAlive(t, "alice")
	for _, network := range []string{"tcp4", "udp4"} {
		if seen, err := s.ask(t, network, s.alice, 500*time.Millisecond); err == nil {
			t.Errorf("new %s of a draining subscriber seen from %v", network, seen)
		}
	}
	living.checkAlive(t, "alice")
	if drained := s.bindings(t, s.alice); len(drained) != 1 || !drained[0].is("DRAINING") || drained[0].FirstPort != block.FirstPort {
		t.Errorf("bindings of alice with a live flow: %+v", drained)
	}

	living.end(t)
	s.awaitState(t, s.alice, "HELD", idleOver)
	s.awaitNoTrace(t, s.alice, bound)
	s.awaitFree(t, s.alice, holdOver)
}
