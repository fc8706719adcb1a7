package netlab

import (
	"net/netip"
	"testing"
	"time"
)

// TestCaptureShowsALeak_I3 checks the method of the leak tests: it reports a
// leak if there is one, and none otherwise.
func TestCaptureShowsALeak_I3(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, ruleset string
		leaks         bool
	}{
		{"forwarding only", `table ip lab {}`, true},
		{"translated", translation, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, Options{})
			nft(t, l.CGN, c.ruleset)
			if got := sendAndCapture(t, l); got != c.leaks {
				t.Errorf("capture mentions the inside address: %v, want %v", got, c.leaks)
			}
		})
	}
}

// sendAndCapture sends a datagram of alice to the internet and reports whether
// her address was seen there.
func sendAndCapture(t *testing.T, l *Lab) (leaked bool) {
	t.Helper()
	ctx := testContext(t)
	c, err := l.Internet.Capture(internetInterface)
	if err != nil {
		t.Fatal(err)
	}
	l.Own(c)
	conn, err := l.Subscriber.Dial(ctx, "udp4", netip.AddrPortFrom(alice, 0), netip.AddrPortFrom(l.Remotes[0], 9))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("payload")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Await(ctx, func(p Packet) bool { return string(p.Payload) == "payload" }); err != nil {
		t.Fatal(err)
	}
	if err := c.Settle(ctx, l.CGN, l.Remotes[0]); err != nil {
		t.Fatal(err)
	}
	if dropped, err := c.Dropped(); dropped != 0 || err != nil {
		t.Errorf("dropped %d, %v", dropped, err)
	}
	return len(c.Matching(func(p Packet) bool { return p.Mentions(alice) })) > 0
}

func TestCaptureSeesBothWays(t *testing.T) {
	t.Parallel()
	l := newLab(t, Options{})
	nft(t, l.CGN, translation)
	c, err := l.CGN.Capture(InsideInterface)
	if err != nil {
		t.Fatal(err)
	}
	l.Own(c)
	if _, err := l.Ping(testContext(t), alice, 99); err != nil {
		t.Fatal(err)
	}
	for _, outgoing := range []bool{false, true} {
		p, err := c.Await(testContext(t), func(p Packet) bool { return p.Protocol == ICMP && p.Outgoing == outgoing })
		if err != nil || p.Source.Port() != 99 || time.Since(p.At) > time.Minute {
			t.Errorf("outgoing %v: %+v, %v", outgoing, p, err)
		}
	}
	c.Clear()
	if got := c.Packets(); len(got) != 0 {
		t.Errorf("after Clear: %v", got)
	}
}
