package pcp

import (
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/pcp/wire"
)

// A desk is a Responder over a twin, at a time that the test sets.
type desk struct {
	*Responder
	t      *testing.T
	twin   *twin
	counts *counts
	now    Moment
}

func newDesk(t *testing.T) *desk {
	d := &desk{t: t, counts: newCounts(), now: Moment{Wall: began, Uptime: time.Minute}}
	d.twin = newTwin(func() time.Time { return d.now.Wall })
	d.Responder = NewResponder(d.twin, d.counts, slog.New(slog.DiscardHandler))
	return d
}

// pass lets time pass.
func (d *desk) pass(by time.Duration) {
	d.now.Wall, d.now.Uptime = d.now.Wall.Add(by), d.now.Uptime+by
}

// ask sends octets from an address by an inside interface.
func (d *desk) ask(source netip.Addr, octets []byte) []byte {
	return d.Answer(d.t.Context(), &Datagram{octets, netip.AddrPortFrom(source, 40000), gateway, true}, d.now)
}

// do sends a request, and reads its answer.
func (d *desk) do(source netip.Addr, r *wire.Request) wire.Answer {
	d.t.Helper()
	if !r.Client.IsValid() {
		r.Client = source
	}
	a, err := wire.ParseAnswer(d.ask(source, wire.AppendRequest(nil, r)))
	if err != nil {
		d.t.Fatalf("no answer to %+v: %v", r, err)
	}
	return a
}

// mapping returns a request of MAP for UDP.
func mapping(port uint16, lifetime uint32, options ...wire.Option) *wire.Request {
	return &wire.Request{Opcode: wire.Map, Lifetime: lifetime, Options: options, Target: wire.Target{Nonce: nonceOf(1), Protocol: 17, InsidePort: port}}
}

// suggesting lets a request suggest an outside port.
func suggesting(r *wire.Request, outside string) *wire.Request {
	r.Outside = netip.MustParseAddrPort(outside)
	return r
}

func peering(port uint16, lifetime uint32) *wire.Request {
	r := mapping(port, lifetime)
	r.Opcode, r.Remote = wire.Peer, remote
	return r
}

func (d *desk) want(a wire.Answer, result wire.Result, lifetime uint32) {
	d.t.Helper()
	if a.Result != result || a.Lifetime != lifetime {
		d.t.Errorf("%v for %d s, want %v for %d s", a.Result, a.Lifetime, result, lifetime)
	}
}

func TestMap_PCP11_PCP13_PCP19(t *testing.T) {
	d := newDesk(t)
	first := d.do(alice, mapping(5000, 3600))
	d.want(first, wire.Success, 3600)
	if first.Outside != netip.AddrPortFrom(public, 60000) || first.InsidePort != 5000 || first.Nonce != nonceOf(1) {
		t.Errorf("the mapping is %+v", first.Target)
	}
	d.pass(time.Minute)
	again := d.do(alice, suggesting(mapping(5000, 7200), "198.51.100.1:60005"))
	d.want(again, wire.Success, 7200)
	if again.Outside != first.Outside {
		t.Errorf("renewed at %v, want %v", again.Outside, first.Outside)
	}
	if list := d.twin.List(alice); len(list) != 1 || list[0].Protocol != 17 {
		t.Errorf("the mappings are %+v, want one of UDP", list)
	}
	if n := d.counts.of("map", "success"); n != 2 {
		t.Errorf("%d counted", n)
	}
}

func TestNonce_PCP14(t *testing.T) {
	d := newDesk(t)
	granted := d.do(alice, mapping(5000, 3600))
	d.pass(10 * time.Minute)
	other := mapping(5000, 7200)
	other.Nonce = nonceOf(2)
	d.want(d.do(alice, other), wire.NotAuthorized, 3000) // what remains
	other.Lifetime = 0
	d.want(d.do(alice, other), wire.NotAuthorized, 3000)
	if list := d.twin.List(alice); len(list) != 1 || list[0].Nonce != nonceOf(1) || d.counts.mismatches != 2 {
		t.Errorf("after another nonce: %+v, %d mismatches", list, d.counts.mismatches)
	}
	d.twin.settings.LenientNonce = true
	other.Lifetime = 7200
	renewed := d.do(alice, other)
	if d.want(renewed, wire.Success, 7200); renewed.Outside != granted.Outside || d.counts.mismatches != 3 {
		t.Errorf("a lenient group renewed at %v, %d mismatches", renewed.Outside, d.counts.mismatches)
	}
	other.Lifetime, other.Nonce = 0, nonceOf(3)
	d.want(d.do(alice, other), wire.Success, 0)
	if list := d.twin.List(alice); len(list) != 0 {
		t.Errorf("a lenient group kept %+v", list)
	}
}

