package nftnat

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/testenv"
)

// TestBarrier_I3 removes the table, or its effect, in each possible way, and nothing puts it
// right: the Kernel is closed, as that of a dead process.
func TestBarrier_I3(t *testing.T) {
	for name, script := range map[string]string{
		"ruleset flushed": "flush ruleset",
		"table deleted":   "delete table ip sessiond",
		"table flushed":   "flush table ip sessiond",
		"table dormant":   "add table ip sessiond { flags dormant; }",
		"chains flushed":  "flush chain ip sessiond forward; flush chain ip sessiond srcnat; flush chain ip sessiond output",
	} {
		t.Run(name, func(t *testing.T) {
			w := wireTest{Lab: newLab(t)}
			k := openKernel(t, labOptions(w.Lab)) // it does not run
			w.capture = captureInternet(t, w.Lab)
			apply(t, k, blockOf(alice, nat.GateOpen, 0))
			stop := keepSending(t, w.flow(t, alice))
			if err := k.Close(); err != nil {
				t.Fatal(err)
			}
			run(t, w.Lab, "nft", script)
			run(t, w.Lab, "conntrack", "-D", "-s", alice.String()) // or the flow stays translated
			testenv.Succeeds(t, func() error {
				if out := run(t, w.Lab, "tc", "-s", "qdisc", "show", "dev", netlab.OutsideInterface, "clsact"); strings.Contains(out, "dropped 0,") {
					return fmt.Errorf("the barrier dropped nothing: %s", out)
				}
				return nil
			})
			w.wantNoLeak(t, alice)

			// Without it a leak must show.
			run(t, w.Lab, "tc", "qdisc", "del", "dev", netlab.OutsideInterface, "clsact")
			if _, err := w.capture.Await(testContext(t), func(p netlab.Packet) bool { return p.Mentions(alice) }); err != nil {
				t.Error(err)
			}
			stop()
		})
	}
}

// TestRaiseBarrier_I3 has the barrier alone, before there is any table.
func TestRaiseBarrier_I3(t *testing.T) {
	lab := newLab(t)
	w := wireTest{Lab: lab, capture: captureInternet(t, lab)}
	o := labOptions(lab)
	o.OutsideInterfaces = append(o.OutsideInterfaces, "late0")
	if err := RaiseBarrier(o); err == nil || !strings.Contains(err.Error(), "late0") || strings.Contains(err.Error(), "i0") {
		t.Errorf("with an interface that is not there: %v", err)
	}
	wantBarrier(t, lab, netlab.OutsideInterface)
	conn, err := lab.Subscriber.Dial(testContext(t), "udp4", netip.AddrPortFrom(alice, 0), netip.AddrPortFrom(lab.Remotes[0], 9))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("?")); err != nil {
		t.Fatal(err)
	}
	testenv.Succeeds(t, func() error {
		if out := run(t, lab, "tc", "-s", "qdisc", "show", "dev", netlab.OutsideInterface, "clsact"); strings.Contains(out, "dropped 0,") {
			return fmt.Errorf("the barrier dropped nothing: %s", out)
		}
		return nil
	})
	w.wantNoLeak(t, alice)
	if out := run(t, lab, "nft", "list", "ruleset"); out != "" {
		t.Errorf("nftables was touched: %s", out)
	}

	stands := barrierOn(t, lab, netlab.OutsideInterface)
	o = labOptions(lab)
	o.InsidePrefixes = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	if err := RaiseBarrier(o); err != nil {
		t.Fatal(err)
	}
	if after := barrierOn(t, lab, netlab.OutsideInterface); after != stands {
		t.Errorf("the barrier of an earlier start is replaced:\n%s\nwas\n%s", after, stands)
	}
}

// barrierOn is the egress filters of an interface, as tc lists them.
func barrierOn(t *testing.T, lab *netlab.Lab, dev string) string {
	t.Helper()
	return run(t, lab, "tc", "filter", "show", "dev", dev, "egress")
}

func wantBarrier(t *testing.T, lab *netlab.Lab, dev string) {
	t.Helper()
	testenv.Succeeds(t, func() error {
		if out := barrierOn(t, lab, dev); !strings.Contains(out, "pref 93 bpf") || !strings.Contains(out, "handle 0x93") {
			return fmt.Errorf("no barrier on %s: %q", dev, out)
		}
		return nil
	})
}

func TestBarrierComesBack_I3(t *testing.T) {
	lab := newLab(t)
	o := labOptions(lab)
	o.OutsideInterfaces = append(o.OutsideInterfaces, "late0")
	startKernel(t, o)
	wantBarrier(t, lab, netlab.OutsideInterface)
	for _, script := range []string{
		"tc qdisc del dev i0 clsact",
		"tc filter del dev i0 egress",
		"tc filter replace dev i0 egress pref 93 handle 0x93 bpf da bytecode '1,6 0 0 0'",
		"ip link add late0 type veth peer name late1",
		"ip link del late0",
		"ip link add early0 type veth peer name early1",
		"ip link set early0 name late0",
	} {
		run(t, lab, "sh", "-c", script)
		wantBarrier(t, lab, netlab.OutsideInterface)
		if strings.Contains(script, "late0 type") || strings.Contains(script, "name late0") {
			wantBarrier(t, lab, "late0")
		}
	}
	testenv.Succeeds(t, func() error {
		if out := run(t, lab, "tc", "filter", "show", "dev", "i0", "egress"); strings.Contains(out, "1,6 0 0 0'") {
			return fmt.Errorf("the program of others stands: %s", out)
		}
		return nil
	})
}

