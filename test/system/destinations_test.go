package system

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/sessiond/sessiond/internal/rig"
)

// TestDestinationsAreNotRecorded_NAT34: where a subscriber's flows go stands neither in the
// log, at its lowest level, nor in Redis (RFC 6888 REQ-12).
func TestDestinationsAreNotRecorded_NAT34(t *testing.T) {
	w := start(t, rig.Options{LogLevel: "debug"})
	echo, err := w.Lab.StartEcho(netip.AddrPortFrom(w.Lab.Remotes[0], 0))
	w.must(err)
	s := sessionOf(alice, "s-1")
	w.online(s)
	for port := range uint16(8) {
		from := netip.AddrPortFrom(alice, 20000+port)
		_, err := w.Lab.Subscriber.AskUDP(w.ctx, from, echo.Addr())
		w.must(err)
		_, err = w.Lab.Subscriber.AskTCP(w.ctx, from, echo.Addr())
		w.must(err)
	}
	destination := echo.Addr().Addr().String()
	if out := w.ctl("session", "list"); !strings.Contains(out, destination) {
		t.Fatalf("the sessions have no %s: %s", destination, out)
	}
	w.must(w.Offline(w.ctx, s))
	w.must(w.AwaitNothing(w.ctx, alice))

	if log := w.Daemon.Log(); strings.Contains(log, destination) {
		t.Errorf("the log has %s:\n%s", destination, log)
	}
	inside := false
	for key := range strings.Lines(w.redis("keys", "*")) {
		key = strings.TrimSpace(key)
		kind := strings.TrimSpace(w.redis("type", key))
		if kind == "none" {
			continue // deleted since: the last of a hold
		}
		read := map[string][]string{
			"string": {"get", key}, "hash": {"hgetall", key}, "set": {"smembers", key}, "stream": {"xrange", key, "-", "+"},
		}[kind]
		if read == nil {
			t.Fatalf("%s has a type that this test cannot read", key)
		}
		text := key + " " + w.redis(read...)
		inside = inside || strings.Contains(text, alice.String())
		if strings.Contains(text, destination) {
			t.Errorf("Redis has %s: %s", destination, text)
		}
	}
	if !inside {
		t.Errorf("Redis does not mention %v, so this test reads it wrongly", alice)
	}
}