func TestSuggestions_PCP16_PCP17(t *testing.T) {
	d := newDesk(t)
	taken := d.do(bob, suggesting(mapping(1, 600), "198.51.100.1:60003"))
	if taken.Outside.Port() != 60003 {
		t.Errorf("a free port was suggested, and %v granted", taken.Outside)
	}
	prefer := wire.Option{Code: wire.PreferFailure}
	for i, outside := range []string{"198.51.100.1:60003", "203.0.113.1:60001", "198.51.100.1:80", "198.51.100.1:5351", "[2001:db8::1]:7"} {
		a := d.do(alice, suggesting(mapping(uint16(6000+i), 600, prefer), outside))
		d.want(a, wire.CannotProvideExternal, 30)
		if a = d.do(alice, suggesting(mapping(7000, 600), outside)); a.Result != wire.Success || a.Outside.Addr() != public {
			t.Errorf("with %s suggested: %v %v", outside, a.Result, a.Outside)
		}
		d.do(alice, mapping(7000, 0))
	}
	a := d.do(alice, suggesting(mapping(5000, 600, prefer), "0.0.0.0:60002"))
	if d.want(a, wire.Success, 600); a.Outside.Port() != 60002 || !slices.Equal(a.Options, []wire.Option{prefer}) {
		t.Errorf("%v, options %v", a.Outside, a.Options)
	}
	d.want(d.do(alice, suggesting(mapping(5000, 600, prefer), "0.0.0.0:60004")), wire.CannotProvideExternal, 30)
}

func TestNoPort_PCP17(t *testing.T) {
	d := newDesk(t)
	d.twin.ports = [2]uint16{60000, 60000}
	d.do(alice, mapping(1, 600))
	d.want(d.do(bob, mapping(1, 600)), wire.NoResources, 30)
}

func TestLifetimes_PCP20(t *testing.T) {
	d := newDesk(t)
	for asked, want := range map[uint32]uint32{1: 120, 120: 120, 3600: 3600, 86400: 86400, 86401: 86400, 1<<32 - 1: 86400} {
		d.want(d.do(alice, mapping(5000, asked)), wire.Success, want)
	}
	d.twin.mu.Lock()
	c := d.twin.online[alice]
	c.Until = began.Add(10 * time.Minute)
	d.twin.online[alice] = c
	d.twin.mu.Unlock()
	d.want(d.do(alice, mapping(5000, 3600)), wire.Success, 600) // no longer than its record
	d.pass(9 * time.Minute)
	d.want(d.do(alice, mapping(5000, 3600)), wire.Success, 60)
}

// TestWaiting_PCP20: a request that has waited is granted no more than it asked for.
func TestWaiting_PCP20(t *testing.T) {
	d := newDesk(t)
	d.twin.now = func() time.Time { return d.now.Wall.Add(7 * time.Second) }
	d.want(d.do(alice, mapping(5000, 600)), wire.Success, 600)
	d.want(d.do(alice, mapping(5000, 1<<30)), wire.Success, 86400)
}

func TestDeletions_PCP21(t *testing.T) {
	d := newDesk(t)
	d.do(alice, mapping(5000, 3600))
	a := d.do(alice, suggesting(mapping(5000, 0), "192.0.2.1:99"))
	if d.want(a, wire.Success, 0); a.Outside.String() != "192.0.2.1:99" {
		t.Errorf("the suggestion came back as %v", a.Outside)
	}
	d.want(d.do(alice, mapping(5000, 0)), wire.Success, 0) // there is none
	d.twin.mappings[alice] = []Mapping{
		{Inside: netip.AddrPortFrom(alice, 22), Protocol: 17, Outside: netip.MustParseAddrPort("198.51.100.1:22"), Static: true},
	}
	d.want(d.do(alice, mapping(22, 0)), wire.NotAuthorized, 1800)
	if a = d.do(alice, mapping(22, 3600)); a.Result != wire.Success || a.Lifetime != 3600 || a.Outside.Port() != 22 {
		t.Errorf("the operator's mapping is told as %+v", a)
	}
	d.do(alice, mapping(5000, 3600))
	d.do(alice, mapping(5001, 3600))
	other := mapping(5002, 3600)
	other.Nonce = nonceOf(2)
	d.do(alice, other)
	d.want(d.do(alice, mapping(0, 0)), wire.Success, 0) // all of UDP, by their nonce
	if list := d.twin.List(alice); len(list) != 2 || !list[0].Static || list[1].Nonce != nonceOf(2) {
		t.Errorf("left are %+v", list)
	}
	d.want(d.do(alice, mapping(0, 0)), wire.NotAuthorized, 1800)
}