// TestBarrierBesideOthers_I8: the filters of others stay, and only our own is taken away.
func TestBarrierBesideOthers_I8(t *testing.T) {
	lab := newLab(t)
	run(t, lab, "tc", "qdisc", "add", "dev", "i0", "clsact")
	run(t, lab, "tc", "filter", "add", "dev", "i0", "egress", "pref", "7", "handle", "0x7", "bpf", "bytecode", "1,6 0 0 0")
	others := barrierOn(t, lab, "i0")
	k := openKernel(t, labOptions(lab))
	wantBarrier(t, lab, "i0")
	first := barrierOn(t, lab, "i0")
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	k = openKernel(t, labOptions(lab))
	if again := barrierOn(t, lab, "i0"); again != first {
		t.Errorf("a start makes it anew:\n%s\nto\n%s", first, again)
	}
	if err := k.SetPrefixes(testContext(t), []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, nil, Mappings{}); err != nil {
		t.Fatal(err)
	}
	if changed := barrierOn(t, lab, "i0"); changed == first {
		t.Error("other prefixes, and the same barrier")
	}
	if err := k.Remove(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if after := barrierOn(t, lab, "i0"); after != others {
		t.Errorf("the filters of others are\n%s\nwant\n%s", after, others)
	}
}

// TestFilterBeforeTheBarrier: a packet that an earlier filter of others lets pass does not
// reach the barrier. Barrier reports false until that filter is gone.
func TestFilterBeforeTheBarrier(t *testing.T) {
	lab := newLab(t)
	var lines logLines
	o := labOptions(lab)
	o.Logger = lines.logger()
	k := startKernel(t, o)
	wantBarrier(t, lab, "i0")
	stands := func(want bool) {
		t.Helper()
		testenv.Succeeds(t, func() error {
			if k.Barrier() != want {
				return fmt.Errorf("the barrier is said to stand: %t", !want)
			}
			return nil
		})
	}
	stands(true)
	run(t, lab, "tc", "filter", "add", "dev", "i0", "egress", "pref", "94", "bpf", "da", "bytecode", "1,6 0 0 0")
	run(t, lab, "tc", "filter", "add", "dev", "i0", "ingress", "pref", "1", "bpf", "da", "bytecode", "1,6 0 0 0")
	run(t, lab, "tc", "filter", "add", "dev", "i0", "egress", "chain", "7", "pref", "1", "bpf", "da", "bytecode", "1,6 0 0 0")
	for _, place := range [][]string{{"pref", "1"}, {"pref", "93", "handle", "0x7"}} {
		if err := k.restoreBarrier(testContext(t)); err != nil {
			t.Fatal(err)
		}
		stands(true)
		run(t, lab, "tc", append(append([]string{"filter", "add", "dev", "i0", "egress"}, place...), "bpf", "da", "bytecode", "1,6 0 0 0")...)
		stands(false)
		run(t, lab, "tc", append(append([]string{"filter", "del", "dev", "i0", "egress"}, place...), "bpf")...)
		stands(true)
	}
	if said := strings.Count(lines.String(), "a filter of others, bpf of preference"); said != 2 {
		t.Errorf("said %d times, want twice: %s", said, lines.String())
	}
}

// TestRetiredInterfaceLosesItsBarrier also checks that a qdisc left empty is deleted.
func TestRetiredInterfaceLosesItsBarrier(t *testing.T) {
	lab := newLab(t)
	run(t, lab, "ip", "link", "add", "old0", "type", "veth", "peer", "name", "old1")
	o := labOptions(lab)
	o.OutsideInterfaces = append(o.OutsideInterfaces, "old0")
	if err := openKernel(t, o).Close(); err != nil {
		t.Fatal(err)
	}
	wantBarrier(t, lab, "old0")
	openKernel(t, labOptions(lab))
	wantBarrier(t, lab, "i0")
	if out := run(t, lab, "tc", "qdisc", "show", "dev", "old0"); strings.Contains(out, "clsact") {
		t.Errorf("qdiscs of old0 are %s", out)
	}
}

// TestBarrierImpossible: an interface whose place for the barrier is taken is served
// nevertheless, with a log line.
func TestBarrierImpossible(t *testing.T) {
	lab := newLab(t)
	run(t, lab, "tc", "qdisc", "add", "dev", "i0", "ingress")
	var lines logLines
	o := labOptions(lab)
	o.Logger = slog.New(slog.NewTextHandler(&lines, nil))
	k := openKernel(t, o)
	k.barrier.Restore()
	if got := strings.Count(lines.String(), "has no barrier"); got != 1 {
		t.Errorf("said %d times, want once: %s", got, lines.String())
	}
	if k.Barrier() {
		t.Error("the barrier is said to stand")
	}
	apply(t, k, blockOf(alice, nat.GateOpen, 0))
	run(t, lab, "tc", "qdisc", "del", "dev", "i0", "ingress")
	k.barrier.Restore()
	wantBarrier(t, lab, "i0")
	if !k.Barrier() {
		t.Error("the barrier is said not to stand")
	}
}

// flushes is how often TestFlushes flushes: FLUSHES in the environment, else 100.
func flushes(t *testing.T) int {
	t.Helper()
	s := os.Getenv("FLUSHES")
	if s == "" {
		return 100
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestFlushes_I3_I9 removes the table under traffic, in every way: no packet with an inside
// source appears outside, established flows go on, and so do flows that begin meanwhile.
func TestFlushes_I3_I9(t *testing.T) {
	const others = `flush ruleset
		table inet filter { chain forward { type filter hook forward priority 0; ct state invalid counter; }; }
		table ip mgmt { chain post { type nat hook postrouting priority 100; ip saddr 192.168.99.0/24 masquerade; }; }`
	for name, ruleset := range map[string]string{"alone": "flush ruleset", "beside others": others} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "nftables.conf")
			if err := os.WriteFile(file, []byte(ruleset), 0o600); err != nil {
				t.Fatal(err)
			}
			w := newWireTest(t)
			run(t, w.Lab, "nft", "-f", file)
			apply(t, w.Kernel, blockOf(alice, nat.GateOpen, 0), blockOf(bob, nat.GateOpen, 1))
			heartbeat := w.beat(t, netip.AddrPortFrom(alice, 6000))
			tcp := w.flow(t, bob)
			var born *beat // began right behind a flush
			ways := [][]string{{"nft", "flush", "ruleset"}, {"nft", "delete", "table", "ip", testTable}, {"nft", "-f", file}}
			for i := range flushes(t) / 2 {
				run(t, w.Lab, ways[i%len(ways)][0], ways[i%len(ways)][1:]...)
				if i%10 == 0 {
					born = w.beat(t, netip.AddrPortFrom(bob, uint16(7000+i)))
				}
				heartbeat.next(t)
				if i%10 == 9 {
					born.next(t)
					born.stop()
				}
				w.wantNoLeak(t, alice)
				w.wantNoLeak(t, bob)
				w.capture.Clear()
			}
			if out, in := tcp.Probe(10 * time.Second); !out || !in {
				t.Errorf("the TCP flow passes out %t, in %t", out, in)
			}
			silences := heartbeat.stop()
			slices.Sort(silences)
			at := func(q int) time.Duration { return silences[len(silences)*q/100] }
			t.Logf("silences of the flow: half %v, nine tenths %v, longest %v", at(50), at(90), silences[len(silences)-1])
			if at(90) > 100*time.Millisecond || silences[len(silences)-1] > 2*time.Second {
				t.Errorf("the flow was silent for too long: %v", silences)
			}
		})
	}
}

