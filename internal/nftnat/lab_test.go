package nftnat

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/testenv"
)

const testTable = "sessiond"

var (
	alice = netip.MustParseAddr("100.64.0.10")
	bob   = netip.MustParseAddr("100.64.0.11")
	pool  = netip.MustParsePrefix("198.51.100.0/28")
	eip   = netip.MustParseAddr("198.51.100.1")

	testTimeouts = nat.Timeouts{
		TCPEstablished: 7440 * time.Second,
		TCPTransitory:  240 * time.Second,
		UDP:            300 * time.Second,
		ICMP:           60 * time.Second,
	}
)

// blockOf is a block of 512 ports on the one outside address of most tests.
func blockOf(inside netip.Addr, gate nat.Gate, index int) nat.Entry {
	first := nat.Port(1024 + 512*index)
	return nat.Entry{Inside: inside, Gate: gate, Block: nat.Block{Outside: eip, First: first, Last: first + 511}}
}

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func newLab(t testing.TB) *netlab.Lab {
	t.Helper()
	testenv.Require(t, testenv.Root|testenv.Nft|testenv.Conntrack)
	lab, err := netlab.New(netlab.Options{})
	if err != nil {
		t.Fatalf("build lab: %v", err)
	}
	t.Cleanup(func() { _ = lab.Close() })
	return lab
}

func labOptions(lab *netlab.Lab) Options {
	return Options{
		NetNS: lab.CGN.Name(), Table: testTable,
		InsideInterfaces:  []string{netlab.InsideInterface},
		OutsideInterfaces: []string{netlab.OutsideInterface},
		InsidePrefixes:    []netip.Prefix{netip.MustParsePrefix("100.64.0.0/10")},
		OutsidePrefixes:   []netip.Prefix{pool},
		Timeouts:          testTimeouts,
		Logger:            slog.New(slog.DiscardHandler),
	}
}

// dialAndStart opens a Kernel as the daemon does, without running it.
func dialAndStart(ctx context.Context, o Options) (*Kernel, error) {
	k, err := DialKernel(o)
	if err != nil {
		return nil, err
	}
	if err := k.Start(ctx); err != nil {
		return nil, errors.Join(err, k.Close())
	}
	return k, nil
}

// openKernel opens a Kernel, without running it, that is closed at the end.
func openKernel(t testing.TB, o Options) *Kernel {
	t.Helper()
	k, err := dialAndStart(testContext(t), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = k.Close() })
	return k
}

// openForTraffic opens a Kernel, without running it, that has a short way for established flows.
func openForTraffic(b testing.TB, o Options) *Kernel {
	b.Helper()
	k := openKernel(b, o)
	_, labels, err := k.sweepUntranslated(testContext(b))
	if err != nil {
		b.Fatal(err)
	}
	if err := k.relabel(testContext(b), labels); err != nil {
		b.Fatal(err)
	}
	return k
}

// startKernel opens a Kernel and runs it until the end of the test.
func startKernel(t testing.TB, o Options) *Kernel {
	t.Helper()
	k := openKernel(t, o)
	runKernel(t, k)
	return k
}

// runKernel runs a Kernel until the end of the test.
func runKernel(t testing.TB, k *Kernel) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var task sync.WaitGroup
	task.Go(func() {
		if err := k.Run(ctx); err != nil && ctx.Err() == nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); task.Wait() })
	select {
	case <-k.Ready():
	case <-testContext(t).Done():
		t.Fatal("the session index is not ready in time")
	}
	testenv.Eventually(t, "the short way of established flows to begin", k.hasShortWay)
}

func apply(t testing.TB, k interface {
	Apply(context.Context, []nat.Entry) error
}, entries ...nat.Entry) {
	t.Helper()
	if err := k.Apply(testContext(t), entries); err != nil {
		t.Fatal(err)
	}
}

// run runs a command in the CGN namespace.
func run(t testing.TB, lab *netlab.Lab, name string, args ...string) string {
	t.Helper()
	out, err := lab.CGN.Output(testContext(t), name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// logLines collects the log lines of a Kernel.
type logLines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logLines) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

func (l *logLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}
