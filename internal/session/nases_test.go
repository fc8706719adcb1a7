package session

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"testing"
	"time"

	"github.com/sessiond/sessiond/internal/inspect"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb"
)

// report records a current event of a NAS whose clock is ahead by so much.
func (w *world) report(kind subscriber.EventKind, client, nas, id string, inside netip.Addr, ahead time.Duration) {
	w.t.Helper()
	now := time.Now()
	ev := subscriber.Event{
		Kind: kind, Inside: inside, UserName: "user-" + id, Arrival: now, Stamp: now.Add(ahead), Delay: -1, SessionTime: -1,
		SessionID: subscriber.SessionID{Client: client, NAS: nas, AcctSessionID: id}, Sender: subscriber.Sender{Via: client},
	}
	for _, err := range w.db.Record(context.Background(), []subscriber.Event{ev}) {
		if err != nil {
			w.t.Fatal(err)
		}
	}
}

// allNASes lists all matches, page items a page.
func (w *world) allNASes(f inspect.NASFilter, page int) []inspect.NAS {
	w.t.Helper()
	var all []inspect.NAS
	for after := (inspect.NASKey{}); ; after = all[len(all)-1].NASKey {
		list, err := w.NASes(context.Background(), f, after, page)
		if err != nil {
			w.t.Fatal(err)
		}
		if len(list) == 0 {
			return all
		}
		all = append(all, list...)
	}
}

// TestNASes: each NAS is listed with the number of its online subscribers and
// the database's data about it, also by a daemon that has just started.
func TestNASes(t *testing.T) {
	w := newWorld(t, testGroup)
	inside := netip.MustParseAddr("100.64.0.1")
	first := inside
	for i, n := range []struct {
		client, nas string
		ahead       time.Duration
	}{
		{"bng1", "a", 0}, {"bng1", "a", 0}, {"bng1", "b", -8 * time.Hour}, {"bng2", "a\x00", 3 * time.Minute}, {"bng2", "old", -50 * 365 * 24 * time.Hour},
	} {
		w.report(subscriber.EventStart, n.client, n.nas, fmt.Sprint(i), inside, n.ahead)
		inside = inside.Next()
	}
	if _, err := w.Put(context.Background(), subscriber.Record{Key: subscriber.Key{Inside: inside}, UserName: "by hand"}); err != nil {
		t.Fatal(err)
	}
	if err := w.db.Restore(context.Background(), []subscriber.Record{{ // known by its record alone
		Key: subscriber.Key{Group: w.group.Name, Inside: inside.Next()}, UserName: "u",
		SessionID: subscriber.SessionID{Client: "bng3", NAS: "silent", AcctSessionID: "s"},
	}}); err != nil {
		t.Fatal(err)
	}
	w.report(subscriber.EventStop, "bng1", "a", "0", first, 0)
	w.report(subscriber.EventInterim, "bng1", "a", "0", first, 0) // of an ended session
	want := map[inspect.NASKey]inspect.NAS{
		{Client: "bng1", Name: "a"}:      {Subscribers: 1, Clock: inspect.NASClock{Known: true}, Refused: map[string]uint64{"ended": 1}},
		{Client: "bng1", Name: "b"}:      {Subscribers: 1, Clock: inspect.NASClock{Offset: -8 * time.Hour, Known: true}},
		{Client: "bng2", Name: "a\x00"}:  {Subscribers: 1, Clock: inspect.NASClock{Offset: 3 * time.Minute, Known: true}},
		{Client: "bng2", Name: "old"}:    {Subscribers: 1, Clock: inspect.NASClock{Offset: -50 * 365 * 24 * time.Hour, Known: true, Unheeded: true}},
		{Client: "bng3", Name: "silent"}: {Subscribers: 1},
	}
	taken := func() bool {
		n := 0
		for _, v := range w.allNASes(inspect.NASFilter{}, 2) {
			if v.Subscribers == want[v.NASKey].Subscribers {
				n++
			}
		}
		return n == len(want)
	}
	check := func() {
		t.Helper()
		w.until("the feed to be taken", taken)
		list := w.allNASes(inspect.NASFilter{}, 2)
		if len(list) != len(want) {
			t.Errorf("%d NASes, want %d: %+v", len(list), len(want), list)
		}
		for i, n := range list {
			if i > 0 && list[i-1].Compare(n.NASKey) >= 0 {
				t.Errorf("%v stands before %v", list[i-1].NASKey, n.NASKey)
			}
			e := want[n.NASKey]
			if n.Subscribers != e.Subscribers || n.Clock != e.Clock || !maps.Equal(n.Refused, e.Refused) || n.LastHeard.IsZero() != (n.Client == "bng3") {
				t.Errorf("%+v, want %+v", n, e)
			}
		}
	}
	check()
	w.halt()
	w.boot()
	check()
	for f, n := range map[inspect.NASFilter]int{
		{Client: "bng1"}: 2, {Name: "a"}: 1, {Client: "bng3", Name: "silent"}: 1, {Client: "bng3", Name: "a"}: 0,
	} {
		if got := w.allNASes(f, 10); len(got) != n {
			t.Errorf("%+v: %+v, want %d", f, got, n)
		}
	}
}

// TestNASesWithoutRedis: while Redis is down the list fails with an error that
// says so.
func TestNASesWithoutRedis(t *testing.T) {
	w := newWorld(t, testGroup)
	w.server.Kill()
	if list, err := w.NASes(context.Background(), inspect.NASFilter{}, inspect.NASKey{}, 1); !errors.Is(err, inspect.ErrUnavailable) {
		t.Errorf("%v, %v", list, err)
	}
}

// BenchmarkNASes measures a list of 16 NASes with so many subscribers online,
// without the time of Redis.
func BenchmarkNASes(b *testing.B) {
	for _, subscribers := range []int{10_000, 100_000} {
		b.Run(fmt.Sprint(subscribers), func(b *testing.B) {
			l := newLife(b)
			l.Backend.store, l.settled = noNASes{}, true
			inside := netip.MustParseAddr("100.64.0.1")
			for i := range subscribers {
				r := subscriber.Record{
					Key:       subscriber.Key{Group: l.group.Name, Inside: inside},
					SessionID: subscriber.SessionID{Client: "bng1", NAS: fmt.Sprint("nas", i%16), AcctSessionID: fmt.Sprint(i)},
				}
				packed := r.Pack()
				l.Manager.life.Stand(&packed, l.now())
				inside = inside.Next()
			}
			b.ReportAllocs()
			for b.Loop() {
				list, err := l.NASes(b.Context(), inspect.NASFilter{}, inspect.NASKey{}, 100)
				if err != nil || len(list) != 16 || list[0].Subscribers != subscribers/16 {
					b.Fatal(list, err)
				}
			}
		})
	}
}

type noNASes struct{ Store }

func (noNASes) NASes(context.Context) ([]subscriberdb.NAS, error) { return nil, nil }
