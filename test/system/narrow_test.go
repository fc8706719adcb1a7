package system

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/conntrack"
	"github.com/sessiond/sessiond/internal/conntrack/conntracktest"
	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/rig"
)

// flowSender sends first packets of UDP flows of alice, and sees the ports that they get.
type flowSender struct {
	*world
	capture *netlab.Capture
	remote  netip.AddrPort
}

// begin sends one packet from each inside port to a remote endpoint, and returns the outside
// endpoints of those that left.
func (f *flowSender) begin(ports []uint16, remote netip.AddrPort) map[uint16]netip.AddrPort {
	f.t.Helper()
	f.capture.Clear()
	for _, port := range ports {
		f.must(f.Lab.Subscriber.Send(netlab.Packet{
			Source: netip.AddrPortFrom(alice, port), Destination: remote, Protocol: netlab.UDP, Payload: binary.BigEndian.AppendUint16(nil, port),
		}))
	}
	f.settle()
	seen := map[uint16]netip.AddrPort{}
	for _, p := range f.capture.Packets() {
		if len(p.Payload) == 2 && p.Protocol == netlab.UDP && p.Destination == remote {
			seen[binary.BigEndian.Uint16(p.Payload)] = p.Source
		}
	}
	return seen
}

// settle sends a datagram of one and the same flow, and waits until it is captured: then all
// earlier packets are captured too.
func (f *flowSender) settle() {
	f.t.Helper()
	mark := rand.Text()
	f.must(f.Lab.Subscriber.Send(netlab.Packet{
		Source: netip.AddrPortFrom(alice, 9000), Destination: netip.AddrPortFrom(f.Lab.Remotes[1], 9), Protocol: netlab.UDP, Payload: []byte(mark),
	}))
	ctx, cancel := context.WithTimeout(f.ctx, 20*time.Second)
	defer cancel()
	_, err := f.capture.Await(ctx, func(p netlab.Packet) bool { return string(p.Payload) == mark })
	f.must(err)
}

// found returns how many of some new flows to the remote endpoint get a port. Each is ended before
// the next ones.
func (f *flowSender) found(first uint16, flows int) (found int) {
	f.t.Helper()
	for port := first; port < first+uint16(flows); port += 2 {
		var ended []conntrack.Entry
		for inside, outside := range f.begin([]uint16{port, port + 1}, f.remote) {
			ended = append(ended, conntracktest.Outbound(netip.AddrPortFrom(alice, inside), outside, f.remote))
		}
		conntracktest.Remove(f.t, f.Lab.CGN.Path(), ended)
		found += len(ended)
	}
	return found
}

// TestFreePortsAreFound_NAT35_NAT01_I7: of a block of 1,024 ports all but 21 lead to one remote
// endpoint, and the free ones lie together. Before sessiond looks nf_nat finds them for some new
// flows; then for all. A burst towards another endpoint has the whole block. Standing flows, and
// their inside ports towards others, keep their ports, and kill -9 changes nothing of that.
func TestFreePortsAreFound_NAT35_NAT01_I7(t *testing.T) {
	w := start(t, rig.Options{Lab: sharedAddress, BlockSize: 1024})
	b := w.online(sessionOf(alice, "a"))
	c, err := w.Lab.CGN.Capture(netlab.OutsideInterface)
	w.must(err)
	t.Cleanup(func() { _ = c.Close() })
	f := &flowSender{w, c, netip.AddrPortFrom(w.Lab.Remotes[0], 7000)}

	w.must(w.Daemon.Kill())
	outside := netip.MustParseAddr(b.OutsideAddress)
	var entries []conntrack.Entry
	for i := range uint16(903) {
		entries = append(entries, conntracktest.Outbound(netip.AddrPortFrom(alice, 10_000+i), netip.AddrPortFrom(outside, uint16(b.FirstPort)+i), f.remote))
	}
	conntracktest.Inject(t, w.Lab.CGN.Path(), entries)
	standing := map[uint16]netip.AddrPort{}
	for port := uint16(20_000); len(standing) < 100; port++ {
		for inside, at := range f.begin([]uint16{port}, f.remote) {
			standing[inside] = at
		}
	}
	const flows = 80
	before := f.found(40_000, flows)

	element := regexp.MustCompile(fmt.Sprintf(`udp \. %v \. %v \. %d : %v \. (\d+-\d+)`, alice, f.remote.Addr(), f.remote.Port(), b.OutsideAddress))
	narrowed := func() (part string) {
		w.must(w.Until(w.ctx, "new flows to get ports of a part of the block", func() (bool, error) {
			out, err := w.Lab.CGN.Output(w.ctx, "nft", "list", "map", "ip", "sessiond", "narrowed")
			if m := element.FindStringSubmatch(string(out)); m != nil {
				part = m[1]
			}
			return part != "", err
		}))
		return part
	}
	keep := func(when string, host int, port uint16) {
		t.Helper()
		w.must(w.Until(w.ctx, when+", inside ports to keep their outside port", func() (bool, error) {
			port++
			for inside, at := range standing {
				if again := f.begin([]uint16{inside}, netip.AddrPortFrom(w.Lab.Remotes[host], port)); again[inside] != at {
					t.Logf("%s: port %d has %v, and gets %v", when, inside, at, again[inside])
					return false, nil
				}
			}
			return true, nil
		}))
	}
	w.must(w.Daemon.Start(w.ctx))
	part := narrowed()
	keep("in a part of the block", 0, 8000)
	after := f.found(50_000, flows)
	t.Logf("of %d new flows %d get a port in the whole block, %d in the part %s", flows, before, after, part)
	if after < flows-2 { // a packet may be lost on a busy machine
		t.Errorf("%d of %d new flows get a port", after, flows)
	}
	var burst []uint16
	for port := range uint16(400) {
		burst = append(burst, 52_000+port)
	}
	if n := len(f.begin(burst, netip.AddrPortFrom(w.Lab.Remotes[1], 8888))); n < len(burst)-4 {
		t.Errorf("of %d new flows to another endpoint %d get a port", len(burst), n)
	}
	if before > flows*3/4 {
		t.Errorf("%d of %d new flows get a port in the whole block: the layout shows nothing", before, flows)
	}

	w.must(w.Daemon.Kill())
	keep("after a kill", 0, 9000)
	w.must(w.Daemon.Start(w.ctx))
	narrowed()
	keep("after a start", 0, 9500)
	if out := w.ctl("-o", "json", "reconcile", "--dry-run"); out != "" {
		t.Errorf("there is drift:\n%s", out)
	}
	for _, at := range standing {
		if out := w.ctl("binding", "lookup", at.String()); !strings.Contains(out, alice.String()) {
			t.Fatalf("a lookup of %s finds\n%s", at, out)
		}
		break
	}
	w.must(w.Offline(w.ctx, sessionOf(alice, "a")))
	w.gone(alice)
	if out, err := w.Lab.CGN.Output(w.ctx, "nft", "list", "map", "ip", "sessiond", "narrowed"); err != nil || strings.Contains(string(out), alice.String()) {
		t.Errorf("after the Stop: %v\n%s", err, out)
	}
}
