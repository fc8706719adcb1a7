package pcp

import (
	"net/netip"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/pcp/wire"
)

// natpmp sends a request of NAT-PMP, and reads its answer.
func (d *desk) natpmp(source netip.Addr, r wire.NATPMPRequest) wire.NATPMPAnswer {
	d.t.Helper()
	a, err := wire.ParseNATPMPAnswer(d.ask(source, wire.AppendNATPMPRequest(nil, &r)))
	if err != nil {
		d.t.Fatalf("no answer to %+v: %v", r, err)
	}
	return a
}

func TestNATPMP_PCP36(t *testing.T) {
	d := newDesk(t)
	if a := d.natpmp(alice, wire.NATPMPRequest{}); a.Outside != public || a.Epoch != 3600 || a.Result != wire.NATPMPSuccess {
		t.Errorf("the outside address is told as %+v", a)
	}
	udp := wire.NATPMPRequest{Protocol: 17, InsidePort: 5000, OutsidePort: 60004, Lifetime: 7200}
	a := d.natpmp(alice, udp)
	if a.Result != wire.NATPMPSuccess || a.InsidePort != 5000 || a.OutsidePort != 60004 || a.Lifetime != 7200 {
		t.Errorf("the mapping is told as %+v", a)
	}
	tcp := udp
	tcp.Protocol, tcp.OutsidePort = 6, 0
	if a = d.natpmp(alice, tcp); a.Result != wire.NATPMPSuccess || a.Protocol != 6 {
		t.Errorf("the mapping of TCP is told as %+v", a)
	}
	udp.Lifetime = 60
	if a = d.natpmp(alice, udp); a.Lifetime != 60 { // the answer may not exceed the request
		t.Errorf("a short lifetime is told as %+v", a)
	}
	other := suggesting(mapping(5000, 600), "0.0.0.0:1")
	if p := d.do(alice, other); p.Result != wire.NotAuthorized {
		t.Errorf("PCP takes over a mapping of NAT-PMP: %v", p.Result)
	}
	udp.Lifetime, udp.OutsidePort = 0, 0
	if a = d.natpmp(alice, udp); a.Result != wire.NATPMPSuccess || a.OutsidePort != 0 || a.Lifetime != 0 || a.InsidePort != 5000 {
		t.Errorf("the deletion is told as %+v", a)
	}
	d.natpmp(alice, wire.NATPMPRequest{Protocol: 6})
	if list := d.twin.List(alice); len(list) != 0 {
		t.Errorf("left are %+v", list)
	}
}

func TestNATPMPRefused_PCP36(t *testing.T) {
	d := newDesk(t)
	if b := d.ask(alice, []byte{0, 128}); b != nil {
		t.Errorf("answer to an answer: %x", b)
	}
	if b := d.ask(alice, []byte{0, 1, 0, 0, 1}); b != nil {
		t.Errorf("answer to half a request: %x", b)
	}
	a, err := wire.ParseNATPMPAnswer(d.ask(alice, []byte{0, 5}))
	if err != nil || a.Result != wire.NATPMPUnsuppOpcode {
		t.Errorf("opcode 5 gets %+v, %v", a, err)
	}
	udp := wire.NATPMPRequest{Protocol: 17, InsidePort: 5000, Lifetime: 600}
	if a = d.natpmp(carol, udp); a.Result != wire.NATPMPNetworkFailure || a.InsidePort != 5000 || a.Lifetime != 0 {
		t.Errorf("an address that is not online gets %+v", a)
	}
	if a = d.natpmp(alice, wire.NATPMPRequest{Protocol: 17, Lifetime: 600}); a.Result != wire.NATPMPNotAuthorized {
		t.Errorf("port 0 gets %+v", a)
	}
	d.twin.ports = [2]uint16{60000, 60000}
	d.do(bob, mapping(1, 600))
	if a = d.natpmp(alice, udp); a.Result != wire.NATPMPNoResources {
		t.Errorf("without a free port: %+v", a)
	}
	d.twin.settings.Enabled = false
	for _, r := range []wire.NATPMPRequest{udp, {}} {
		if a = d.natpmp(alice, r); a.Result != wire.NATPMPNotAuthorized {
			t.Errorf("where PCP is off, %+v gets %+v", r, a)
		}
	}
	d.twin.settings.NATPMP = false
	for _, source := range []netip.Addr{alice, carol} { // readable as NAT-PMP's "unsupported version" too
		p, err := wire.ParseAnswer(d.ask(source, []byte{0, 0}))
		if err != nil || p.Result != wire.UnsuppVersion || p.Version != 2 {
			t.Errorf("where NAT-PMP is off: %+v, %v", p, err)
		}
	}
}

// TestCPEProbes_PCP35: how the gateway of a home asks for UPnP clients behind it (RFC 6970): short
// probes of a port, renewals at half of the life, deletions.
func TestCPEProbes_PCP35(t *testing.T) {
	d := newDesk(t)
	prefer := wire.Option{Code: wire.PreferFailure}
	d.do(bob, suggesting(mapping(80, 3600), "0.0.0.0:60001"))
	d.want(d.do(alice, suggesting(mapping(8080, 1, prefer), "0.0.0.0:60001")), wire.CannotProvideExternal, 30)
	probe := d.do(alice, suggesting(mapping(8080, 1, prefer), "0.0.0.0:60002"))
	d.want(probe, wire.Success, 120)
	for range 6 {
		d.pass(time.Duration(probe.Lifetime) * time.Second / 2)
		again := d.do(alice, suggesting(mapping(8080, 600, prefer), "198.51.100.1:60002"))
		if d.want(again, wire.Success, 600); again.Outside != probe.Outside {
			t.Errorf("renewed at %v", again.Outside)
		}
		probe = again
	}
	d.want(d.do(alice, mapping(8080, 0)), wire.Success, 0)
	if len(d.twin.List(alice)) != 0 {
		t.Error("the mapping outlives its deletion")
	}
}
