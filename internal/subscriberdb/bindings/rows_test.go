package bindings

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/sessiond/sessiond/internal/nat"
	"github.com/sessiond/sessiond/internal/subscriberdb/codec"
	"github.com/sessiond/sessiond/internal/subscriberdb/redisconn"
	"github.com/sessiond/sessiond/internal/subscriberdb/redistest"
)

// TestBindingRowsInOrder: all rows come unchanged, in order of inside address, an
// unreadable one among them. Some are longer than a piece of the row store.
func TestBindingRowsInOrder(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		store := newStore(client)
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
		if err := store.SaveBindings(t.Context(), "default", put, nil); err != nil {
			t.Fatal(err)
		}
		odd := nat.Place{Outside: outsideAt(n), First: 1024}
		want[odd] = "nonsense"
		client.HSet(t.Context(), codec.BindingsKey("default", codec.BindingPart(odd.Outside)), codec.FormatPlace(odd), want[odd])
		got := map[nat.Place]string{}
		var inside []netip.Addr
		err := store.BindingRowsInOrder(t.Context(), "default", func(rows []Row) error {
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

// TestRowsInOrderEnd: after an error of yield, or the end of the context, no more rows
// come.
func TestRowsInOrderEnd(t *testing.T) {
	redistest.OnEach(t, func(t *testing.T, client redis.UniversalClient) {
		store := newStore(client)
		oldBindings(t, client, 2*redisconn.ScanCount)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		broken, batches := errors.New("enough"), 0
		take := func([]Row) error { batches++; return broken }
		if err := store.BindingRowsInOrder(ctx, "default", take); !errors.Is(err, broken) || batches != 1 {
			t.Errorf("%v after %d batches", err, batches)
		}
		batches = 0
		take = func([]Row) error { batches++; cancel(); return nil }
		if err := store.BindingRowsInOrder(ctx, "default", take); !errors.Is(err, context.Canceled) || batches != 1 {
			t.Errorf("%v after %d batches", err, batches)
		}
	})
}
