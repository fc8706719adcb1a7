package nftnat

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/lsn"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/netlab"
)

// liveFlow is a flow with the port that its far end saw at first.
type liveFlow struct {
	*netlab.Flow
	inside netip.Addr
}

// TestFlowsKeepTheirPorts_NAT35_NAT01_I5 makes 100 random growths and shrinks under live flows. No
// flow changes its outside port, and its inside port keeps that towards a new destination; new
// ones get ports of the range that is programmed; a block is given back only when conntrack has
// no entry in it.
func TestFlowsKeepTheirPorts_NAT35_NAT01_I5(t *testing.T) {
	w := newWireTestWith(t, pinned)
	e, err := lsn.New([]lsn.GroupConfig{{
		Name: "g", Inside: []netip.Prefix{netip.MustParsePrefix("100.64.0.0/10")}, Outside: []netip.Prefix{netip.PrefixFrom(eip, 32)},
		FirstPort: 1024, LastPort: 1024 + 20*64 - 1, BlockSize: 64, MaxBlocks: 3, Hold: time.Second,
	}})
	if err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(1, 100))
	now := time.Now()
	programmed := map[netip.Addr]nat.Block{}
	program := func(inside netip.Addr, r nat.Block) {
		t.Helper()
		w.pinOutside(t, inside, r)
		apply(t, w, nat.Entry{Inside: inside, Gate: nat.GateOpen, Block: r})
		programmed[inside] = r
	}
	insides := []netip.Addr{alice, bob}
	for _, inside := range insides {
		b, err := e.Allocate("g", nat.Holder{Inside: inside, Identity: inside.String()}, now)
		if err != nil {
			t.Fatal(err)
		}
		program(inside, b.Range())
	}
	var flows []liveFlow
	open := func(inside netip.Addr) {
		t.Helper()
		f := w.flow(t, inside)
		if !programmed[inside].Contains(f.Source().Addr(), nat.Port(f.Source().Port())) {
			t.Fatalf("a new flow of %v is seen from %v, want ports %v", inside, f.Source(), programmed[inside])
		}
		flows = append(flows, liveFlow{f, inside})
	}
	for range 6 {
		open(alice)
		open(bob)
	}
	stop := keepSending(t, flows[0].Flow)
	defer stop()

	grown, inPlace, shrunk := 0, 0, 0
	probed := uint16(10_000) // the last of the new destinations
	for n := 0; grown+shrunk < 100; n++ {
		inside := insides[rnd.IntN(2)]
		now = now.Add(time.Second)
		e.Advance(now, nil, nil)
		b, _ := e.Live("g", inside)
		if b.Len() < 3 && rnd.IntN(2) == 0 {
			g, err := e.Grow("g", inside, b.Range(), now)
			if err != nil {
				t.Fatal(err)
			}
			program(inside, g.Range())
			if grown++; g.InPlace() {
				inPlace++
			}
		} else if b.Len() > 1 {
			newest := b.Newest()
			program(inside, b.Older().Range())
			w.endFlowsIn(t, &flows, inside, newest)
			if vacant, err := w.Vacant(testContext(t), inside, newest); err != nil || !vacant {
				t.Fatalf("ports %d-%d are vacant: %t, %v", newest.First, newest.Last, vacant, err)
			}
			w.noConntrackIn(t, newest)
			if _, _, err := e.Shrink("g", inside, now); err != nil {
				t.Fatal(err)
			}
			shrunk++
		}
		open(inside)
		for _, f := range flows {
			if out, in := f.Probe(5 * time.Second); !out || !in {
				t.Fatalf("after %d growths and %d shrinks the flow of %v seen from %v passes out: %t, in: %t", grown, shrunk, f.inside, f.Source(), out, in)
			}
		}
		for _, f := range flows {
			if f.inside == inside {
				probed++
				w.wantSamePort(t, f, probed)
			}
		}
		w.wantNoLeak(t, alice)
		w.wantNoLeak(t, bob)
		w.capture.Clear()
		if len(flows) > 30 { // but never the first one
			i := 1 + rnd.IntN(len(flows)-1)
			w.endFlow(t, flows[i])
			flows = slices.Delete(flows, i, i+1)
		}
		if err := e.Check(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d growths, %d of them in place, %d shrinks; %d flows live at the end", grown, inPlace, shrunk, len(flows))
	if grown < 30 || shrunk < 30 {
		t.Errorf("%d growths and %d shrinks", grown, shrunk)
	}
	listing := run(t, w.Lab, "conntrack", "-L", "-p", "tcp")
	for _, f := range flows {
		if want := fmt.Sprintf("dst=%v sport=", f.Source().Addr()); !strings.Contains(listing, want) || !strings.Contains(listing, fmt.Sprintf("dport=%d ", f.Source().Port())) {
			t.Errorf("conntrack does not list the flow seen from %v:\n%s", f.Source(), listing)
		}
	}
}

// pinOutside pins the ports of sessions outside of a range to blocks of 64.
func (w wireTest) pinOutside(t *testing.T, inside netip.Addr, r nat.Block) {
	t.Helper()
	var pins []nat.Pin
	_, err := w.SettledSessionsOf(testContext(t), inside, func(s Session) error {
		if at := nat.Port(s.Outside.Port()); !r.Contains(s.Outside.Addr(), at) {
			first := at &^ 63
			pins = append(pins, nat.Pin{Protocol: s.Protocol, Port: nat.Port(s.Inside.Port()), Block: nat.Block{Outside: eip, First: first, Last: first + 63}})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	setPins(t, w, inside, pins...)
}

// wantSamePort opens a connection from the inside port of a flow to a new destination.
func (w wireTest) wantSamePort(t *testing.T, f liveFlow, port uint16) {
	t.Helper()
	to := netip.AddrPortFrom(w.Remotes[1], port)
	if err := w.Subscriber.Send(netlab.Packet{Source: f.Inside.Local(), Destination: to, Protocol: netlab.TCP, Flags: netlab.SYN}); err != nil {
		t.Fatal(err)
	}
	p, err := w.capture.Await(testContext(t), func(p netlab.Packet) bool { return p.Destination == to })
	if err != nil || p.Source != f.Source() {
		t.Fatalf("the inside port of the flow seen from %v is seen towards a new destination from %v, %v", f.Source(), p.Source, err)
	}
}

// endFlow ends a flow, and its conntrack entry, as an idle timeout would.
func (w wireTest) endFlow(t *testing.T, f liveFlow) {
	t.Helper()
	inside := f.Inside.Local() // several flows may share an outside port
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	err := w.SessionsOf(testContext(t), netip.PrefixFrom(f.inside, 32), func(s Session) error {
		if s.Protocol == unix.IPPROTO_TCP && s.Inside == inside {
			return w.KillSession(testContext(t), s)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// endFlowsIn ends the flows of an address in a block, except the first one of all: its own
// block is never the newest of several.
func (w wireTest) endFlowsIn(t *testing.T, flows *[]liveFlow, inside netip.Addr, b nat.Block) {
	t.Helper()
	var kept []liveFlow
	for _, f := range *flows {
		if f.inside == inside && b.Contains(f.Source().Addr(), nat.Port(f.Source().Port())) {
			w.endFlow(t, f)
			continue
		}
		kept = append(kept, f)
	}
	*flows = kept
}

// noConntrackIn checks that conntrack lists no entry with a port of a block.
func (w wireTest) noConntrackIn(t *testing.T, b nat.Block) {
	t.Helper()
	listing := run(t, w.Lab, "conntrack", "-L")
	for _, found := range regexp.MustCompile(fmt.Sprintf(`dst=%v sport=\d+ dport=(\d+) `, b.Outside)).FindAllStringSubmatch(listing, -1) {
		if port, err := strconv.Atoi(found[1]); err != nil || b.Contains(b.Outside, nat.Port(port)) {
			t.Errorf("conntrack has port %d:\n%s", port, listing)
		}
	}
}
