package subscriberdb

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriber"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/redisconn"
)

// TestBindingRowsInOrder: all rows come, to the letter, by inside address; one that cannot
// be read is among them. Some are longer than a piece of the room that is kept for them.
func TestBindingRowsInOrder(t *testing.T) {
	onEach(t, func(t *testing.T, client redis.UniversalClient) {
		db := newDB(t, client)
		const n = 3*redisconn.ScanCount + 7
		random := rand.New(rand.NewPCG(1, 2))
		want := map[nat.Place]string{}
		var put []nat.Binding
		for i, inside := range random.Perm(n) {
			b := named(outsideAt(i/4), nat.Port(1024+i%4*512), fmt.Sprint("user", inside))
			b.Inside = netip.AddrFrom4([4]byte{100, 64, byte(inside >> 8), byte(inside)})
			if i%500 == 0 {
				b.AcctSessionID = strings.Repeat("x", rowPiece/3)
			}
			want[b.Place()] = string(codec.AppendBinding(nil, &b))
			put = append(put, b)
		}
		if err := db.SaveBindings(t.Context(), "default", put, nil); err != nil {
			t.Fatal(err)
		}
		odd := nat.Place{Outside: outsideAt(n), First: 1024}
		want[odd] = "nonsense"
		client.HSet(t.Context(), codec.BindingsKey("default", codec.BindingPart(odd.Outside)), codec.FormatPlace(odd), want[odd])
		got := map[nat.Place]string{}
		var inside []netip.Addr
		err := db.BindingRowsInOrder(t.Context(), "default", func(rows []BindingRow) error {
			for i := range rows {
				got[rows[i].Place] = rows[i].text
				if b, ok := rows[i].Binding(); ok {
					inside = append(inside, b.Inside)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		compareRows(t, "in order", got, want)
		if len(inside) != n || !slices.IsSortedFunc(inside, netip.Addr.Compare) {
			t.Errorf("%d bindings, in order: %v", len(inside), slices.IsSortedFunc(inside, netip.Addr.Compare))
		}
	})
}

// TestRowsInOrderEnd: whoever takes no more, or is told to end, gets no more rows.
func TestRowsInOrderEnd(t *testing.T) {
	onEach(t, func(t *testing.T, client redis.UniversalClient) {
		db := newDB(t, client)
		oldBindings(t, client, 2*redisconn.ScanCount)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		broken, batches := errors.New("enough"), 0
		take := func([]BindingRow) error { batches++; return broken }
		if err := db.BindingRowsInOrder(ctx, "default", take); !errors.Is(err, broken) || batches != 1 {
			t.Errorf("%v after %d batches", err, batches)
		}
		batches = 0
		take = func([]BindingRow) error { batches++; cancel(); return nil }
		if err := db.BindingRowsInOrder(ctx, "default", take); !errors.Is(err, context.Canceled) || batches != 1 {
			t.Errorf("%v after %d batches", err, batches)
		}
	})
}

// TestRecordsInOrder: a start, a comparison that does not rest and the end of who is left
// behind by a restarted NAS go by inside address.
func TestRecordsInOrder(t *testing.T) {
	onEach(t, func(t *testing.T, client redis.UniversalClient) {
		db := newDB(t, client)
		const n = 2*redisconn.ScanCount + 7
		var events []subscriber.Event
		for _, i := range rand.New(rand.NewPCG(1, 2)).Perm(n) {
			events = append(events, start(fmt.Sprint(i), netip.AddrFrom4([4]byte{100, 64, byte(i >> 8), byte(i)}), 0))
		}
		record(t, db, events...)
		var inside []netip.Addr
		check := func(what string, want int, err error) {
			t.Helper()
			if err != nil || len(inside) != want || !slices.IsSortedFunc(inside, netip.Addr.Compare) {
				t.Errorf("%s: %d addresses, in order: %v; %v", what, len(inside), slices.IsSortedFunc(inside, netip.Addr.Compare), err)
			}
			inside = nil
		}
		check("records", n, db.Records(t.Context(), "default", func(records []subscriber.Record) error {
			for i := range records {
				inside = append(inside, records[i].Inside)
			}
			return nil
		}))
		byHand := netip.MustParseAddr("100.64.99.1")
		client.HSet(t.Context(), codec.RecordKey("default", byHand), "version", "by hand")
		check("versions", n+1, db.VersionsInOrder(t.Context(), "default", func(standing []Standing) error {
			for _, s := range standing {
				if (s.Version == "by hand") != (s.Inside == byHand) || s.Version == "" {
					t.Errorf("version of %s is %q", s.Inside, s.Version)
				}
				inside = append(inside, s.Inside)
			}
			return nil
		}))
		record(t, db, event(subscriber.EventAccountingOff, "", noAddr, time.Hour))
		check("ends", n, db.sweepAll(t.Context(), func(_ string, some []netip.Addr, _ func(int, *subscriber.Packed)) {
			inside = append(inside, some...)
		}))
		compareOnline(t, db, map[netip.Addr]string{})
	})
}
