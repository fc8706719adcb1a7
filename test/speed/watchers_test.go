package speed

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
	"github.com/sessiond/sessiond/internal/acctload"
	"github.com/sessiond/sessiond/internal/rig"
	"github.com/sessiond/sessiond/internal/testenv"
)

// BenchmarkWatchers measures accounting beside 1,000 watchers, as shares of the same without
// them: the requests a second at full load, and the time to their replies at half of it. One
// watcher wants everything and reads nothing, the others want one subscriber each. Beside them
// one more reads everything, or none, or all others do, with each event in a message of its own or
// with several in one: on a machine of few processors the program that reads takes its share of
// them from sessiond.
func BenchmarkWatchers(b *testing.B) {
	for _, readers := range []int{0, 1, watchers - 1} {
		for _, batch := range []bool{false, true} {
			if readers > 0 || !batch {
				name := map[bool]string{false: "", true: "/batch"}[batch]
				b.Run(fmt.Sprintf("readers=%d%s", readers, name), func(b *testing.B) { benchWatchers(b, readers, batch) })
			}
		}
	}
}

const watchers = 1000

// heedless is a client's codec that decodes nothing.
type heedless struct{ encoding.CodecV2 }

func (heedless) Unmarshal(mem.BufferSlice, any) error { return nil }

func benchWatchers(b *testing.B, readers int, batch bool) {
	const connections = 20
	all := 1 + readers
	testenv.Require(b, testenv.Redis)
	r, err := rig.Start(within(b, 5*time.Minute), rig.Options{
		Sessiond: programs.Sessiond, Sessionctl: programs.Sessionctl, Memory: true, BlockSize: 64, LogLevel: "info",
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := r.Close(); err != nil {
			b.Error(err)
		}
	})
	err = r.Daemon.Edit(func(config string) string {
		return strings.Replace(config, "grpc: {", fmt.Sprintf("grpc: {max_streams: %d, max_streams_per_peer: %[1]d, stall_timeout: 10m, ", watchers), 1)
	})
	if err == nil {
		_, err = r.Daemon.Stop()
	}
	if err == nil {
		err = r.Daemon.Start(within(b, time.Minute))
	}
	if err != nil {
		b.Fatal(err)
	}
	net := byte(64) // each measurement has subscribers of its own, so that none takes over addresses
	measure := func(o acctload.Options) *acctload.Result {
		o.Server, o.Secret, o.NAS = netip.MustParseAddrPort(r.Daemon.RADIUS), []byte(rig.Secret), fmt.Sprint("nas-", net)
		o.Scenario, o.Inside, o.Subscribers = acctload.Mix, netip.PrefixFrom(netip.AddrFrom4([4]byte{100, net}), 16), 2000
		o.Interims, o.Duration = 3, 5*time.Second
		net++
		result, err := acctload.Run(within(b, time.Minute), o)
		if err != nil {
			b.Fatal(err)
		}
		return result
	}
	measure(acctload.Options{Concurrency: 64}) // the first is faster than all others
	for b.Loop() {
		before := measure(acctload.Options{Concurrency: 64})
		half := before.Rate / 2
		quiet := measure(acctload.Options{Rate: half})

		ctx, leave := context.WithCancel(b.Context())
		var reading errgroup.Group
		for c := range connections {
			conn, err := r.Daemon.Dial()
			if err != nil {
				b.Fatal(err)
			}
			for i := c; i < watchers; i += connections {
				req := &pb.WatchSubscribersRequest{Batch: batch}
				if i >= all {
					req.Inside = netip.AddrFrom4([4]byte{100, 127, byte(i >> 8), byte(i)}).String()
				}
				stream, err := pb.NewSubscriberServiceClient(conn).WatchSubscribers(ctx, req, grpc.ForceCodecV2(heedless{encoding.GetCodecV2("proto")}))
				if err != nil {
					b.Fatal(err)
				}
				if _, err := stream.Header(); err != nil {
					b.Fatal(err)
				}
				if i == 0 {
					continue // reads nothing
				}
				reading.Go(func() error {
					for message := new(pb.WatchSubscribersResponse); ; {
						if err := stream.RecvMsg(message); err != nil {
							return err
						}
					}
				})
			}
			defer conn.Close()
		}
		watched := measure(acctload.Options{Concurrency: 64})
		delayed := measure(acctload.Options{Rate: half})
		leave()
		_ = reading.Wait() // each ends with its context
		after := measure(acctload.Options{Concurrency: 64})
		before.Rate = (before.Rate + after.Rate) / 2
		b.ReportMetric(before.Rate, "requests/s")
		b.ReportMetric(after.Rate/before.Rate, "x-rate-after")
		b.ReportMetric(watched.Rate/before.Rate, "x-rate")
		b.ReportMetric(float64(quiet.Latency.Quantile(0.99).Microseconds())/1000, "p99-ms")
		b.ReportMetric(float64(delayed.Latency.Quantile(0.99))/float64(quiet.Latency.Quantile(0.99)), "x-p99")
	}
}
