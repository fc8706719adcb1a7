package system

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sessiond/sessiond/internal/netlab"
	"github.com/sessiond/sessiond/internal/rig"
)

// floodFromInside sends datagrams to an address, each a flow of its own, until stop is
// called. They come from one source address, or from as many consecutive ones as given.
func floodFromInside(ns *netlab.Namespace, target, source netip.Addr, sources uint32) (sent *atomic.Uint64, stop func(), err error) {
	var fd int
	err = ns.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	sent = new(atomic.Uint64)
	var done atomic.Bool
	var task sync.WaitGroup
	task.Go(func() {
		to := unix.SockaddrInet4{Addr: target.As4()}
		p := [29]byte{0: 0x45, 8: 64, 9: unix.IPPROTO_UDP, 28: '?'} // the kernel fills in length and checksum
		copy(p[12:], source.AsSlice())
		copy(p[16:], to.Addr[:])
		binary.BigEndian.PutUint16(p[24:], 9)
		first := binary.BigEndian.Uint32(p[12:])
		for i := 0; !done.Load(); i++ {
			if sources > 1 {
				binary.BigEndian.PutUint32(p[12:], first+rand.Uint32N(sources))
			}
			binary.BigEndian.PutUint16(p[20:], uint16(1024+i%60_000))
			binary.BigEndian.PutUint16(p[22:], uint16(20_000+i/60_000))
			if unix.Sendto(fd, p[:], 0, &to) == nil {
				sent.Add(1)
			}
		}
	})
	return sent, sync.OnceFunc(func() { done.Store(true); task.Wait(); _ = unix.Close(fd) }), nil
}

// TestFloodFromInside_DEL04_I5: packets of inside addresses to the machine itself, which
// pass no gate, delay neither a Start of one of them nor the proof of its removal. Nor do
// packets that a captive portal's rule redirects there. The subscriber's remaining entries
// have no port of a block, and began after the cut.
func TestFloodFromInside_DEL04_I5(t *testing.T) {
	t.Run("to the machine", func(t *testing.T) { surviveFlood(t, netlab.InsideGateway.Addr()) })
	t.Run("redirected", func(t *testing.T) {
		surviveFlood(t, netip.MustParseAddr("203.0.113.99"), "nft",
			"table ip portal { chain c { type nat hook prerouting priority -100; ip daddr 203.0.113.99 redirect; }; }")
	})
}

func surviveFlood(t *testing.T, target netip.Addr, before ...string) {
	w := start(t, rig.Options{LogLevel: "info"})
	if len(before) > 0 {
		_, err := w.Lab.CGN.Output(w.ctx, before[0], before[1:]...)
		w.must(err)
	}
	sent, stop, err := floodFromInside(w.Lab.Subscriber, target, alice, 1)
	w.must(err)
	defer stop()
	w.soon(20*time.Second, func(ctx context.Context) error {
		return w.Until(ctx, "the flood to flow", func() (bool, error) { return sent.Load() > 5_000, nil })
	})
	slowest := time.Duration(0)
	for i := range 15 {
		s := sessionOf(alice, fmt.Sprint("a-", i))
		began := time.Now()
		w.soon(20*time.Second, func(ctx context.Context) error {
			_, err := w.Online(ctx, s)
			return err
		})
		slowest = max(slowest, time.Since(began))
		w.flow(alice)
		began = time.Now()
		w.must(w.Offline(w.ctx, s))
		w.soon(20*time.Second, func(ctx context.Context) error {
			_, err := w.AwaitState(ctx, alice, "HELD")
			return err
		})
		slowest = max(slowest, time.Since(began))
		left, err := w.Lab.CGN.Output(w.ctx, "conntrack", "-L", "-s", alice.String(), "--src-nat")
		w.must(err)
		if len(left) > 0 {
			t.Fatalf("of alice is left:\n%s", left)
		}
	}
	t.Logf("the slowest of Starts and removals took %v", slowest)
	if strings.Contains(w.Daemon.Log(), "keep coming back") {
		t.Error("entries between alice and the machine hold up her removal")
	}
}

// TestFloodWithoutGates_I5_I10: packets to the machine itself, from addresses without a
// gate, each a flow of its own, neither fill the conntrack table nor delay a Start or a
// removal.
func TestFloodWithoutGates_I5_I10(t *testing.T) {
	w := start(t, rig.Options{LogLevel: "info", Hold: time.Second})
	sent, stop, err := floodFromInside(w.Lab.Subscriber, netlab.InsideGateway.Addr(), netip.MustParseAddr("100.80.0.0"), 1<<20)
	w.must(err)
	defer stop()
	began := time.Now()
	w.soon(20*time.Second, func(ctx context.Context) error {
		return w.Until(ctx, "the flood to flow", func() (bool, error) { return sent.Load() > 300_000, nil })
	})
	var online, removed []time.Duration
	for i := range 10 {
		s := sessionOf(alice, fmt.Sprint("a-", i))
		from := time.Now()
		w.soon(40*time.Second, func(ctx context.Context) error { _, err := w.Online(ctx, s); return err })
		online = append(online, time.Since(from))
		f := w.flow(alice)
		from = time.Now()
		w.must(w.Offline(w.ctx, s))
		w.soon(40*time.Second, func(ctx context.Context) error { _, err := w.AwaitState(ctx, alice, "HELD"); return err })
		removed = append(removed, time.Since(from))
		w.must(f.Close())
	}
	rate := float64(sent.Load()) / time.Since(began).Seconds()
	out, err := w.Lab.CGN.Output(w.ctx, "conntrack", "-C")
	w.must(err)
	entries, err := strconv.Atoi(strings.TrimSpace(string(out)))
	w.must(err)
	t.Logf("%.0f packets/s; online after %v; removed after %v; %d entries", rate, online, removed, entries)
	if entries > 60_000 {
		t.Errorf("the flood has %d conntrack entries", entries)
	}
	if slowest := max(slices.Max(online), slices.Max(removed)); slowest > 3*time.Second {
		t.Errorf("a Start or a removal took %v", slowest)
	}
}
