package radsec

import (
	"net/netip"
	"testing"
)

// closeNote records that it was closed.
type closeNote bool

func (c *closeNote) Close() error {
	*c = true
	return nil
}

// TestAdmissionSharesHandshakes_RSEC03: when the handshakes are full, new ones replace
// those of the network that has the most, the oldest first. One alone in its network stays.
// A replaced one is refused, also when its client is known by then.
func TestAdmissionSharesHandshakes_RSEC03(t *testing.T) {
	t.Parallel()
	a := newAdmission(64, 2) // 16 handshakes
	client := "bng"
	enter := func(source string) (*handshake, *closeNote) {
		t.Helper()
		note := new(closeNote)
		h := a.enter(netip.MustParseAddr(source), note)
		if h == nil {
			t.Fatalf("%s has no room", source)
		}
		return h, note
	}
	alone, left := enter("192.0.2.1")
	oldest, first := enter("198.51.100.1")
	for i := range 14 {
		enter(netip.AddrFrom4([4]byte{198, 51, 100, byte(2 + i)}).String())
	}
	_, spared := enter("2001:db8::1")
	enter("203.0.113.1")
	if *left || *spared || !*first {
		t.Errorf("closed: alone %t, newcomer %t, the oldest of the full network %t", *left, *spared, *first)
	}
	if got := a.admit(oldest, client); got != overrun {
		t.Errorf("who was made room of is refused as %v", got)
	}
	if got := a.leave(oldest); got != overrun {
		t.Errorf("who was made room of leaves as %v", got)
	}
	if got := a.admit(alone, client); got != nil {
		t.Errorf("the client is refused: %v", got.err)
	}
	if len(a.handshakes) != 15 || a.total != 1 {
		t.Errorf("%d handshakes, %d connections", len(a.handshakes), a.total)
	}
}

// TestAdmissionOfOneSource_RSEC03: a source, of IPv6 a /64, has a limited number of
// handshakes; an ended one leaves no state.
func TestAdmissionOfOneSource_RSEC03(t *testing.T) {
	t.Parallel()
	a := newAdmission(1024, 16)
	var waiting []*handshake
	for _, prefix := range []string{"192.0.2.1/32", "2001:db8::/64"} {
		source := netip.MustParsePrefix(prefix).Addr()
		for range maxHandshakes {
			waiting = append(waiting, a.enter(source, new(closeNote)))
			if !source.Is4() {
				source = source.Next()
			}
		}
		if a.enter(source, new(closeNote)) != nil {
			t.Errorf("%s has one more", prefix)
		}
	}
	for _, h := range waiting {
		if got := a.leave(h); got != nil {
			t.Errorf("leaves as %v", got)
		}
	}
	if len(a.handshakes)+len(a.sources)+len(a.networks) != 0 {
		t.Errorf("left behind: %+v", a)
	}
}
