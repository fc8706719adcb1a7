package control_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"

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
