package pcp

import (
	"context"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/pcp/wire"
)

// BenchmarkAnswer renews a mapping of each of 1,000 clients in turn, without Redis and the kernel:
// what the server itself costs.
func BenchmarkAnswer(b *testing.B) {
	const clients = 1000
	now := Moment{Wall: began}
	twin := newTwin(func() time.Time { return now.Wall })
	twin.ports = [2]uint16{1024, 65535}
	r := NewResponder(twin, newCounts(), slog.New(slog.DiscardHandler))
	requests := make([]Datagram, clients)
	inside := netip.MustParseAddr("100.64.0.0")
	for i := range requests {
		inside = inside.Next()
		twin.setOnline(inside, began)
		twin.mappings[inside] = []Mapping{{
			Inside: netip.AddrPortFrom(inside, 5000), Protocol: 17, Nonce: nonceOf(1), Outside: netip.AddrPortFrom(public, uint16(1024+i)), Expires: began.Add(time.Hour),
		}}
		request := mapping(5000, 86400)
		request.Client = inside
		requests[i] = Datagram{wire.AppendRequest(nil, request), netip.AddrPortFrom(inside, 4000), gateway, true}
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		now.Wall, now.Uptime = now.Wall.Add(time.Millisecond), now.Uptime+time.Millisecond
		if answer := r.Answer(context.Background(), &requests[i%clients], now); len(answer) != 60 || answer[3] != 0 {
			b.Fatalf("answered with %x", answer)
		}
	}
}
