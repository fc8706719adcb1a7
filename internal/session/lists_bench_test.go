package session

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// newCrowdedLife returns a life with n subscribers online: a thousand of each
// NAS, all with different names and a binding.
func newCrowdedLife(b *testing.B, n int) *life {
	l := newLifeOf(b, crowdGroup)
	l.settled = true
	for first := 0; first < n; first += 1000 {
		l.round(b, first, 1000, func(i int, c *subscriber.Change) subscriber.Record {
			r := l.start(i, c)
			r.NAS, r.UserName = fmt.Sprint("nas", i/1000), fmt.Sprintf("user-%d@example.net", i)
			r.CallingStationID, r.AcctSessionID = station(i), fmt.Sprintf("%08X", i)
			return r
		})
	}
	return l
}

// station is the Calling-Station-Id of a subscriber.
func station(i int) string {
	return fmt.Sprintf("02-00-5E-%02X-%02X-%02X", i>>16&0xff, i>>8&0xff, i&0xff)
}

// benchSearch measures searches by fields without an index for the last subscriber: the first call, which
// looks at 50,000 of them, and all calls until it is found.
func (l *life) benchSearch(b *testing.B, n int) {
	last := n - 1
	for name, f := range map[string]inspect.SubscriberFilter{
		"station":    {Station: inspect.NewStation(strings.ReplaceAll(strings.ToLower(station(last)), "-", ":"))},
		"session-id": {AcctSessionID: fmt.Sprintf("%08X", last)},
	} {
		b.Run(fmt.Sprintf("%s-first/%d", name, n), func(b *testing.B) {
			for b.Loop() {
				if page, _, err := l.Subscribers(b.Context(), f, subscriber.Key{}, 1000); err != nil || len(page) != 0 {
					b.Fatal(len(page), err)
				}
			}
		})
		b.Run(fmt.Sprintf("%s-found/%d", name, n), func(b *testing.B) {
			for b.Loop() {
				rows := 0
				for after, more := (subscriber.Key{}), true; more; more = after != (subscriber.Key{}) {
					page, next, err := l.Subscribers(b.Context(), f, after, 1000)
					if err != nil {
						b.Fatal(err)
					}
					rows, after = rows+len(page), next
				}
				if rows != 1 {
					b.Fatal(rows)
				}
			}
		})
	}
	for name, f := range map[string]inspect.BindingFilter{
		"holder": {UserName: fmt.Sprintf("user-%d@example.net", last)}, "holder-session": {AcctSessionID: fmt.Sprintf("%08X", last)},
	} {
		b.Run(fmt.Sprintf("%s-found/%d", name, n), func(b *testing.B) {
			for b.Loop() {
				rows := 0
				for after, more := (inspect.BindingKey{}), true; more; more = after != (inspect.BindingKey{}) {
					page, next, err := l.Bindings(b.Context(), f, after, 1000)
					if err != nil {
						b.Fatal(err)
					}
					rows, after = rows+len(page), next
				}
				if rows != 1 {
					b.Fatal(rows)
				}
			}
		})
	}
}

// BenchmarkLists measures each kind of list without gRPC, by the number of
// online subscribers. "all" is per subscriber, in pages of 1000; the others are
// one call.
func BenchmarkLists(b *testing.B) {
	for _, n := range []int{100_000, 1_000_000} {
		l := newCrowdedLife(b, n)
		subscribers := func(name string, f inspect.SubscriberFilter, after, limit, rows int) {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					key := subscriber.Key{}
					if after > 0 {
						key = l.key(after)
					}
					if page, _, err := l.Subscribers(b.Context(), f, key, limit); err != nil || len(page) != rows {
						b.Fatal(len(page), err)
					}
				}
			})
		}
		user := fmt.Sprintf("user-%d@example.net", n/2)
		subscribers("first", inspect.SubscriberFilter{}, 0, 1000, 1000)
		subscribers("middle", inspect.SubscriberFilter{}, n/2, 1000, 1000)
		subscribers("user", inspect.SubscriberFilter{UserName: user}, 0, 1000, 1)
		subscribers("nas", inspect.SubscriberFilter{NAS: "nas50"}, 0, 1000, 1000)
		subscribers("inside", inspect.SubscriberFilter{Inside: netip.MustParsePrefix("100.64.9.0/24")}, 0, 1000, 256)
		subscribers("prefix", inspect.SubscriberFilter{UserPrefix: fmt.Sprintf("user-%d", n/200)}, 0, 1000, 111)
		subscribers("prefix-of-all", inspect.SubscriberFilter{UserPrefix: "user-"}, 0, 1000, 1000)
		subscribers("outside", inspect.SubscriberFilter{Outside: netip.MustParsePrefix("198.18.1.7/32")}, 0, 1000, 126)
		b.Run(fmt.Sprint("by-name/", n), func(b *testing.B) {
			for b.Loop() {
				after := inspect.NameKey{UserName: user}
				if page, _, err := l.SubscribersByName(b.Context(), inspect.SubscriberFilter{}, after, 1000); err != nil || len(page) != 1000 {
					b.Fatal(len(page), err)
				}
			}
		})
		subscribers("nobody", inspect.SubscriberFilter{UserName: "nobody"}, 0, 1000, 0)
		b.Run(fmt.Sprint("all/", n), func(b *testing.B) {
			for b.Loop() {
				rows := 0
				for after, more := (subscriber.Key{}), true; more; more = after != (subscriber.Key{}) {
					page, next, err := l.Subscribers(b.Context(), inspect.SubscriberFilter{}, after, 1000)
					if err != nil {
						b.Fatal(err)
					}
					rows, after = rows+len(page), next
				}
				if rows != n {
					b.Fatal(rows)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/row")
		})
		l.benchBindings(b, n)
		l.benchSearch(b, n)
	}
}

func (l *life) benchBindings(b *testing.B, n int) {
	for name, f := range map[string]inspect.BindingFilter{
		"first":   {},
		"outside": {Outside: netip.MustParsePrefix("198.18.1.7/32")},
		"held":    {State: nat.Held},
	} {
		b.Run(fmt.Sprintf("bindings-%s/%d", name, n), func(b *testing.B) {
			for b.Loop() {
				if _, _, err := l.Bindings(b.Context(), f, inspect.BindingKey{}, 1000); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run(fmt.Sprintf("removals/%d", n), func(b *testing.B) {
		for b.Loop() {
			if _, _, err := l.Removals(b.Context(), inspect.RemovalFilter{}, inspect.RemovalKey{}, 1000); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkListDelaysACut measures the longest wait for the lock of a task that
// closes a gate, while lists of all subscribers run one after the other.
func BenchmarkListDelaysACut(b *testing.B) {
	l := newCrowdedLife(b, 100_000)
	ctx, stop := context.WithCancel(b.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for after := (subscriber.Key{}); ctx.Err() == nil; {
			_, next, err := l.Subscribers(ctx, inspect.SubscriberFilter{}, after, 1000)
			if err != nil {
				b.Error(err)
				return
			}
			after = next
		}
	}()
	var longest time.Duration
	for b.Loop() {
		began := time.Now()
		l.mu.Lock()
		waited := time.Since(began)
		l.mu.Unlock()
		longest = max(longest, waited)
	}
	stop()
	<-done
	b.ReportMetric(float64(longest.Microseconds()), "longest-us")
}
