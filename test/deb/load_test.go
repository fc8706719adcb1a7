package deb

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"layeh.com/radius/rfc2866"

	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/radiusacct/acctclient"
)

// flows are a subscriber's: one of TCP with both its ends, and one of UDP to an echo.
type flows struct {
	tcp             [2]*net.TCPConn
	inside, outside *netlab.End
	udp             net.Conn
}

func openFlows(t *testing.T, lab *netlab.Lab, from netip.Addr) *flows {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	f := &flows{}
	ln, err := lab.Internet.Listen(ctx, netip.AddrPortFrom(lab.Remotes[0], 0))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	inside, err := lab.Subscriber.Dial(ctx, "tcp4", netip.AddrPortFrom(from, 0), netip.MustParseAddrPort(ln.Addr().String()))
	if err != nil {
		t.Fatal(err)
	}
	outside, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	f.tcp = [2]*net.TCPConn{inside.(*net.TCPConn), outside.(*net.TCPConn)}
	f.inside, f.outside = netlab.NewEnd(inside), netlab.NewEnd(outside)
	lab.Own(f.inside)
	lab.Own(f.outside)
	echo, err := lab.StartEcho(netip.AddrPortFrom(lab.Remotes[1], 7))
	if err != nil {
		t.Fatal(err)
	}
	if f.udp, err = lab.Subscriber.Dial(ctx, "udp4", netip.AddrPortFrom(from, 0), echo.Addr()); err != nil {
		t.Fatal(err)
	}
	lab.Own(f.udp)
	return f
}

// exchange sends a number each way by TCP, and waits for both.
func (f *flows) exchange(ctx context.Context) error {
	for _, way := range [][2]*netlab.End{{f.inside, f.outside}, {f.outside, f.inside}} {
		n, err := way[0].Send()
		if err == nil {
			err = way[1].Await(ctx, n)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// lost returns the segments that TCP had to send again because they were lost: those that came
// twice, since an acknowledgment was late, are told by the receiver (RFC 2883).
func (f *flows) lost() (int, error) {
	lost := 0
	for _, c := range f.tcp {
		raw, err := c.SyscallConn()
		if err != nil {
			return 0, err
		}
		var info *unix.TCPInfo
		controlErr := raw.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) })
		if err := errors.Join(err, controlErr); err != nil {
			return 0, err
		}
		lost += int(info.Total_retrans) - int(info.Dsack_dups)
	}
	return lost, nil
}

// A load is traffic of the flows, and accounting, until it is stopped.
type load struct {
	flows    *flows
	cancel   context.CancelFunc
	tasks    sync.WaitGroup
	lost     int // at the begin
	numbers  atomic.Int64
	sent     atomic.Int64 // datagrams
	received atomic.Int64
	requests atomic.Int64
	answered atomic.Int64

	mu      sync.Mutex
	errs    []error
	slowest time.Duration // answer
	silence time.Duration // longest between two exchanges
}

// Intervals of a load.
const (
	packetEvery  = 2 * time.Millisecond
	requestEvery = 20 * time.Millisecond
)

func startLoad(t *testing.T, f *flows, bng *acctclient.Client) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{flows: f, cancel: cancel}
	var err error
	if l.lost, err = f.lost(); err != nil {
		t.Fatal(err)
	}
	l.every(ctx, packetEvery, func() {
		began := time.Now()
		l.note(f.exchange(context.WithoutCancel(ctx)))
		l.numbers.Add(2)
		l.mu.Lock()
		l.silence = max(l.silence, time.Since(began))
		l.mu.Unlock()
	})
	l.every(ctx, packetEvery, func() {
		_, err := f.udp.Write([]byte("12345678"))
		l.note(err)
		l.sent.Add(1)
	})
	l.tasks.Go(func() { l.receive(ctx) })
	first := netip.MustParseAddr("100.64.1.0")
	l.every(ctx, requestEvery, func() {
		inside := first
		first = first.Next()
		l.requests.Add(1)
		l.tasks.Go(func() { l.account(ctx, bng, inside) })
	})
	return l
}

// every calls fn at an interval until ctx ends.
func (l *load) every(ctx context.Context, interval time.Duration, fn func()) {
	l.tasks.Go(func() {
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				fn()
			}
		}
	})
}

// receive counts what the echo sends back, until ctx has ended and all is there, or a second has
// passed without any.
func (l *load) receive(ctx context.Context) {
	buffer := make([]byte, 2048)
	for {
		_ = l.flows.udp.SetReadDeadline(time.Now().Add(time.Second))
		_, err := l.flows.udp.Read(buffer)
		switch {
		case err == nil:
			l.received.Add(1)
		case ctx.Err() != nil:
			return
		}
		if ctx.Err() != nil && l.received.Load() == l.sent.Load() {
			return
		}
	}
}

func (l *load) account(ctx context.Context, bng *acctclient.Client, inside netip.Addr) {
	began := time.Now()
	if err := bng.Account(context.WithoutCancel(ctx), request(rfc2866.AcctStatusType_Value_Start, inside)); err != nil {
		l.note(fmt.Errorf("request for %v: %w", inside, err))
		return
	}
	l.answered.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.slowest = max(l.slowest, time.Since(began))
}

func (l *load) note(err error) {
	if err != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.errs = append(l.errs, err)
	}
}

// stop ends the load, and checks that nothing was lost of it.
func (l *load) stop(t *testing.T) {
	t.Helper()
	l.cancel()
	l.tasks.Wait()
	lost, err := l.flows.lost()
	if err := errors.Join(append(l.errs, err)...); err != nil {
		t.Error(err)
	}
	if lost -= l.lost; lost != 0 {
		t.Errorf("%d TCP segments were lost", lost)
	}
	if l.sent.Load() != l.received.Load() {
		t.Errorf("of %d datagrams %d came back", l.sent.Load(), l.received.Load())
	}
	if l.requests.Load() != l.answered.Load() || l.requests.Load() == 0 {
		t.Errorf("of %d requests %d were answered", l.requests.Load(), l.answered.Load())
	}
}

func (l *load) String() string {
	return fmt.Sprintf("%d numbers by TCP, the longest round trip %v; %d datagrams of %d came back; %d requests of %d answered at their first transmission, the slowest after %v",
		l.numbers.Load(), l.silence.Round(time.Millisecond), l.received.Load(), l.sent.Load(), l.answered.Load(), l.requests.Load(), l.slowest.Round(time.Millisecond))
}
