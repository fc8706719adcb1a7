package radiusacct_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/radiusacct"
)

// TestFloodKeepsToItself_ACCT26_I10 lets client "a" overflow its cache and its queue while
// client "b" has a cached reply and a waiting request.
func TestFloodKeepsToItself_ACCT26_I10(t *testing.T) {
	l := start(t, func(o *radiusacct.Options) {
		o.Workers, o.QueueLength, o.BatchSize, o.CacheBytes = 1, 8, 4, 16<<10
	})
	b := newNAS(t, "127.0.0.9", l.addr)
	cached := resign(startRequest(1, "b1"), "secret-of-b")
	reply := b.ask(cached, "secret-of-b")

	flooder := newNAS(t, "127.0.0.2", l.addr)
	for id := range 200 {
		flooder.ask(startRequest(byte(id), fmt.Sprint("a", id)), secret)
	}
	if again := b.ask(cached, "secret-of-b"); !bytes.Equal(again, reply) {
		t.Error("the flood evicted another client's reply")
	}

	resume := l.recorder.stall()
	defer resume()
	for id := range 200 {
		flooder.send(startRequest(byte(id), fmt.Sprint("c", id)))
	}
	l.observer.wait(t, radiusacct.ResultDropped, 200-8-4)
	waiting := resign(startRequest(2, "b2"), "secret-of-b")
	b.send(waiting)
	resume()
	b.receive()
	if got := l.observer.count("b/start/" + radiusacct.ResultDropped); got != 0 {
		t.Errorf("%d requests of the other client dropped", got)
	}
}

// badRequests returns the packets of floods: from unknown sources, without the secret, and
// malformed.
func badRequests() map[string][]byte {
	return map[string][]byte{
		"unknown code":       packet(1, 1, secret),
		"forged":             resign(startRequest(1, "forged"), "wrong"),
		"truncated":          startRequest(1, "s")[:30],
		"broken attributes":  startRequest(1, "s", []byte{25, 1, 0}),
		"forged status":      statusServer(1, "wrong"),
		"no status type":     packet(4, 1, secret),
		"too many addresses": startRequest(1, "s", manyAddresses()),
	}
}

func manyAddresses() []byte {
	var all []byte
	for i := range 600 {
		all = append(all, framed(netip.AddrFrom4([4]byte{100, 65, byte(i >> 8), byte(i)}).String())...)
	}
	return all
}

// TestFloodLeavesNoMemory_ACCT26_I10 sends refused packets from ever new ports, and
// measures the heap.
func TestFloodLeavesNoMemory_ACCT26_I10(t *testing.T) {
	l := start(t)
	b := newNAS(t, "127.0.0.9", l.addr)
	cached := resign(startRequest(1, "b1"), "secret-of-b")
	reply := b.ask(cached, "secret-of-b")
	bad := badRequests()
	sent := 0
	volley := func(ports int) {
		for range ports {
			flooder := newNAS(t, "127.0.0.2", l.addr)
			stranger := newNAS(t, "127.0.1.1", l.addr)
			for _, request := range bad {
				flooder.send(request)
				stranger.send(request)
			}
			flooder.silent()
			flooder.conn.Close()
			stranger.conn.Close()
			sent += len(bad)
		}
		l.observer.wait(t, radiusacct.ResultUnknownClient, sent)
	}
	volley(20)
	before := heap()
	volley(500)
	if grown := int64(heap()) - int64(before); grown > 1<<20 {
		t.Errorf("the heap grew by %d KiB", grown>>10)
	}
	if again := b.ask(cached, "secret-of-b"); !bytes.Equal(again, reply) {
		t.Error("the flood evicted another client's reply")
	}
}

