package nftnat

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/netlab"
	"golang.org/x/sys/unix"
)

// BenchmarkMappedPackets measures the cost of a datagram from a subscriber to the internet, in
// nanoseconds of processor: through a router with one masquerade rule, through the table, and
// with full cone, and with the other filtering, for each number of bindings. The ratios are of packets a second, against the
// rule. Each datagram is of the next flow, so that with 10,000 flows the processor's caches
// hold nothing of a flow when its next datagram comes; with 1,000 they hold some.
func BenchmarkMappedPackets(b *testing.B) {
	for _, size := range []struct{ bindings, flows int }{{1, 1}, {10_000, 1000}, {10_000, 10_000}, {1_000_000, 1000}, {1_000_000, 10_000}} {
		b.Run(fmt.Sprintf("bindings=%d/flows=%d", size.bindings, size.flows), func(b *testing.B) {
			benchmarkMappedPackets(b, size.bindings, size.flows)
		})
	}
}

func benchmarkMappedPackets(b *testing.B, bindings, flows int) {
	names := []string{"masquerade", "plain", "cone", "restricted"}
	all := apart(bindings)
	var some []nat.Entry
	for i := range flows {
		some = append(some, all[i*(bindings/flows)])
	}
	var senders []*crowdSender
	for _, name := range names {
		lab := newLab(b)
		senders = append(senders, newCrowdSender(b, lab, some))
		if name == "masquerade" {
			run(b, lab, "nft", "table ip other { chain post { type nat hook postrouting priority srcnat; oifname "+netlab.OutsideInterface+" masquerade; }; }")
			continue
		}
		o := labOptions(lab)
		o.OutsidePrefixes = []netip.Prefix{crowdPool}
		if name == "cone" || name == "restricted" {
			o.Mappings = Mappings{EndpointIndependent: []netip.Prefix{crowdPool}, Inside: o.InsidePrefixes, Most: 100_000}
		}
		if name == "cone" {
			o.Mappings.Open = o.Mappings.EndpointIndependent
		}
		k := openForTraffic(b, o)
		if err := k.Apply(b.Context(), all); err != nil {
			b.Fatal(err)
		}
	}
	left := make([]int, len(senders))
	for i, s := range senders {
		s.burst(b, 2*flows)
		left[i] = packetsOut(b, s.lab)
	}
	// The first burst behind another sender's pays for the caches that that one took, so each
	// comes behind each.
	const datagrams = 10_000
	spent := make([]int64, len(senders))
	for b.Loop() {
		for _, i := range rand.Perm(len(senders)) {
			spent[i] += senders[i].burst(b, datagrams)
		}
	}
	for i, name := range names {
		if sent, out := b.N*datagrams, packetsOut(b, senders[i].lab)-left[i]; out < sent {
			b.Errorf("%s: of %d datagrams %d left", name, sent, out)
		}
		b.ReportMetric(float64(spent[i])/float64(b.N)/datagrams, "ns/"+name)
		b.ReportMetric(float64(spent[0])/float64(spent[i]), "ratio-"+name)
	}
	b.ReportMetric(0, "ns/op")
}

// crowdSender sends datagrams of crowd from one raw socket, each next one of the next
// subscriber.
type crowdSender struct {
	lab     *netlab.Lab
	socket  int
	packets [][]byte
	next    int
	to      unix.SockaddrInet4
}

func newCrowdSender(b *testing.B, lab *netlab.Lab, crowd []nat.Entry) *crowdSender {
	b.Helper()
	s := &crowdSender{lab: lab, to: unix.SockaddrInet4{Addr: lab.Remotes[0].As4()}}
	for _, e := range crowd {
		s.packets = append(s.packets, datagram(netip.AddrPortFrom(e.Inside, 5000), netip.AddrPortFrom(lab.Remotes[0], 9)))
	}
	err := lab.Subscriber.Do(func() (err error) {
		s.socket, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = unix.Close(s.socket) })
	return s
}

// packetsOut is the number of packets that left by the outside interface.
func packetsOut(b *testing.B, lab *netlab.Lab) int {
	b.Helper()
	var links []struct {
		Stats64 struct{ TX struct{ Packets int } }
	}
	out := run(b, lab, "ip", "-json", "-statistics", "link", "show", "dev", netlab.OutsideInterface)
	if err := json.Unmarshal([]byte(out), &links); err != nil || len(links) != 1 {
		b.Fatalf("ip link show: %v in %s", err, out)
	}
	return links[0].Stats64.TX.Packets
}

// crowdPool has the outside addresses of apart.
var crowdPool = netip.MustParsePrefix("198.18.0.0/15")

