package nftnat

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/conntrack"
	"github.com/sessiond/sessiond/internal/conntrack/conntracktest"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/testenv"
)

// A city is a number of subscribers with a hundred sessions each; a mass teardown ends the
// first half of them.
type city struct {
	addrs   []netip.Addr
	entries []conntrack.Entry
}

const sessionsEach = 100

func newCity(sessions int) city {
	var c city
	for i := range sessions / sessionsEach {
		addr := netip.AddrFrom4([4]byte{100, 70, byte(i >> 8), byte(i)})
		outside := netip.AddrFrom4([4]byte{192, 88, byte(i >> 8), byte(i)})
		c.addrs = append(c.addrs, addr)
		c.entries = append(c.entries, conntracktest.Many(addr, outside, sessionsEach)...)
	}
	return c
}

func (c city) gates(g nat.Gate) []nat.Entry {
	entries := make([]nat.Entry, len(c.addrs)/2)
	for i := range entries {
		entries[i] = blockOf(c.addrs[i], g, i%100)
	}
	return entries
}

// pings are the round trips of a neighbour's echo requests to a host in the internet, one at a
// time and at most one per millisecond.
type pings struct {
	took []time.Duration
	lost int
}

const pingPatience = 250 * time.Millisecond

// pingTo makes the test binary a process that pings the address named until its input ends,
// and then prints the time that each took in nanoseconds, 0 for lost. A process of its own
// does not wait for goroutines of the test, nor, with the highest priority, for a processor:
// it measures the packet path only.
const pingTo = "SESSIOND_TEST_PING_TO"

func TestMain(m *testing.M) {
	if to := os.Getenv(pingTo); to != "" {
		if err := ping(to); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func ping(to string) error {
	conn, err := net.Dial("ip4:icmp", to)
	if err != nil {
		return err
	}
	defer conn.Close()
	var over atomic.Bool
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		over.Store(true)
	}()
	var took []time.Duration
	for tick := time.Tick(time.Millisecond); !over.Load(); <-tick {
		d, err := pingOnce(conn, uint16(len(took)))
		if err != nil {
			return err
		}
		took = append(took, d)
	}
	for _, d := range took {
		fmt.Println(int64(d))
	}
	return nil
}

// pingOnce returns 0 without a reply.
func pingOnce(conn net.Conn, seq uint16) (time.Duration, error) {
	request := []byte{8, 0, 0, 0, 0x12, 0x34, byte(seq >> 8), byte(seq)}
	sum := uint32(0x0800) + 0x1234 + uint32(seq)
	sum = ^(sum>>16 + sum) // one's complement (RFC 1071)
	request[2], request[3] = byte(sum>>8), byte(sum)
	began := time.Now()
	_ = conn.SetReadDeadline(began.Add(pingPatience))
	if _, err := conn.Write(request); err != nil {
		return 0, err
	}
	for answer := make([]byte, 128); ; {
		n, err := conn.Read(answer)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return 0, nil
		case err != nil:
			return 0, err
		case n >= 8 && bytes.Equal(answer[n-2:n], request[6:]) && answer[n-8] == 0:
			return time.Since(began), nil
		}
	}
}

// during measures a neighbour while fn runs.
func during(b *testing.B, lab *netlab.Lab, fn func()) (p pings) {
	b.Helper()
	cmd := exec.Command("ip", "netns", "exec", lab.Subscriber.Name(), "nice", "-n", "-20", os.Args[0])
	cmd.Env = append(os.Environ(), pingTo+"="+lab.Remotes[0].String())
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	input, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		b.Fatal(err)
	}
	fn()
	_ = input.Close()
	if err := cmd.Wait(); err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(out.String()) {
		ns, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
		switch {
		case err != nil:
			b.Fatal(err)
		case ns == 0:
			p.lost++
		default:
			p.took = append(p.took, time.Duration(ns))
		}
	}
	return p
}