func heap() uint64 {
	runtime.GC()
	runtime.GC() // frees objects with finalizers
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestRadSecFloodLeavesNoMemory_RSEC03 opens and breaks connections.
func TestRadSecFloodLeavesNoMemory_RSEC03(t *testing.T) {
	l := startRadSec(t)
	good := l.connect(t, "b.example")
	cached := secure(startRequest(1, "b1"))
	reply := good.ask(cached)
	certified := l.config(l.ca.issue("a.example"))
	refused, closed := 0, 0
	volley := func(n int) {
		for range n {
			if conn, err := net.Dial("tcp", l.tls.String()); err == nil { // no TLS at all
				conn.Write(bytes.Repeat([]byte("x"), 100))
				io.Copy(io.Discard, conn)
				conn.Close()
				refused++
			}
			if conn, err := l.dial(certified); err == nil { // a client whose packet is invalid
				conn.Write(startRequest(1, "s"))
				io.Copy(io.Discard, conn)
				conn.Close()
				closed++
			}
		}
		l.observer.wait(t, "refused//handshake", refused)
		l.observer.wait(t, "closed/a/violation", closed)
	}
	volley(10)
	before := heap()
	volley(100)
	if grown := int64(heap()) - int64(before); grown > 1<<20 {
		t.Errorf("the heap grew by %d KiB", grown>>10)
	}
	if again := good.ask(cached); !bytes.Equal(again, reply) {
		t.Error("the flood evicted another client's reply")
	}
}

// BenchmarkFlood measures the time to the reply of a good client during a flood, and during
// the same flood to a socket without a reader: both include the cost of the flood's
// generator. "x-elsewhere" is the ratio of the medians, "p99-x-elsewhere" that of the 99th
// percentiles. scripts/bench-flood.sh does the same with whole daemons.
func BenchmarkFlood(b *testing.B) {
	const rate = 20_000 // packets a second
	floods := badRequests()
	floods["strangers"] = startRequest(1, "s")
	floods["a client's own"] = nil // sound Starts, each of them new
	for name, request := range floods {
		b.Run(name, func(b *testing.B) { benchmarkFlood(b, name, request, rate) })
	}
}

func benchmarkFlood(b *testing.B, name string, request []byte, rate int) {
	l := start(b)
	good := newNAS(b, "127.0.0.9", l.addr)
	from := "127.0.0.2"
	if name == "strangers" {
		from = "127.0.1.1"
	}
	unread := newNAS(b, "127.0.0.3", l.addr)
	elsewhere := unread.conn.LocalAddr().(*net.UDPAddr).AddrPort()
	stop := startFlood(b, newNAS(b, from, elsewhere), request, rate)
	spared := waits(good, b.N)
	stop()
	stop = startFlood(b, newNAS(b, from, l.addr), request, rate)
	b.ResetTimer()
	flooded := waits(good, b.N)
	b.StopTimer()
	sent := stop()
	b.ReportMetric(ratio(flooded, spared, 50), "x-elsewhere")
	b.ReportMetric(ratio(flooded, spared, 99), "p99-x-elsewhere")
	b.ReportMetric(float64(sent)/b.Elapsed().Seconds(), "flood/s")
}

// waits sends requests one after the other and returns the sorted times to their replies.
func waits(n *nas, times int) []time.Duration {
	all := make([]time.Duration, 0, times)
	for i := range times {
		request := resign(startRequest(byte(i), fmt.Sprint("good", i)), "secret-of-b")
		began := time.Now()
		n.ask(request, "secret-of-b")
		all = append(all, time.Since(began))
	}
	slices.Sort(all)
	return all
}

func ratio(a, b []time.Duration, percent int) float64 {
	at := func(sorted []time.Duration) float64 { return sorted[len(sorted)*percent/100].Seconds() }
	return at(a) / at(b)
}

// startFlood sends at a rate until stop is called, which returns the number of packets
// sent. Without a request it sends sound ones, each new.
func startFlood(b *testing.B, n *nas, request []byte, rate int) (stop func() int) {
	done := make(chan struct{})
	var sending sync.WaitGroup
	sent := 0
	sending.Go(func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			for range rate / 1000 {
				if sent++; request == nil {
					n.send(numbered(sent))
				} else {
					n.send(request)
				}
			}
		}
	})
	return func() int {
		close(done)
		sending.Wait()
		return sent
	}
}

// numbered returns a valid Start that differs from all others.
func numbered(i int) []byte {
	return startRequest(byte(i), string(binary.BigEndian.AppendUint64(nil, uint64(i))))
}
