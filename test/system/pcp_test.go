package system

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/pcp/wire"
	"github.com/sessiond/sessiond/internal/rig"
)

// askPCP sends a request of PCP to the gateway, and returns the answer.
func (w *world) askPCP(inside netip.Addr, r wire.Request) wire.Answer {
	w.t.Helper()
	socket := w.socket(w.Lab.Subscriber, netip.AddrPortFrom(inside, 0))
	defer socket.Close()
	r.Client = inside
	request := wire.AppendRequest(nil, &r)
	server := netip.AddrPortFrom(netlab.InsideGateway.Addr(), wire.ServerPort)
	for buf := make([]byte, 2000); w.ctx.Err() == nil; {
		_, err := socket.WriteToUDPAddrPort(request, server)
		w.must(err)
		w.must(socket.SetReadDeadline(time.Now().Add(3 * time.Second))) // RFC 6887 section 8.1.1: then it is sent again
		n, from, err := socket.ReadFromUDPAddrPort(buf)
		if err != nil {
			continue
		}
		if from != server {
			w.t.Fatalf("the answer came from %v, want %v", from, server)
		}
		a, err := wire.ParseAnswer(buf[:n])
		w.must(err)
		return a
	}
	w.t.Fatal("no answer")
	return wire.Answer{}
}

func mapOf(port uint16, lifetime uint32) wire.Request {
	return wire.Request{Opcode: wire.Map, Lifetime: lifetime, Target: wire.Target{
		Nonce: wire.Nonce{7}, Protocol: 17, InsidePort: port, Outside: netip.MustParseAddrPort("0.0.0.0:0"),
	}}
}

// askedMapping asks for a mapping, which is granted.
func (w *world) askedMapping(inside netip.Addr, r wire.Request) wire.Answer {
	w.t.Helper()
	a := w.askPCP(inside, r)
	if a.Result != wire.Success || a.Lifetime != r.Lifetime || !a.Outside.IsValid() {
		w.t.Fatalf("the answer to %+v is %+v", r, a)
	}
	return a
}

// TestPCP_PCP11_PCP13_PCP20_PCP26_PCP31 goes through the whole program: what a client is granted is
// reached from outside with the answer, after kill -9 too, and by its renewals; it is gone with the
// record, for the next holder too. The operator sees it, and may end it.
func TestPCP_PCP11_PCP13_PCP20_PCP26_PCP31(t *testing.T) {
	w := start(t, rig.Options{PortRange: "1024-59999", Settings: "static_ports: 60000-60999, pcp: {enabled: true, min_lifetime: 2s, mappings: 4}"})
	w.online(sessionOf(alice, "a-1"))
	const soon, silence = 5 * time.Second, 700 * time.Millisecond
	subscriber := w.socket(w.Lab.Subscriber, netip.AddrPortFrom(alice, 5000))
	strangers := uint16(7300)
	reached := func(outside netip.AddrPort, at *net.UDPConn, within time.Duration) bool {
		w.t.Helper()
		strangers++
		host := w.socket(w.Lab.Internet, netip.AddrPortFrom(w.Lab.Remotes[1], strangers))
		_, ok := w.arrives(host, outside, at, within)
		return ok
	}
	first := w.askedMapping(alice, mapOf(5000, 600))
	if !reached(first.Outside, subscriber, soon) {
		t.Fatal("nobody reaches the mapping that was granted")
	}
	host := w.socket(w.Lab.Internet, netip.AddrPortFrom(w.Lab.Remotes[0], 7200))
	if seen, ok := w.arrives(subscriber, netip.AddrPortFrom(w.Lab.Remotes[0], 7200), host, soon); !ok || seen != first.Outside {
		t.Errorf("the subscriber is seen as %v, %t; want %v", seen, ok, first.Outside)
	}
	if list := w.ctl("mapping", "list"); !strings.Contains(list, "pcp") || !strings.Contains(list, first.Outside.String()) {
		t.Errorf("sessionctl mapping list:\n%s", list)
	}
	if explained := w.ctl("explain", alice.String()); !strings.Contains(explained, first.Outside.String()) {
		t.Errorf("sessionctl explain:\n%s", explained)
	}
	w.shows(`sessiond_mappings{group="default",kind="pcp"}`, "1")
	w.shows(`sessiond_pcp_requests_total{opcode="map",result="success"}`, "1")

	w.must(w.Daemon.Kill())
	if !reached(first.Outside, subscriber, soon) {
		t.Error("nobody reaches the mapping while no daemon runs")
	}
	w.must(w.Daemon.Start(w.ctx))
	if !reached(first.Outside, subscriber, soon) {
		t.Error("nobody reaches the mapping after a kill")
	}
	renewed := w.askedMapping(alice, mapOf(5000, 900))
	if renewed.Outside != first.Outside || renewed.Epoch < first.Epoch {
		t.Errorf("renewed: %+v, before the kill %+v", renewed, first)
	}
	w.ctl("reconcile")

	brief := w.askedMapping(alice, mapOf(5001, 2))
	w.must(w.Until(w.ctx, "the end of a short lifetime", func() (bool, error) {
		for line := range strings.Lines(w.ctl("mapping", "list")) {
			if strings.Contains(line, brief.Outside.String()) {
				return strings.Contains(line, "held"), nil
			}
		}
		return true, nil
	}))
	if reached(brief.Outside, w.socket(w.Lab.Subscriber, netip.AddrPortFrom(alice, 5001)), silence) {
		t.Error("a mapping is reached after its lifetime")
	}
	gone := w.askedMapping(alice, mapOf(5002, 600))
	w.ctl("mapping", "delete", gone.Outside.String(), "--protocol", "udp", "--yes")
	if reached(gone.Outside, w.socket(w.Lab.Subscriber, netip.AddrPortFrom(alice, 5002)), silence) {
		t.Error("a mapping is reached after the operator has deleted it")
	}

	w.must(w.Offline(w.ctx, sessionOf(alice, "a-1")))
	w.gone(alice)
	if reached(first.Outside, subscriber, silence) {
		t.Error("the mapping is reached after the session")
	}
	w.online(sessionOf(alice, "a-2"))
	if reached(first.Outside, subscriber, silence) {
		t.Error("the next session has the mapping of the last one")
	}
	if a := w.askedMapping(alice, mapOf(5005, 600)); a.Epoch >= renewed.Epoch && renewed.Epoch > 5 {
		t.Errorf("the epoch of the next session is %d, of the last one it was %d", a.Epoch, renewed.Epoch)
	}
}