func (p pings) quantile(q float64) time.Duration {
	if len(p.took) == 0 {
		return 0
	}
	slices.Sort(p.took)
	return p.took[int(q*float64(len(p.took)-1))]
}

func (p *pings) add(more pings) {
	p.took = append(p.took, more.took...)
	p.lost += more.lost
}

// BenchmarkMassTeardown cuts and reaps half of the subscribers of a table at once and measures
// the effect on a neighbour: the round trips to a host in the internet, and the lost ones,
// before and meanwhile.
func BenchmarkMassTeardown(b *testing.B) {
	for _, size := range []int{100_000, 500_000} {
		b.Run(fmt.Sprintf("entries=%d", size), func(b *testing.B) { massTeardown(b, size) })
	}
}

func massTeardown(b *testing.B, size int) {
	lab := newLab(b)
	conntracktest.Room(b, 2*size)
	k := startKernel(b, labOptions(lab))
	c := newCity(size)
	apply(b, k, append(c.gates(nat.GateOpen), blockOf(alice, nat.GateOpen, 100))...) // the source of the pings
	conntracktest.Inject(b, lab.CGN.Path(), c.entries[size/2:])
	var before, meanwhile pings
	var spent time.Duration
	for b.Loop() {
		conntracktest.Inject(b, lab.CGN.Path(), c.entries[:size/2])
		apply(b, k, c.gates(nat.GateOpen)...)
		testenv.Succeeds(b, func() error {
			if n := k.SessionTotal(); n < size {
				return fmt.Errorf("%d sessions", n)
			}
			return nil
		})
		before.add(during(b, lab, func() { time.Sleep(2 * time.Second) }))
		meanwhile.add(during(b, lab, func() { spent += tearDown(b, k, c) }))
	}
	b.ReportMetric(spent.Seconds()/float64(b.N), "s/teardown")
	report(b, "before", before)
	report(b, "meanwhile", meanwhile)
	b.ReportMetric(float64(meanwhile.quantile(.99))/float64(before.quantile(.99)), "x-p99")
	b.ReportMetric(0, "ns/op")
}

func tearDown(b *testing.B, k *Kernel, c city) time.Duration {
	began := time.Now()
	apply(b, k, c.gates(nat.GateClosed)...)
	receipts, err := k.Reap(context.Background(), c.addrs[:len(c.addrs)/2])
	if err != nil || len(receipts) != len(c.addrs)/2 {
		b.Fatalf("%d receipts: %v", len(receipts), err)
	}
	return time.Since(began)
}

func report(b *testing.B, when string, p pings) {
	b.ReportMetric(float64(p.quantile(.5).Microseconds()), "p50-us-"+when)
	b.ReportMetric(float64(p.quantile(.99).Microseconds()), "p99-us-"+when)
	b.ReportMetric(100*float64(p.lost)/float64(p.lost+len(p.took)), "%lost-"+when)
}

// BenchmarkCut closes one gate after the other beside a table of many entries, and measures
// when the packets of the slowest in a hundred have stopped: the gate is closed when Apply
// returns.
func BenchmarkCut(b *testing.B) {
	for _, size := range []int{0, 500_000} {
		b.Run(fmt.Sprintf("entries=%d", size), func(b *testing.B) {
			lab := newLab(b)
			conntracktest.Room(b, 2*size)
			k := startKernel(b, labOptions(lab))
			conntracktest.Inject(b, lab.CGN.Path(), newCity(size).entries)
			var cuts pings
			for b.Loop() {
				apply(b, k, blockOf(alice, nat.GateOpen, 0))
				began := time.Now()
				apply(b, k, nat.Entry{Inside: alice})
				cuts.took = append(cuts.took, time.Since(began))
			}
			b.ReportMetric(float64(cuts.quantile(.5).Microseconds()), "p50-us")
			b.ReportMetric(float64(cuts.quantile(.99).Microseconds()), "p99-us")
		})
	}
}