func TestQuota_PCP24(t *testing.T) {
	d := newDesk(t)
	for port := range uint16(4) {
		d.want(d.do(alice, mapping(5000+port, 3600)), wire.Success, 3600)
	}
	d.want(d.do(alice, mapping(6000, 3600)), wire.UserExQuota, 30)
	d.want(d.do(bob, mapping(6000, 3600)), wire.Success, 3600)
	d.want(d.do(alice, mapping(5000, 7200)), wire.Success, 7200)
}

// TestNotOnline_PCP25: an address of the group without a session is told to come again soon.
func TestNotOnline_PCP25(t *testing.T) {
	d := newDesk(t)
	d.want(d.do(carol, mapping(5000, 3600)), wire.NetworkFailure, 30)
	d.want(d.do(carol, &wire.Request{Opcode: wire.Announce}), wire.NetworkFailure, 30)
	for range offlineBurst {
		d.ask(carol, wire.AppendRequest(nil, &wire.Request{Client: carol}))
	}
	if n := d.counts.of("announce", OutcomeRateLimited); n != 2 {
		t.Errorf("%d of %d are limited", n, offlineBurst+2)
	}
	if len(d.clients.states) != 0 || d.twin.changes != 0 {
		t.Error("an address that is not online left a trace")
	}
	d.twin.settings.Enabled = false
	d.want(d.do(alice, mapping(5000, 3600)), wire.NotAuthorized, 1800)
	d.twin.settings.Enabled, d.twin.settings.Map = true, false
	d.want(d.do(alice, mapping(5000, 3600)), wire.NotAuthorized, 1800)
}

// TestSessionEnds_PCP26: the next holder of an address gets a mapping of its own, and an epoch.
func TestSessionEnds_PCP26_PCP31(t *testing.T) {
	d := newDesk(t)
	first := d.do(alice, mapping(5000, 3600))
	d.twin.setOffline(alice)
	d.want(d.do(alice, mapping(5000, 3600)), wire.NetworkFailure, 30)
	d.pass(time.Minute)
	d.twin.setOnline(alice, d.now.Wall.Add(-10*time.Second))
	next := mapping(5000, 0)
	next.Nonce = nonceOf(2)
	a := d.do(alice, next)
	if d.want(a, wire.Success, 0); a.Epoch != 10 || first.Epoch != 3600 {
		t.Errorf("epochs %d and %d, want 3600 and 10", first.Epoch, a.Epoch)
	}
}

func TestPeer_PCP27(t *testing.T) {
	d := newDesk(t)
	flow := FlowRequest{netip.AddrPortFrom(alice, 5000), 17, remote}
	d.twin.flows[flow] = Flow{netip.MustParseAddrPort("198.51.100.1:2000"), 290 * time.Second}
	a := d.do(alice, peering(5000, 3600))
	if d.want(a, wire.Success, 290); a.Outside.Port() != 2000 || a.Remote != remote {
		t.Errorf("the session is told as %+v", a.Target)
	}
	mapped := d.do(alice, mapping(5001, 3600))
	if a = d.do(alice, peering(5001, 120)); a.Outside != mapped.Outside || a.Lifetime != 3600 {
		t.Errorf("a mapped port is told as %+v", a)
	}
	if a = d.do(alice, peering(5001, 7200)); a.Outside != mapped.Outside || a.Lifetime != 7200 {
		t.Errorf("a mapping is prolonged to %+v", a)
	}
	d.want(d.do(alice, peering(5001, 0)), wire.Success, 7200) // it shortens no life
	a = d.do(alice, peering(5002, 600))
	list := d.twin.List(alice)
	if made, ok := find(list, 17, 5002); a.Result != wire.Success || !ok || made.Peer != remote || made.Outside != a.Outside {
		t.Errorf("a new session gets %+v, of %+v", a, list)
	}
	d.want(d.do(alice, mapping(5002, 0)), wire.NotAuthorized, 1800)
	other := peering(5001, 600)
	other.Nonce = nonceOf(2)
	d.want(d.do(alice, other), wire.NotAuthorized, 7200)
	d.twin.ports = [2]uint16{60000, 60001}
	d.want(d.do(bob, peering(5000, 600)), wire.CannotProvideExternal, 30)
	d.twin.settings.Peer = false
	d.want(d.do(alice, peering(5000, 600)), wire.NotAuthorized, 1800)
}

