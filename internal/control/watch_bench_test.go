package control_test

import (
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	pb "github.com/sessiond/sessiond/api/proto/sessiond/v1"
	"github.com/sessiond/sessiond/internal/control"
	"github.com/sessiond/sessiond/internal/control/controltest"
	"github.com/sessiond/sessiond/internal/inspect"
)

// heedless is a client codec that decodes nothing, so that the benchmark
// measures the server, and gRPC on both sides.
type heedless struct{ encoding.CodecV2 }

func (heedless) Unmarshal(mem.BufferSlice, any) error { return nil }

// BenchmarkEventToWatchers measures one event on its way to 1,000 watchers on ten
// connections, until all have it.
func BenchmarkEventToWatchers(b *testing.B) {
	const watchers, connections = 1000, 10
	for name, grow := range map[string]func(*inspect.Event){
		"small": func(*inspect.Event) {},
		"large": func(e *inspect.Event) {
			r := &e.Subscriber.Record
			long := strings.Repeat("x", 253)
			r.UserName, r.NAS, r.AcctSessionID, r.Class, r.MoreClasses = long, long, long, long, []string{long, long, long}
		},
	} {
		b.Run(fmt.Sprintf("watchers=%d/%s", watchers, name), func(b *testing.B) {
			scene := controltest.Scene()
			scene.Broadcaster = inspect.NewBroadcaster(inspect.BroadcasterOptions{Octets: 2 << 20})
			server := controltest.Serve(b, scene, func(o *control.Options) {
				o.Limits = control.Limits{Streams: watchers, StreamsPerPeer: watchers}
			})
			var got, leaving sync.WaitGroup
			defer leaving.Wait()
			for range connections {
				conn, err := grpc.NewClient(server.Address, grpc.WithTransportCredentials(insecure.NewCredentials()),
					grpc.WithDefaultCallOptions(grpc.ForceCodecV2(heedless{encoding.GetCodecV2("proto")})))
				if err != nil {
					b.Fatal(err)
				}
				defer conn.Close()
				for range watchers / connections {
					stream, err := pb.NewSubscriberServiceClient(conn).WatchSubscribers(b.Context(), &pb.WatchSubscribersRequest{})
					if err != nil {
						b.Fatal(err)
					}
					if _, err := stream.Header(); err != nil {
						b.Fatal(err)
					}
					leaving.Go(func() {
						message := new(pb.WatchSubscribersResponse)
						for stream.RecvMsg(message) == nil {
							got.Done()
						}
					})
				}
			}
			e := inspect.Event{At: controltest.Now, Kind: inspect.EventUpdated, Subscriber: scene.Online[0]}
			grow(&e)
			b.ReportAllocs()
			for b.Loop() {
				got.Add(watchers)
				scene.Publish(e)
				got.Wait()
			}
		})
	}
}

// BenchmarkEventsToReaders measures bursts of events on their way to readers of everything, each
// event in a message of its own or several in one: the processor time of both sides for each event
// and reader. The readers decode nothing.
func BenchmarkEventsToReaders(b *testing.B) {
	const burst = 500
	for _, readers := range []int{1, 100} {
		for _, batch := range []bool{false, true} {
			b.Run(fmt.Sprintf("readers=%d/batch=%t", readers, batch), func(b *testing.B) {
				scene := controltest.Scene()
				scene.Broadcaster = inspect.NewBroadcaster(inspect.BroadcasterOptions{Octets: 32 << 20})
				server := controltest.Serve(b, scene, func(o *control.Options) {
					o.Limits = control.Limits{Streams: readers, StreamsPerPeer: readers}
				})
				var got, leaving sync.WaitGroup
				defer leaving.Wait()
				conn, err := grpc.NewClient(server.Address, grpc.WithTransportCredentials(insecure.NewCredentials()))
				if err != nil {
					b.Fatal(err)
				}
				defer conn.Close()
				for range readers {
					stream, err := pb.NewSubscriberServiceClient(conn).WatchSubscribers(b.Context(),
						&pb.WatchSubscribersRequest{Batch: batch}, grpc.ForceCodecV2(&counting{CodecV2: encoding.GetCodecV2("proto"), got: &got}))
					if err != nil {
						b.Fatal(err)
					}
					if _, err := stream.Header(); err != nil {
						b.Fatal(err)
					}
					leaving.Go(func() {
						for message := new(pb.WatchSubscribersResponse); stream.RecvMsg(message) == nil; {
						}
					})
				}
				e := inspect.Event{At: controltest.Now, Kind: inspect.EventUpdated, Subscriber: scene.Online[0]}
				began, events := cpuTime(b), 0
				for b.Loop() {
					got.Add(burst * readers)
					for range burst {
						scene.Publish(e)
					}
					got.Wait()
					events += burst
				}
				b.ReportMetric(float64((cpuTime(b)-began).Nanoseconds())/float64(events*readers), "cpu-ns/event")
			})
		}
	}
}

// counting is a client's codec that counts the events of a message, and decodes nothing else.
type counting struct {
	encoding.CodecV2
	got *sync.WaitGroup
}

func (c *counting) Unmarshal(data mem.BufferSlice, _ any) error {
	octets := data.Materialize()
	for len(octets) > 0 { // each event is a field of the message
		_, _, n := protowire.ConsumeField(octets)
		if n < 0 {
			return protowire.ParseError(n)
		}
		octets = octets[n:]
		c.got.Done()
	}
	return nil
}

// cpuTime returns the processor time of the process.
func cpuTime(b *testing.B) time.Duration {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
