package nftnat

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/netlab"
	"golang.org/x/sys/unix"
)

// BenchmarkFlush flushes nftables under one live flow among many idle subscribers. It measures
// the silence of the flow, and the time until every element is back.
func BenchmarkFlush(b *testing.B) {
	for _, size := range []int{1000, 100_000, 1_000_000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) { benchmarkFlush(b, size) })
	}
}

func benchmarkFlush(b *testing.B, size int) {
	lab := newLab(b)
	echo, err := lab.StartEcho(netip.AddrPortFrom(lab.Remotes[0], 7000))
	if err != nil {
		b.Fatal(err)
	}
	w := wireTest{Lab: lab, Kernel: startKernel(b, labOptions(lab)), echo: echo}
	if err := w.Apply(b.Context(), append(crowd(65, size), blockOf(alice, nat.GateOpen, 0))); err != nil {
		b.Fatal(err)
	}
	flow := w.beat(b, netip.AddrPortFrom(alice, 6000))
	var back []time.Duration
	for b.Loop() {
		began := time.Now()
		run(b, lab, "nft", "flush", "ruleset")
		flow.next(b)
		if err := w.Learn(b.Context(), nil); err != nil { // waits for its turn
			b.Fatal(err)
		}
		back = append(back, time.Since(began))
	}
	silences := flow.stop()
	b.ReportMetric(float64(slices.Max(silences).Milliseconds()), "silence-ms")
	b.ReportMetric(slices.Max(back).Seconds(), "all-back-s")
}

// BenchmarkForward measures the cost of a datagram from a subscriber to the internet with the
// barrier and without it: nanoseconds of processor, and their ratio.
func BenchmarkForward(b *testing.B) {
	const datagrams = 20_000
	lab := newLab(b)
	k := openForTraffic(b, labOptions(lab))
	apply(b, k, blockOf(alice, nat.GateOpen, 0))
	conn, err := lab.Subscriber.Dial(b.Context(), "udp4", netip.AddrPortFrom(alice, 6000), netip.AddrPortFrom(lab.Remotes[0], 9))
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	burst := func() (spent int64) {
		before := processorTime(b)
		for range datagrams {
			_, _ = conn.Write([]byte("?"))
		}
		return processorTime(b) - before
	}
	burst()
	var with, without int64
	for b.Loop() {
		with += burst()
		run(b, lab, "tc", "qdisc", "del", "dev", netlab.OutsideInterface, "clsact")
		without += burst()
		k.barrier.Restore()
	}
	sent := float64(b.N) * datagrams
	b.ReportMetric(float64(with)/sent, "ns/with")
	b.ReportMetric(float64(without)/sent, "ns/without")
	b.ReportMetric(float64(with)/float64(without), "ratio")
}

// BenchmarkWays measures the cost of a datagram of an established flow each way, in
// nanoseconds of processor.
func BenchmarkWays(b *testing.B) {
	const datagrams = 20_000
	lab := newLab(b)
	k := openForTraffic(b, labOptions(lab))
	apply(b, k, blockOf(alice, nat.GateOpen, 0))
	remote, err := lab.Internet.ListenUDP(netip.AddrPortFrom(lab.Remotes[0], 9))
	if err != nil {
		b.Fatal(err)
	}
	defer remote.Close()
	conn, err := lab.Subscriber.Dial(b.Context(), "udp4", netip.AddrPortFrom(alice, 6000), netip.AddrPortFrom(lab.Remotes[0], 9))
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("?")); err != nil {
		b.Fatal(err)
	}
	_, outside, err := remote.ReadFromUDPAddrPort(make([]byte, 16))
	if err != nil {
		b.Fatal(err)
	}
	burst := func(send func() error) (spent int64) {
		before := processorTime(b)
		for range datagrams {
			_ = send()
		}
		return processorTime(b) - before
	}
	out := func() error { _, err := conn.Write([]byte("?")); return err }
	in := func() error { _, err := remote.WriteToUDPAddrPort([]byte("!"), outside); return err }
	burst(out)
	burst(in)
	var spentOut, spentIn int64
	for b.Loop() {
		spentOut += burst(out)
		spentIn += burst(in)
	}
	sent := float64(b.N) * datagrams
	b.ReportMetric(float64(spentOut)/sent, "ns/out")
	b.ReportMetric(float64(spentIn)/sent, "ns/in")
}

// processorTime returns the processor time that the process has used, in nanoseconds.
func processorTime(b *testing.B) int64 {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u.Stime.Nano() + u.Utime.Nano()
}