func TestThirdParty_PCP28(t *testing.T) {
	d := newDesk(t)
	forBob := wire.Option{Code: wire.ThirdParty, Inside: bob}
	d.want(d.do(alice, mapping(5000, 3600, forBob)), wire.UnsuppOption, 1800)
	fromPortal := func(r *wire.Request) []byte {
		r.Client = portal
		return d.Answer(t.Context(), &Datagram{wire.AppendRequest(nil, r), netip.AddrPortFrom(portal, 4000), gateway, false}, d.now)
	}
	if b := fromPortal(mapping(5000, 3600, forBob)); b != nil {
		t.Errorf("answer to a stranger: %x", b)
	}
	d.twin.settings.ThirdParty = []netip.Prefix{netip.PrefixFrom(portal, 32), netip.PrefixFrom(alice, 32)}
	d.want(d.do(alice, mapping(5000, 3600, forBob)), wire.Success, 3600)
	if list := d.twin.List(bob); len(list) != 1 || len(d.twin.List(alice)) != 0 {
		t.Errorf("bob has %v", list)
	}
	a, err := wire.ParseAnswer(fromPortal(mapping(5000, 0, forBob)))
	if err != nil || a.Result != wire.Success || len(d.twin.List(bob)) != 0 || a.Epoch != 60 {
		t.Errorf("the portal gets %+v, %v", a, err)
	}
	d.want(d.do(alice, mapping(5000, 3600, wire.Option{Code: wire.ThirdParty, Inside: carol})), wire.NetworkFailure, 30)
	d.want(d.do(alice, mapping(5000, 3600, wire.Option{Code: wire.ThirdParty, Inside: portal})), wire.UnsuppOption, 1800)
	for _, b := range [][]byte{fromPortal(mapping(5000, 3600)), fromPortal(&wire.Request{Opcode: wire.Announce})} {
		if b != nil {
			t.Errorf("the portal asks for itself, and gets %x", b)
		}
	}
	request := mapping(5000, 3600, forBob)
	request.Client = portal
	if b := d.ask(portal, wire.AppendRequest(nil, request)); b != nil || len(d.twin.List(bob)) != 0 {
		t.Errorf("a subscriber that sends from the portal's address gets %x", b)
	}
}

func TestFilters_PCP29(t *testing.T) {
	d := newDesk(t)
	filter := func(prefix string) wire.Option {
		return wire.Option{Code: wire.FilterOption, Filter: wire.Filter{Prefix: netip.MustParsePrefix(prefix), Port: 443}}
	}
	filters := func() (list []string) {
		for _, f := range d.twin.List(alice)[0].Filters {
			list = append(list, f.Prefix.String())
		}
		return list
	}
	a := d.do(alice, mapping(5000, 600, filter("203.0.113.0/24")))
	if d.want(a, wire.Success, 600); len(a.Options) != 1 || !slices.Equal(filters(), []string{"203.0.113.0/24"}) {
		t.Errorf("filters %v, answer %+v", filters(), a)
	}
	d.want(d.do(alice, mapping(5000, 600, filter("192.0.2.0/24"), filter("203.0.113.0/24"))), wire.Success, 600)
	if !slices.Equal(filters(), []string{"203.0.113.0/24", "192.0.2.0/24"}) {
		t.Errorf("added to %v", filters())
	}
	d.want(d.do(alice, mapping(5000, 1200, filter("198.18.0.0/15"))), wire.ExcessiveRemotePeers, 1800)
	if len(filters()) != 2 {
		t.Errorf("a refused filter left %v", filters())
	}
	d.want(d.do(alice, mapping(5000, 600, wire.Option{Code: wire.FilterOption}, filter("198.18.0.0/15"))), wire.Success, 600)
	if !slices.Equal(filters(), []string{"198.18.0.0/15"}) {
		t.Errorf("cleared to %v", filters())
	}
	d.twin.settings.Filters = 0
	d.want(d.do(alice, mapping(5000, 600, filter("192.0.2.0/24"))), wire.UnsuppOption, 1800)
}

func TestAnnounce_PCP30_PCP31(t *testing.T) {
	d := newDesk(t)
	a := d.do(alice, &wire.Request{Opcode: wire.Announce, Lifetime: 77})
	if d.want(a, wire.Success, 0); a.Epoch != 3600 {
		t.Errorf("epoch %d", a.Epoch)
	}
	d.want(d.do(alice, &wire.Request{Opcode: wire.Announce, Client: bob}), wire.AddressMismatch, 1800)
}

