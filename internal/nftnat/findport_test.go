package nftnat

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/conntrack"
	"github.com/sessiond/sessiond/internal/conntrack/conntracktest"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/testenv"
)

// A fillTest measures which share of new flows gets a port of a block that is nearly full.
type fillTest struct {
	size     int
	percent  int // of the ports in use
	protocol uint8
	spread   string // of the free ports: uniform, clustered in one gap, or chosen by nf_nat for flow after flow
	remotes  string // of the new flows: one, to which all ports in use lead, or many
	narrowed bool   // new flows get ports of the emptiest part that nf_nat searches in full
}

// searchedWhole is the largest range in which nf_nat tries each port (NF_NAT_MAX_ATTEMPTS).
const searchedWhole = 128

func (f fillTest) String() string {
	name := map[uint8]string{unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp"}[f.protocol]
	return fmt.Sprintf("ports=%d/used=%d%%/%s/%s/remotes=%s/narrowed=%t", f.size, f.percent, name, f.spread, f.remotes, f.narrowed)
}

// fillLab is a lab whose subscriber alice has a block that tests fill.
type fillLab struct {
	*netlab.Lab
	*Kernel
	capture *netlab.Capture
	port    uint16 // the last inside port of a new flow
}

func newFillLab(t testing.TB) *fillLab {
	t.Helper()
	lab := newLab(t)
	k := openKernel(t, labOptions(lab))
	c, err := lab.CGN.Capture(netlab.OutsideInterface)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	// A reset would end the conntrack entry of a flow.
	if _, err := lab.Internet.Output(testContext(t), "nft", "table ip quiet { chain c { type filter hook input priority 0; meta l4proto tcp drop; }; }"); err != nil {
		t.Fatal(err)
	}
	return &fillLab{lab, k, c, 20_000}
}

// run returns the number of new flows that got a port, of trials. Each is ended before the next
// ones, so the use stays as it is.
func (l *fillLab) run(t testing.TB, f fillTest, trials int) (found int) {
	t.Helper()
	run(t, l.Lab, "conntrack", "-F")
	rnd := rand.New(rand.NewPCG(uint64(f.size), uint64(f.percent)))
	block := nat.Block{Outside: eip, First: 4096, Last: nat.Port(4096 + f.size - 1)}
	remote := netip.AddrPortFrom(l.Remotes[0], 7000)
	var used []uint16
	if f.spread == "chosen" {
		used = l.fillBlock(t, f, block, remote)
	} else {
		used = f.fill(rnd)
		entries := make([]conntrack.Entry, 0, len(used))
		for i, port := range used {
			entries = append(entries, f.entry(netip.AddrPortFrom(alice, uint16(1024+i)), netip.AddrPortFrom(eip, uint16(block.First)+port), remote))
		}
		conntracktest.Inject(t, l.CGN.Path(), entries)
	}
	if f.narrowed {
		block = emptiest(block, used)
	}
	apply(t, l, nat.Entry{Inside: alice, Gate: nat.GateOpen, Block: block})
	many := uint16(8000)
	for done := 0; done < trials; {
		batch := min(trials-done, 8, max(1, (f.size-len(used))/8))
		sent := map[netip.AddrPort]netip.AddrPort{} // remote by inside endpoint
		l.capture.Clear()
		for range batch {
			l.port = 20_000 + (l.port+1)%30_000
			inside, to := netip.AddrPortFrom(alice, l.port), remote
			if f.remotes == "many" {
				many++
				to = netip.AddrPortFrom(l.Remotes[0], many)
			}
			l.begin(t, f, inside, to)
			sent[inside] = to
		}
		l.settle(t)
		var ended []conntrack.Entry
		for _, p := range l.capture.Packets() {
			if len(p.Payload) != 2 || p.Protocol != f.protocol || p.Source.Addr() != eip {
				continue
			}
			inside := netip.AddrPortFrom(alice, binary.BigEndian.Uint16(p.Payload))
			if to, ok := sent[inside]; ok {
				ended = append(ended, f.entry(inside, p.Source, to))
				delete(sent, inside)
			}
		}
		if len(ended) > 0 {
			conntracktest.Remove(t, l.CGN.Path(), ended)
		}
		found += len(ended)
		done += batch
	}
	return found
}

// begin sends the first packet of a flow, which carries its inside port.
func (l *fillLab) begin(t testing.TB, f fillTest, inside, to netip.AddrPort) {
	t.Helper()
	p := netlab.Packet{Source: inside, Destination: to, Protocol: f.protocol, Flags: netlab.SYN, Payload: binary.BigEndian.AppendUint16(nil, inside.Port())}
	if err := l.Subscriber.Send(p); err != nil {
		t.Fatal(err)
	}
}

// fillBlock begins flows until so many ports are in use, and returns these, counted from the
// first of the block.
func (l *fillLab) fillBlock(t testing.TB, f fillTest, b nat.Block, remote netip.AddrPort) (used []uint16) {
	t.Helper()
	apply(t, l, nat.Entry{Inside: alice, Gate: nat.GateOpen, Block: b})
	want := f.size * f.percent / 100
	for i := uint16(1024); len(used) < want; i++ {
		l.capture.Clear()
		for range min(32, want-len(used)) {
			i++
			l.begin(t, f, netip.AddrPortFrom(alice, i), remote)
		}
		l.settle(t)
		for _, p := range l.capture.Packets() {
			if len(p.Payload) == 2 && p.Source.Addr() == eip {
				used = append(used, p.Source.Port()-uint16(b.First))
			}
		}
		if i > 19_000 {
			t.Fatalf("%v: %d ports are in use, and no more", f, len(used))
		}
	}
	return used
}

// settle sends a datagram of one and the same flow, and waits until it is captured: then all
// earlier packets are captured too.
func (l *fillLab) settle(t testing.TB) {
	t.Helper()
	p := netlab.Packet{
		Source: netip.AddrPortFrom(alice, 10_000), Destination: netip.AddrPortFrom(l.Remotes[1], 9), Protocol: netlab.UDP, Payload: []byte("settled"),
	}
	testenv.Succeeds(t, func() error {
		if err := l.Subscriber.Send(p); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(context.Background(), twinPatience)
		defer cancel()
		_, err := l.capture.Await(ctx, func(p netlab.Packet) bool { return string(p.Payload) == "settled" })
		return err
	})
}

// entry returns the conntrack entry of a flow, of TCP an established one.
func (f fillTest) entry(inside, outside, remote netip.AddrPort) conntrack.Entry {
	e := conntracktest.Outbound(inside, outside, remote)
	e.Orig.Protocol, e.Reply.Protocol = f.protocol, f.protocol
	if f.protocol == unix.IPPROTO_TCP {
		e.TCPState = 3
	}
	return e
}

// fill returns the ports in use, counted from the first of the block.
func (f fillTest) fill(rnd *rand.Rand) (used []uint16) {
	free := f.size - f.size*f.percent/100
	ports := rnd.Perm(f.size)
	if f.spread == "clustered" {
		first := rnd.IntN(f.size)
		for i := range ports {
			ports[i] = (first + i) % f.size
		}
	}
	for _, p := range ports[free:] {
		used = append(used, uint16(p))
	}
	return used
}

// emptiest returns the aligned part with the most free ports that is searched in full.
func emptiest(b nat.Block, used []uint16) nat.Block {
	if b.Size() <= searchedWhole {
		return b
	}
	counts := make([]int, b.Size()/searchedWhole)
	for _, p := range used {
		counts[int(p)/searchedWhole]++
	}
	part := slices.Index(counts, slices.Min(counts))
	b.First += nat.Port(part * searchedWhole)
	b.Last = b.First + searchedWhole - 1
	return b
}

// TestFindingAPort_NAT35_NAT14: of a nearly full block of 1,024 ports nf_nat tries some, and
// gives up; in the emptiest 128 it finds each free one.
func TestFindingAPort_NAT35_NAT14(t *testing.T) {
	l := newFillLab(t)
	const trials = 60
	for _, spread := range []string{"uniform", "clustered"} {
		for _, percent := range []int{95, 98} {
			for _, protocol := range []uint8{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
				f := fillTest{size: 1024, percent: percent, protocol: protocol, spread: spread, remotes: "one"}
				plain := l.run(t, f, trials)
				f.narrowed = true
				narrowed := l.run(t, f, trials)
				t.Logf("%v: %d of %d flows, without %d", f, narrowed, trials, plain)
				if narrowed < trials-1 { // a packet may be lost on a busy machine
					t.Errorf("%v: %d of %d new flows got a port", f, narrowed, trials)
				}
			}
		}
	}
}

// BenchmarkFindingAPort prints the share of new flows that get a port, in percent.
func BenchmarkFindingAPort(b *testing.B) {
	l := newFillLab(b)
	for _, remotes := range []string{"one", "many"} {
		for _, spread := range []string{"uniform", "clustered", "chosen"} {
			for _, protocol := range []uint8{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
				for size := 128; size <= 2048; size *= 2 {
					for _, percent := range []int{50, 75, 90, 95, 98} {
						for _, narrowed := range []bool{false, true} {
							f := fillTest{size, percent, protocol, spread, remotes, narrowed}
							if narrowed && (size <= searchedWhole || remotes == "many") {
								continue
							}
							b.Run(f.String(), func(b *testing.B) {
								const trials = 100
								found := 0
								for b.Loop() {
									found += l.run(b, f, trials)
								}
								b.ReportMetric(100*float64(found)/float64(b.N*trials), "%found")
								b.ReportMetric(0, "ns/op")
							})
						}
					}
				}
			}
		}
	}
}