// apart returns open entries, each with a block of its own.
func apart(n int) []nat.Entry {
	entries := crowd(65, n)
	outside := crowdPool.Addr()
	for i := range entries {
		if i%100 == 0 {
			outside = outside.Next()
		}
		entries[i].Outside = outside
	}
	return entries
}

// datagram is an IPv4 header (RFC 791 section 3.1), without the fields that the kernel fills
// in, a UDP header (RFC 768) without a checksum, and one octet.
func datagram(from, to netip.AddrPort) []byte {
	p := []byte{0x45, 0, 0, 29, 0, 0, 0, 0, 64, unix.IPPROTO_UDP, 0, 0}
	p = append(append(p, from.Addr().AsSlice()...), to.Addr().AsSlice()...)
	p = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(p, from.Port()), to.Port())
	return append(p, 0, 9, 0, 0, '?')
}

func (s *crowdSender) burst(b *testing.B, datagrams int) (spent int64) {
	before := processorTime(b)
	for range datagrams {
		if err := unix.Sendto(s.socket, s.packets[s.next], 0, &s.to); err != nil {
			b.Fatal(err)
		}
		s.next = (s.next + 1) % len(s.packets)
	}
	return processorTime(b) - before
}

// BenchmarkForget measures the deletion of the mappings of one subscriber with a block of 512
// ports and 100 mappings, among many others, and a dump of all of them.
func BenchmarkForget(b *testing.B) {
	for _, others := range []int{1000, 10_000, 50_000} {
		b.Run(fmt.Sprint(others), func(b *testing.B) { benchmarkForget(b, others) })
	}
}

func benchmarkForget(b *testing.B, others int) {
	const mappings = 100
	lab := newLab(b)
	o := labOptions(lab)
	fullCone(&o)
	o.Mappings.Most = 1_000_000
	k := openKernel(b, o)
	loadMappings(b, lab, netip.MustParseAddr("100.70.0.1"), netip.MustParseAddr("198.51.100.2"), others, tenMinutes)
	var dumped time.Duration
	deleted := 0
	for b.Loop() {
		b.StopTimer()
		apply(b, k, blockOf(alice, nat.GateOpen, 0))
		loadMappings(b, lab, alice, eip, mappings, tenMinutes)
		began := time.Now()
		if err := k.dumpMappings(b.Context(), func(mapping) bool { return false }); err != nil {
			b.Fatal(err)
		}
		dumped += time.Since(began)
		apply(b, k, nat.Entry{Inside: alice})
		b.StartTimer()
		done, err := k.forget(b.Context(), []nat.Reaped{{Inside: alice}})
		if err != nil {
			b.Fatal(err)
		}
		deleted += done[0].Elements
	}
	if deleted != 5*mappings*b.N {
		b.Errorf("%d elements were deleted, want %d", deleted, 5*mappings*b.N)
	}
	b.ReportMetric(float64(dumped.Milliseconds())/float64(b.N), "dump-ms")
}

func tenMinutes(int) time.Duration { return 10 * time.Minute }

// loadMappings makes mappings by nft, as packets would: of one inside address, and of the next
// ones where that has all its ports. Each lasts for a time of its number.
func loadMappings(t testing.TB, lab *netlab.Lab, inside, outside netip.Addr, n int, last func(i int) time.Duration) {
	t.Helper()
	elements := make(map[string]*strings.Builder)
	for _, set := range learnedSets {
		elements[set] = &strings.Builder{}
	}
	for i := range n {
		in := fmt.Sprintf("%v . %d", inside, 1024+i%50_000)
		out := fmt.Sprintf("%v . %d", outside, 1024+i%50_000)
		if i%50_000 == 49_999 {
			inside, outside = inside.Next(), outside.Next()
		}
		fmt.Fprintf(elements[mapEIF], "udp . %s timeout %dms : %s,", out, last(i).Milliseconds(), in)
		fmt.Fprintf(elements[mapBIB], "udp . %s timeout %dms : %s,", in, last(i).Milliseconds(), out)
		fmt.Fprintf(elements[setPairs], "udp . %s . %s timeout %dms,", in, out, last(i).Milliseconds())
		fmt.Fprintf(elements[setTaken], "udp . %s timeout %dms,", out, last(i).Milliseconds())
		fmt.Fprintf(elements[setFresh], "udp . %s timeout %dms,", in, last(i).Milliseconds())
	}
	var all strings.Builder
	for set, list := range elements {
		fmt.Fprintf(&all, "add element ip %s %s { %s }\n", testTable, set, list)
	}
	loadFile(t, lab, all.String())
}

// loadFile loads a ruleset by nft.
func loadFile(t testing.TB, lab *netlab.Lab, text string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "load.nft")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, lab, "nft", "-f", file)
}