// TestEpoch_PCP31: the epoch counts seconds, whatever is done to the wall clock; it begins anew
// with the binding, and a restart that kept the binding goes on.
func TestEpoch_PCP31(t *testing.T) {
	d := newDesk(t)
	epoch := func() uint32 { return d.do(bob, &wire.Request{Opcode: wire.Announce}).Epoch }
	if e := epoch(); e != 60 {
		t.Fatalf("epoch %d, want 60", e)
	}
	d.pass(100 * time.Second)
	d.now.Wall = d.now.Wall.Add(-24 * time.Hour)
	if e := epoch(); e != 160 {
		t.Errorf("epoch %d after the clock was put back, want 160", e)
	}
	d.now.Wall = d.now.Wall.Add(48 * time.Hour)
	if e := epoch(); e != 160 {
		t.Errorf("epoch %d after the clock was put forward, want 160", e)
	}
	d.now.Wall = d.now.Wall.Add(-24 * time.Hour)
	if a := d.do(bob, mapping(0, 600)); a.Result != wire.UnsuppProtocol || a.Epoch != 160 {
		t.Errorf("epoch %d in an error", a.Epoch)
	}
	restarted := NewResponder(d.twin, d.counts, d.log)
	d.now.Uptime = 0
	d.Responder = restarted
	if e := epoch(); e != 160 {
		t.Errorf("epoch %d after a restart, want 160", e)
	}
	d.twin.setOnline(bob, d.now.Wall)
	d.pass(5 * time.Second)
	if e := epoch(); e != 5 {
		t.Errorf("epoch %d after a loss, want 5", e)
	}
}

// TestUnavailable_PCP10: without Redis nothing is promised.
func TestUnavailable_PCP10(t *testing.T) {
	d := newDesk(t)
	for err, want := range map[error]wire.Result{
		ErrUnavailable: wire.NoResources, ErrNotOnline: wire.NetworkFailure, ErrQuota: wire.UserExQuota, ErrNotAuthorized: wire.NotAuthorized, errors.New("kernel"): wire.NoResources,
	} {
		d.twin.fails = err
		for _, r := range []*wire.Request{mapping(5000, 3600), mapping(5000, 0)} {
			if a := d.do(alice, r); a.Result != want || a.Lifetime != uint32(want.Lifetime()/time.Second) {
				t.Errorf("%v becomes %v for %d s, want %v", err, a.Result, a.Lifetime, want)
			}
		}
	}
}

// TestRate_PCP10: a client that asks too often gets no answer, and others do.
func TestRate_PCP10_I10(t *testing.T) {
	d := newDesk(t)
	request := wire.AppendRequest(nil, &wire.Request{Client: alice})
	answered := 0
	for range 1000 {
		if d.ask(alice, request) != nil {
			answered++
		}
	}
	if answered != clientBurst || d.counts.of("announce", OutcomeRateLimited) != 1000-clientBurst {
		t.Errorf("%d answered, %d limited", answered, d.counts.of("announce", OutcomeRateLimited))
	}
	d.want(d.do(bob, mapping(5000, 600)), wire.Success, 600)
	d.pass(time.Second)
	d.want(d.do(alice, mapping(5000, 600)), wire.Success, 600)
	d.pass(time.Hour)
	for range clientBurst / peerCost {
		d.want(d.do(alice, peering(5000, 600)), wire.Success, 600)
	}
	if b := d.ask(alice, request); b != nil {
		t.Error("PEER, which reads sessions, costs no more than others")
	}
}

// TestForgotten: a client that is gone, or idle without mappings, takes no memory.
func TestForgotten_I10(t *testing.T) {
	d := newDesk(t)
	d.do(alice, mapping(5000, 86400))
	d.do(bob, &wire.Request{Opcode: wire.Announce})
	d.pass(idleTime - time.Second)
	if d.forget(d.now); len(d.clients.states) != 2 {
		t.Errorf("%d clients known, want 2", len(d.clients.states))
	}
	d.pass(time.Second)
	if d.forget(d.now); d.clients.find(alice) == nil || d.clients.find(bob) != nil {
		t.Errorf("known are %v", d.clients.states)
	}
	d.twin.setOffline(alice)
	if d.forget(d.now); len(d.clients.states) != 0 {
		t.Errorf("known are %v", d.clients.states)
	}
}
