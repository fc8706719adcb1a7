package session

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/lifecycle"
	"github.com/sessiond/sessiond/internal/lsn"
	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/nftnat/memnat"
	"github.com/sessiond/sessiond/internal/subscriber"
)

// BenchmarkLife measures changes of subscribers without reading the feed and
// writing bindings: a Start, an Interim and a Stop of each, with all executors,
// on the kernel's in-memory twin. One operation is one change.
func BenchmarkLife(b *testing.B) {
	const subscribers, batch = 20_000, 96
	l := newLife(b)
	b.ReportAllocs()
	b.ResetTimer()
	for n := 0; n < b.N; n += 3 * batch {
		first := n / 3 % subscribers
		l.round(b, first, batch, l.start)
		l.round(b, first, batch, l.interim)
		l.round(b, first, batch, l.stop)
	}
}

// life is a Manager whose executors the test runs itself.
type life struct {
	*Manager
	*Backend
	group   *group
	entry   int
	changes []subscriber.Change
	packer  subscriber.Packer
	batch   []lifecycle.Write
	done    []lifecycle.Work
	entries []nat.Entry
	writes  map[string]*writes
}

// lifeStore takes all bindings.
type lifeStore struct{ Store }

func (lifeStore) LogsNAT() bool { return false }

func (lifeStore) SaveBindings(context.Context, string, []nat.Binding, []nat.Place) error { return nil }

func newLife(b testing.TB) *life {
	return newLifeOf(b, lsn.GroupConfig{
		Name: "default", Inside: testGroup.Inside, Outside: []netip.Prefix{netip.MustParsePrefix("198.18.0.0/20")},
		FirstPort: 1024, LastPort: 65535, BlockSize: 512, Hold: 2 * time.Minute,
	})
}

// newLifeOf is newLife with these groups; the test drives the first.
func newLifeOf(b testing.TB, groups ...lsn.GroupConfig) *life {
	var inside []netip.Prefix
	for _, g := range groups {
		inside = append(inside, g.Inside...)
	}
	kernel, err := memnat.New(inside, someSettings.IdleTimeouts)
	if err != nil {
		b.Fatal(err)
	}
	settings := someSettings
	settings.Removal = inspect.RemovalOn
	m, err := New(Options{
		Store: lifeStore{}, Kernel: kernel, Groups: groups, Node: "test", Settings: settings,
		Observer: &counts{removed: map[subscriber.Reason]int{}, seen: map[subscriber.Reason]int{}}, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		b.Fatal(err)
	}
	return &life{Manager: m, Backend: m.Backend(), group: m.groups[groups[0].Name], writes: map[string]*writes{}}
}

// round applies a change for each of n subscribers, and runs the executors
// until all is done.
func (l *life) round(b testing.TB, first, n int, change func(i int, c *subscriber.Change) subscriber.Record) {
	l.changes = l.changes[:0]
	var id string
	for i := range n {
		if i%32 == 0 {
			l.entry++
			id = fmt.Sprintf("%d-0", 1_700_000_000_000+l.entry)
		}
		c := subscriber.Change{ID: subscriber.ParseVersion(id)}
		r := change(first+i, &c)
		r.Version = id
		c.Record = l.packer.Pack(&r)
		l.changes = append(l.changes, c)
	}
	l.Manager.follower.apply(l.group, l.changes, id)
	l.settle(b)
}

func (l *life) settle(b testing.TB) {
	ctx := b.Context()
	now, cancel := context.WithCancel(ctx) // Dequeue with it does not wait
	cancel()
	for range 3 { // no change needs more rounds
		if batch, _ := l.executors.saves.Dequeue(now, l.batch[:0]); len(batch) > 0 {
			l.batch = batch
			_ = l.executors.save(ctx, l.batch, l.writes)
		}
		if batch, _ := l.executors.opens.Dequeue(now, l.done[:0]); len(batch) > 0 {
			l.done = batch
			l.entries, _ = l.executors.apply(ctx, l.done, l.entries, l.Manager.life.Programmed)
		}
		if batch, _ := l.executors.cuts.Dequeue(now, l.done[:0]); len(batch) > 0 {
			l.done = batch
			l.entries, _ = l.executors.apply(ctx, l.done, l.entries, l.executors.closed)
		}
		if batch, _ := l.executors.reaps.Dequeue(now, l.done[:0]); len(batch) > 0 {
			l.done = batch
			inside := make([]netip.Addr, len(l.done))
			for i, w := range l.done {
				inside[i] = w.Inside
			}
			proofs, _ := l.executors.kernel.Reap(ctx, inside)
			l.executors.reaped(l.done, proofs)
		}
	}
	if l.Manager.life.Busy()+l.Manager.life.Writes().Len() > 0 {
		b.Fatalf("%d slots are busy still, %d bindings unsaved", l.Manager.life.Busy(), l.Manager.life.Writes().Len())
	}
}

func (l *life) key(i int) subscriber.Key {
	var inside [4]byte
	binary.BigEndian.PutUint32(inside[:], 100<<24|64<<16+uint32(i)+1)
	return subscriber.Key{Group: l.group.Name, Inside: netip.AddrFrom4(inside)}
}

func (l *life) start(i int, c *subscriber.Change) subscriber.Record {
	at := time.UnixMilli(1_700_000_000_000)
	c.Kind = subscriber.Created
	return subscriber.Record{
		Key:       l.key(i),
		SessionID: subscriber.SessionID{Client: "load", NAS: "nas7", AcctSessionID: "0000000012345678"},
		UserName:  "subscriber@example.net", CallingStationID: "02:00:00:00:00:01",
		StartedAt: at, UpdatedAt: at, ExpiresAt: at.Add(time.Hour),
	}
}

func (l *life) interim(i int, c *subscriber.Change) subscriber.Record {
	at := time.UnixMilli(1_700_000_000_000)
	c.Kind, c.Partial = subscriber.Updated, true
	return subscriber.Record{
		Key: l.key(i), UpdatedAt: at, ExpiresAt: at.Add(2 * time.Hour), Counters: subscriber.Counters{InputOctets: 1, OutputOctets: 2},
	}
}

func (l *life) stop(i int, c *subscriber.Change) subscriber.Record {
	c.Kind, c.Partial, c.Reason, c.Cause = subscriber.Deleted, true, subscriber.ReasonStop, 1
	return subscriber.Record{Key: l.key(i), Counters: subscriber.Counters{InputOctets: 3, OutputOctets: 4}}
}
