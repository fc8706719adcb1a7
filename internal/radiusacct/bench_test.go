package radiusacct

import (
	"context"
	"fmt"
	"net/netip"
	"sync/atomic"
	"testing"

	"layeh.com/radius/rfc2866"

	"github.com/sessiond/sessiond/internal/radiusacct/acctclient"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// taker accepts all events and records none.
type taker struct{ batches, events atomic.Uint64 }

func (r *taker) Record(_ context.Context, events []subscriber.Event) []error {
	r.batches.Add(1)
	r.events.Add(uint64(len(events)))
	return make([]error, len(events))
}

// BenchmarkLoopback measures all stages over loopback with 256 requests in progress, the
// client included, and a Recorder without cost.
func BenchmarkLoopback(b *testing.B) {
	recorder := &taker{}
	client := serveLoopback(b, recorder)
	b.ReportAllocs()
	b.SetParallelism(256)
	var session atomic.Uint64
	b.RunParallel(func(pb *testing.PB) {
		r := acctclient.Request{
			Status: rfc2866.AcctStatusType_Value_Start, UserName: "alice@isp.example", NASIdentifier: "bng1",
			SessionID: fmt.Sprint("session-", session.Add(1)), FramedAddress: netip.MustParseAddr("100.64.0.7"),
		}
		for pb.Next() {
			if err := client.Account(context.Background(), r); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(recorder.events.Load())/float64(recorder.batches.Load()), "events/batch")
	b.ReportMetric(float64(client.Stats().Retransmissions), "retransmissions")
}

// serveLoopback runs a server for the benchmark and returns a client of it.
func serveLoopback(b *testing.B, recorder Recorder) *acctclient.Client {
	server, err := New(Options{
		Listen:   []string{"127.0.0.1:0"},
		Clients:  []Client{{Name: "bng", Prefix: netip.MustParsePrefix("127.0.0.0/8"), Secret: []byte("secret")}},
		Recorder: recorder,
	})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	client, err := acctclient.Dial(ctx, server.Addrs()[0].String(), "", acctclient.Options{Secret: []byte("secret")})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		client.Close()
		cancel()
		if err := <-done; err != nil {
			b.Error(err)
		}
	})
	return client
}
