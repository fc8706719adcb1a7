package pcp

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/pcp/wire"
)

// sends runs an announcer until nothing is due any more, and returns when it sent what.
func (d *desk) sends(a *announcer) (times []time.Duration, all []message) {
	start := d.now.Uptime
	for range 1000 {
		n, wait, ok := a.next(d.now.Uptime)
		if !ok {
			if len(a.pending) == 0 {
				return times, all
			}
			d.pass(wait)
			continue
		}
		m, _, ok := d.messageOf(n, d.now)
		if !ok {
			a.end(n)
			continue
		}
		times, all = append(times, d.now.Uptime-start), append(all, m)
	}
	d.t.Fatal("announcements never end")
	return nil, nil
}

func milliseconds(list ...int) (all []time.Duration) {
	for _, n := range list {
		all = append(all, time.Duration(n)*time.Millisecond)
	}
	return all
}

// TestLossIsAnnounced_PCP32: after a loss the client is told, ten times at growing intervals, at the
// port where clients listen and the one from which it asked in turn, from the address that it asked;
// and the epoch begins anew.
func TestLossIsAnnounced_PCP32(t *testing.T) {
	d := newDesk(t)
	d.do(alice, mapping(5000, 3600))
	d.pass(time.Minute)
	d.twin.setOnline(alice, d.now.Wall)
	a := newAnnouncer()
	a.add(alice, d.now.Uptime)
	times, all := d.sends(a)
	if want := milliseconds(0, 250, 750, 1750, 3750, 7750, 15750, 31750, 63750, 127750); !slices.Equal(times, want) {
		t.Errorf("sent at %v, want %v", times, want)
	}
	for i, m := range all {
		port := []uint16{wire.ClientPort, 40000}[i%2]
		got, err := wire.ParseAnswer(m.octets)
		if err != nil || got.Opcode != wire.Announce || got.Epoch != uint32(times[i]/time.Second) || m.to != netip.AddrPortFrom(alice, port) || m.local != gateway {
			t.Errorf("message %d to %v from %v: %+v, %v", i, m.to, m.local, got, err)
		}
	}
}

// TestAnnouncementsEnd_PCP32: they end with the client's next request, and with its session.
func TestAnnouncementsEnd_PCP32(t *testing.T) {
	d := newDesk(t)
	a := newAnnouncer()
	for _, inside := range []netip.Addr{alice, bob, carol} {
		a.add(inside, d.now.Uptime)
	}
	for range 2 {
		n, _, _ := a.next(d.now.Uptime)
		if _, _, ok := d.messageOf(n, d.now); !ok && n.inside != carol {
			t.Errorf("%v is told nothing", n.inside)
		}
	}
	d.pass(100 * time.Millisecond)
	d.do(alice, mapping(5000, 3600))
	d.twin.setOffline(bob)
	if _, all := d.sends(a); len(all) != 0 {
		t.Errorf("%d messages to who has asked, who has gone, and who was not there", len(all))
	}
	d.twin.settings.Announce = 0
	a.add(alice, d.now.Uptime)
	if _, all := d.sends(a); len(all) != 0 {
		t.Errorf("%d messages where announce is 0", len(all))
	}
}

// TestNATPMPIsTold: a client of NAT-PMP is told the outside address (RFC 6886 section 3.2.1).
func TestNATPMPIsTold_PCP32_PCP36(t *testing.T) {
	d := newDesk(t)
	d.natpmp(alice, wire.NATPMPRequest{Protocol: 17, InsidePort: 5000, Lifetime: 600})
	d.twin.setOnline(alice, d.now.Wall)
	a := newAnnouncer()
	a.add(alice, d.now.Uptime)
	_, all := d.sends(a)
	if len(all) != 10 {
		t.Fatalf("%d messages", len(all))
	}
	got, err := wire.ParseNATPMPAnswer(all[0].octets)
	if err != nil || got.Protocol != 0 || got.Outside != public || got.Epoch != 0 || all[0].to.Port() != 5350 {
		t.Errorf("%+v to %v, %v", got, all[0].to, err)
	}
}