// beat is a UDP flow that sends every millisecond, and gets answers from the echo.
type beat struct {
	conn net.Conn
	task sync.WaitGroup

	mu       sync.Mutex
	heard    chan struct{} // closed and replaced with every answer
	silences []time.Duration
}

func (w wireTest) beat(t testing.TB, inside netip.AddrPort) *beat {
	t.Helper()
	conn, err := w.Subscriber.Dial(testContext(t), "udp4", inside, w.echo.Addr())
	if err != nil {
		t.Fatal(err)
	}
	b := &beat{conn: conn, heard: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	b.task.Go(func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			<-tick.C
			_, _ = conn.Write([]byte("?"))
		}
	})
	b.task.Go(func() {
		defer cancel()
		b.listen()
	})
	t.Cleanup(func() { b.stop() })
	b.next(t)
	return b
}

// listen notes silences that are longer than a busy machine makes.
func (b *beat) listen() {
	last := time.Now()
	buf := make([]byte, 1500)
	for {
		if _, err := b.conn.Read(buf); err != nil {
			return
		}
		b.mu.Lock()
		if silence := time.Since(last); silence > 5*time.Millisecond || len(b.silences) == 0 {
			b.silences = append(b.silences, silence)
		}
		last = time.Now()
		close(b.heard)
		b.heard = make(chan struct{})
		b.mu.Unlock()
	}
}

// next waits for an answer to come.
func (b *beat) next(t testing.TB) {
	t.Helper()
	for range 3 { // answers to earlier datagrams may still be on their way
		b.mu.Lock()
		heard := b.heard
		b.mu.Unlock()
		select {
		case <-heard:
		case <-testContext(t).Done():
			t.Fatalf("the flow %v is dead", b.conn.LocalAddr())
		}
	}
}

func (b *beat) stop() []time.Duration {
	_ = b.conn.Close()
	b.task.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.silences
}
