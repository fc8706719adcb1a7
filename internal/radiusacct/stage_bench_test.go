package radiusacct

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/radiusacct/wire"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb"
	"github.com/sessiond/sessiond/internal/testenv"
	"github.com/sessiond/sessiond/internal/udpbatch"
)

// Benchmarks of the stages of one request, in order, so that the next bottleneck shows. One
// operation is one packet; scripts/bench.sh makes a table of them.

// stageBatch is the number of packets in a batch.
const stageBatch = 64

// pair returns a socket of the server and one connected to it, both in batches.
func pair(b *testing.B) (server, peer *udpbatch.Conn) {
	b.Helper()
	sock, err := openSocket(&Options{ListenUDP: bindUDP}, "127.0.0.1:0", 0)
	if err != nil {
		b.Fatal(err)
	}
	conn, err := net.DialUDP("udp4", nil, sock.LocalAddr().(*net.UDPAddr))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { sock.Close(); conn.Close() })
	if peer, err = udpbatch.New(conn); err != nil {
		b.Fatal(err)
	}
	return sock.batches, peer
}

// never has a Writer give up a message that cannot be sent, which fails the benchmark.
func never(b *testing.B) func(error) bool {
	return func(err error) bool { b.Error(err); return false }
}

// BenchmarkStageReceive measures reading datagrams from the kernel.
func BenchmarkStageReceive(b *testing.B) {
	server, peer := pair(b)
	reader, writer := server.NewReader(receiveBatch, datagramLength, controlLength), peer.NewWriter(stageBatch, never(b))
	octets := make([]byte, 150)
	var some []udpbatch.Datagram
	b.ReportAllocs()
	for b.Loop() {
		if len(some) == 0 {
			b.StopTimer()
			for range stageBatch {
				writer.Add(udpbatch.Datagram{Octets: octets})
			}
			writer.Flush()
			b.StartTimer()
			var err error
			if some, err = reader.Read(); err != nil {
				b.Fatal(err)
			}
		}
		some = some[1:]
	}
}

// BenchmarkStageDuplicates measures entering a request into the duplicate cache and keeping
// its reply there.
func BenchmarkStageDuplicates(b *testing.B) {
	now := time.Now()
	d := newReplyCache(32<<20, now)
	reply := make([]byte, wire.HeaderLen)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		key := exchangeKey{identifier: byte(i), socket: uint16(i >> 8)}
		x, _, _ := d.begin(key, [16]byte{byte(i >> 16)}, wire.HeaderLen, now, nil)
		d.complete(x, reply, now)
	}
}

// stageEvent returns the i-th of many events, each of another session.
func stageEvent(kind subscriber.EventKind, i int, at time.Time) subscriber.Event {
	return subscriber.Event{
		Kind:      kind,
		SessionID: subscriber.SessionID{Client: "bng", NAS: "bng1", AcctSessionID: fmt.Sprint("session-", i)},
		UserName:  "alice@isp.example", Inside: netip.AddrFrom4([4]byte{100, 64, byte(i >> 8), byte(i)}), At: at,
	}
}

// BenchmarkStageDecide measures the decision on an Interim.
func BenchmarkStageDecide(b *testing.B) {
	at := time.Unix(1_700_000_000, 0)
	begun := subscriber.Decide(subscriber.View{Group: "default"}, stageEvent(subscriber.EventStart, 1, at))
	view := subscriber.View{Group: "default", Session: *begun.Session, Holder: begun.Put}
	ev := stageEvent(subscriber.EventInterim, 1, at.Add(time.Minute))
	b.ReportAllocs()
	for b.Loop() {
		if d := subscriber.Decide(view, ev); d.Put == nil {
			b.Fatal("not refreshed")
		}
	}
}

// BenchmarkStageStore measures making events durable in a Redis, in batches, with their
// decisions and the time of Redis.
func BenchmarkStageStore(b *testing.B) {
	server := testenv.StartRedis(b, "--appendonly", "yes", "--appendfsync", "everysec", "--auto-aof-rewrite-percentage", "0")
	client := redis.NewClient(&redis.Options{Network: "unix", Addr: server.Socket})
	defer client.Close()
	db, err := subscriberdb.New(subscriberdb.Options{Client: client, Node: "bench", Groups: []subscriberdb.Group{
		{Name: "default", Inside: []netip.Prefix{netip.MustParsePrefix("100.64.0.0/10")}, RecordTTL: time.Hour},
	}})
	if err != nil {
		b.Fatal(err)
	}
	const sessions = 64 * stageBatch
	events := make([]subscriber.Event, stageBatch)
	record := func(kind subscriber.EventKind, n int) {
		at := time.Now().Add(time.Duration(n/sessions) * time.Second)
		for i := range events {
			events[i] = stageEvent(kind, (n+i)%sessions, at)
		}
		for _, err := range db.Record(b.Context(), events) {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
	for n := 0; n < sessions; n += stageBatch {
		record(subscriber.EventStart, n)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for n := 0; n < b.N; n += stageBatch {
		record(subscriber.EventInterim, sessions+n)
	}
}

// BenchmarkStageSend measures sending replies through the kernel to a peer on the same
// host.
func BenchmarkStageSend(b *testing.B) {
	server, peer := pair(b)
	if err := peer.Coalesce(); err != nil {
		b.Fatal(err)
	}
	writer := server.NewWriter(stageBatch, never(b))
	reader := server.NewReader(1, datagramLength, controlLength)
	hello := peer.NewWriter(1, never(b))
	hello.Add(udpbatch.Datagram{Octets: []byte("hello")})
	hello.Flush()
	from, err := reader.Read() // for the peer's address, to which the replies go
	if err != nil {
		b.Fatal(err)
	}
	reply := make([]byte, wire.HeaderLen)
	b.ReportAllocs()
	for b.Loop() {
		writer.Add(udpbatch.Datagram{Octets: reply, Peer: from[0].Peer})
	}
}
